"""05: NVIDIA's GPU operator, from the chart to a GPU that a pod can ask for.

Helm is not told to wait, and a helm that has waited would not mean "GPU usable": the operator's controller makes the driver,
toolkit and device plug-in afterwards. The stage follows the ladder of readiness until the GPU is allocatable, and then has it
compute something.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gpurunbook import show, yaml_file
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Record
from gpurunbook.plan import Check, Plan
from gpurunbook.programs.helm import Release, releases
from gpurunbook.readiness import look, smoke, waiting
from gpurunbook.readiness.rungs import Ladder
from gpurunbook.readiness.snapshot import when
from gpurunbook.readiness.stack import PCI_LABELS
from gpurunbook.stages import crds, nodes
from gpurunbook.stages.nodes import Node

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

ONLINE_SECONDS = 3


@dataclass(frozen=True)
class Chart:
    """The pinned chart (manifests/gpu-operator/chart.yaml) and where it comes from this time.

    Attributes:
        reference: what helm is given: nvidia/gpu-operator, or a path.
        source: one sentence for the reader.
        known: the chart's repository is already in the run's helm configuration.
    """

    repository: str
    url: str
    version: str
    release: str
    namespace: str
    reference: str
    source: str
    known: bool

    @property
    def online(self) -> bool:
        return self.reference.startswith(f"{self.repository}/")


@dataclass(frozen=True)
class Facts:
    """What is there: the release, its values, the ClusterPolicy's state ("" when absent), and the GPU nodes.

    `others`: why nothing is installed, where others have seen to the GPUs already; else empty.
    """

    chart: Chart
    release: Release | None
    values: dict[str, Any]
    policy: str
    gpu_nodes: tuple[Node, ...]
    others: str = ""

    @property
    def table(self) -> show.Table:
        rows = [("chart", self.chart.source),
                ("release", f"{self.release.chart}, {self.release.status}" if self.release else "not installed"),
                ("ClusterPolicy", self.policy or "absent")]
        for node in self.gpu_nodes:
            seen = [label for label in PCI_LABELS if node.labels.get(label) == "true"]
            rows.append((node.name, f"{node.gpus} GPU allocatable; PCI label: {seen[0] if seen else 'none'}"))
        return show.Table(("what", "found"), rows)


def observe(run: Run, *, chart: str = "auto") -> Facts:
    """Read the release, the ClusterPolicy and the GPU nodes.

    Args:
        chart: "auto" (NVIDIA's if its repository answers, else the target's stand-in), "nvidia", "stand-in", or
            the path of a chart.
    """
    pinned = choose(run, chart)
    found = {r.name: r for r in releases(run.ask(run.helm.list(pinned.namespace)).stdout)}
    release = found.get(pinned.release)
    values = json.loads(run.ask(run.helm.get_values(pinned.release, pinned.namespace)).stdout or "{}") if release else {}
    gpu_nodes, policy = tuple(n for n in nodes.observe(run) if n.gpu), policy_state(run)
    if run.stage == "gpu_operator" and not run.target.ours and before(run) is None:
        _note(run, pinned.namespace, release)
    return Facts(pinned, release, values or {}, policy, gpu_nodes, _others(run, release, policy, gpu_nodes))


# What is whose, where the cluster is not ours

def _note(run: Run, namespace: str, release: Release | None) -> None:
    """Journal what is there before 05 does anything. Who may not list namespaces is taken not to have made this one."""
    from kubernetes.client import ApiException
    there, known = True, None
    with suppress(ApiException):
        there = any(item.metadata.name == namespace for item in run.core.list_namespace(_request_timeout=30).items)
        known = crds.names(run)
    run.journal.append("operator", release=release is not None, namespace=there, definitions=known)


def before(run: Run) -> Record | None:
    """What was there when 05 looked first: `release` and `namespace` (true or false), `definitions` (names of CRDs, or None)."""
    return run.journal.last("operator")


def made(run: Run) -> bool:
    """Whether the release is this run's to take away: the cluster is ours, or it was not there and 05 installed it."""
    found = before(run)
    return run.target.ours or (found is not None and not found["release"] and _tried(run))


def made_namespace(run: Run) -> bool:
    """The same of the release's namespace."""
    found = before(run)
    return run.target.ours or (found is not None and not found["namespace"] and _tried(run))


def _tried(run: Run) -> bool:
    """Whether 05 began to install since the run was last torn down, even if it was killed then."""
    release, tried = pin(run)["release"], False
    for r in run.journal.records():
        if r["kind"] == "run" and r["state"] == "finished":
            tried = False
        tried |= r["kind"] == "intent" and "--install" in r["argv"] and release in r["argv"]
    return tried


def alone(run: Run) -> bool:
    """Whether nobody else's helm can be at work in the cluster: a rehearsal is on this machine only."""
    return bool(run.target.cannot_show)


def cut_short(run: Run) -> datetime | None:
    """When this run's newest helm began to install, if it is not known to have ended well."""
    good, found = {record["id"] for record in run.journal.succeeded()}, None
    for record in run.journal.records():
        if record["kind"] == "intent" and "--install" in record["argv"]:
            found = None if record["id"] in good else when(record["time"])
    return found


def _others(run: Run, release: Release | None, policy: str, gpu_nodes: Sequence[Node]) -> str:
    found, gpus = before(run), sum(n.gpus for n in gpu_nodes)
    if run.target.ours or made(run):
        return ""
    if release and (found is None or found["release"]):
        return f"release {release.name} was there before this run, and is not ours"
    if gpus or policy:
        return f"the cluster has its own: {gpus} nvidia.com/gpu allocatable, ClusterPolicy {policy or 'absent'}"
    if used := crds.used(run):
        return f"others have objects of NVIDIA's in the cluster: {', '.join(used)}"
    return ""


# The chart


def pin(run: Run) -> dict[str, Any]:
    """manifests/gpu-operator/chart.yaml: repository, url, chart, version, release, namespace."""
    pinned: dict[str, Any] = yaml_file.load(run.manifest("gpu-operator", "chart.yaml"))
    return pinned


def choose(run: Run, chart: str) -> Chart:
    """Which chart, from where. Raises ConfigError when it cannot be had."""
    pinned = pin(run)
    home, stand_in = f"{pinned['repository']}/{pinned['chart']}", run.target.stand_in_chart(run)
    if chart == "auto":
        # What a run has begun with it goes on with: a network that comes back must not change the chart.
        before = run.journal.last("chart")
        chart = before["choice"] if before else "nvidia" if stand_in is None or reachable(pinned["url"]) else "stand-in"
    path = run.root / chart  # from the checkout, wherever the caller stands
    if chart == "nvidia":
        reference, source = home, f"NVIDIA's own, {pinned['version']} from {pinned['url']}"
    elif chart == "stand-in" and stand_in:
        reference, source = str(stand_in), "our stand-in, since this is a rehearsal without NVIDIA's repository"
    elif path.exists():
        reference, source = str(path.resolve()), f"the chart at {path}"
    else:
        raise ConfigError(f"there is no chart {chart!r} for target {run.target.name}", where="parameter chart",
                          next='"auto", "nvidia", "stand-in" (rehearsal only), or the path of a chart')
    if run.stage == "gpu_operator" and not run.journal.last("chart", choice=chart):
        run.journal.append("chart", choice=chart)
    repositories = run.helm.home / "config" / "repositories.yaml"
    known = repositories.exists() and pinned["url"] in repositories.read_text()
    return Chart(pinned["repository"], pinned["url"], pinned["version"], pinned["release"], pinned["namespace"], reference,
                 source, known)


def applied(run: Run, release: str) -> str:
    """The chart that this run last installed under that name, '' when it did not."""
    calls = [r["argv"] for r in run.journal.succeeded() if "--install" in r["argv"]]
    return next((argv[argv.index(release) + 1] for argv in reversed(calls) if release in argv), "")


def reachable(url: str) -> bool:
    """Whether a chart repository answers within three seconds."""
    import requests
    try:
        return requests.head(f"{url}/index.yaml", timeout=ONLINE_SECONDS, allow_redirects=True).ok
    except requests.RequestException:
        return False


def policy_state(run: Run) -> str:
    """`status.state` of the ClusterPolicy; "" when there is none, "pending" when it has no state yet."""
    from kubernetes.client import ApiException
    try:
        found = run.client("CustomObjectsApi").list_cluster_custom_object("nvidia.com", "v1", "clusterpolicies")
    except ApiException as error:
        if error.status == 404:
            return ""
        raise RunbookError(f"the ClusterPolicy cannot be read: {error.reason}", where="clusterpolicies.nvidia.com",
                           next="kubectl get clusterpolicies") from error
    return str(found["items"][0].get("status", {}).get("state", "pending")) if found["items"] else ""


def plan(run: Run, facts: Facts) -> Plan:
    if facts.others:
        return run.plan((), f"{facts.others}: nothing is installed")
    chart, values = facts.chart, run.manifest("gpu-operator", f"{run.cluster.gpu_stack}.yaml")
    found = before(run)
    given = () if run.target.ours else crds.settings(found["definitions"] if found else None)
    wanted = crds.merged(yaml_file.load(values), given)
    installed = facts.release
    version = chart.version.removeprefix("v")
    same = installed and installed.status == "deployed" and facts.values == wanted and installed.chart.endswith(version)
    if installed and same and applied(run, chart.release) in ("", chart.reference):
        return run.plan((), f"release {chart.release} is deployed: {installed.chart}, with these values")
    commands = []
    if installed and installed.status.startswith("pending"):  # a helm that was killed holds the release's lock
        if not alone(run) and cut_short(run) is None:
            raise RunbookError(f"release {chart.release} is {installed.status}, and this run's helm did not leave it so",
                               where=f"somebody else's helm may be at work: helm history {chart.release} -n {chart.namespace}",
                               next="wait, or ask who installs; what is left behind for good, helm rollback or uninstall clears")
        commands.append(run.helm.uninstall(chart.release, chart.namespace, hooks=False) if installed.status == "pending-install"
                        else run.helm.rollback(chart.release, chart.namespace))
    if chart.online and not chart.known:
        commands += [run.helm.repo_add(chart.repository, chart.url), run.helm.repo_update(chart.repository)]
    install = run.helm.upgrade_install(chart.release, chart.reference, namespace=chart.namespace, values=values,
                                       version=chart.version if chart.online else "", usual=(1, 60))
    flags = tuple(word for pair in given for word in ("--set", pair))
    commands.append(replace(install, argv=install.argv + flags, shown=install.shown + flags))
    was = f"{installed.chart}, {installed.status}" if installed else "not installed"
    said = f"; {' and '.join(given)}, since the cluster's CRDs are not all this run's" if given else ""
    return run.plan(commands, f"release {chart.release} is {was}; values: {values.name} for "
                              f"{run.cluster.gpu_group.ami_family}{said}")


# What comes of it

def smoke_plan(run: Run) -> Plan:
    """The CUDA smoke pods that are missing, see gpurunbook.readiness.smoke."""
    return smoke.plan(run)


def smoke_left(run: Run) -> list[str]:
    """What of this run's smoke pods is in the cluster, as KIND/NAME for `kubectl delete -n default`."""
    return smoke.left(run)


def wait(run: Run, until: str = "allocatable") -> Ladder:
    """Follow the ladder until every GPU node has reached a rung, and the ClusterPolicy, if the release is ours, is ready.

    Returns the ladder, with the times that were seen; it is in artifacts/ladder.json too.

    Raises:
        RunbookError: a node is in trouble: the rung, the cause, why, and what next.
    """
    return waiting.wait(run, until, policy=made(run))


def verify(run: Run) -> list[Check]:
    """A check for each rung from the release to the smoke pod."""
    return waiting.checks(look.once(run, exec_too=False).ladder)
