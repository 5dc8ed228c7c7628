"""The CUDA smoke pods: one for each GPU node, kept as evidence for as long as driver, toolkit and plug-in are the same."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpurunbook import yaml_file
from gpurunbook.deployment import RUN_LABEL
from gpurunbook.errors import RunbookError
from gpurunbook.files import to_yaml
from gpurunbook.plan import Plan
from gpurunbook.readiness import look
from gpurunbook.readiness.objects import OVER, name, phase
from gpurunbook.readiness.snapshot import Names, Object, Snapshot, gpus, labels, quantity
from gpurunbook.readiness.view import GENERATION, SMOKE, SMOKE_NAMESPACE, Here, View
from gpurunbook.readiness.workload import not_whole

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


@dataclass(frozen=True)
class Wanted:
    """What is to be done for one node: `stale` pods go first; `make` is False where `reason` says why not."""

    node: str
    hostname: str
    generation: str
    make: bool
    reason: str
    stale: tuple[str, ...] = ()


def wanted(snapshot: Snapshot, names: Names) -> list[Wanted]:
    """For each GPU node that offers a GPU: is there evidence, or can it be had? Pure."""
    view = View(snapshot, names, datetime.now(UTC), 1)
    nodes = sorted((n for n in snapshot.nodes if names.is_gpu_node(labels(n))), key=name)
    return [_wanted(Here(view, node)) for node in nodes if quantity(node.get("status", {}).get("allocatable") or {})]


def _wanted(here: Here) -> Wanted:
    pod, made = here.smoke(), here.generation
    hostname = labels(here.node).get("kubernetes.io/hostname", here.name)
    stale = (name(pod),) if pod else ()
    if pod and labels(pod).get(GENERATION) == made and phase(pod) != "Failed":
        how = "has succeeded, with this driver, toolkit and plug-in" if phase(pod) == "Succeeded" else "is on its way"
        return Wanted(here.name, hostname, made, False, f"{name(pod)} {how}")
    model = next((p for p in here.holders() if here.view.is_model(p)), None)
    if model and gpus(model):
        return Wanted(here.name, hostname, made, False, f"{name(model)} holds the GPU of {here.name}: not run there",
                      stale if pod and phase(pod) in OVER else ())
    if other := not_whole(here.node):
        return Wanted(here.name, hostname, made, False, other)
    return Wanted(here.name, hostname, made, True, f"{here.name} offers a GPU, and nothing proves yet that it computes", stale)


def program_name(run_id: str) -> str:
    """The ConfigMap's name: a run's own, since runs may share a cluster."""
    return f"{SMOKE}-{_short(run_id)}"


def pod_name(hostname: str, run_id: str) -> str:
    """A short name that a run has for a node every time."""
    return f"{program_name(run_id)}-{_short(hostname)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def manifest(template: Sequence[Object], found: Sequence[Wanted], run_id: str) -> list[Object]:
    """The ConfigMap, and a pod for each node that wants one, with the run's label. Pure."""
    program, pod = template
    made = [copy.deepcopy(program)]
    made[0]["metadata"]["name"] = program_name(run_id)
    for one in found:
        if one.make:
            item = copy.deepcopy(pod)
            item["metadata"]["name"] = pod_name(one.hostname, run_id)
            item["spec"]["volumes"][0]["configMap"]["name"] = program_name(run_id)
            item["metadata"]["labels"][GENERATION] = one.generation
            item["spec"]["nodeSelector"] = {"kubernetes.io/hostname": one.hostname}
            made.append(item)
    for item in made:
        item["metadata"].setdefault("labels", {})[RUN_LABEL] = run_id
    return made


def plan(run: Run) -> Plan:
    """Delete the smoke pods that prove nothing any more, and apply those that are missing: one file in the run folder.

    Raises RunbookError when nodes or pods cannot be read: what is there is not known.
    """
    snapshot = look.once(run, exec_too=False).snapshot
    if unread := snapshot.lost or next((snapshot.denied[kind] for kind in ("nodes", "pods") if kind in snapshot.denied), ""):
        raise RunbookError(f"whether a GPU computes cannot be asked: {unread}", where=str(run.kubeconfig),
                           next=f"gpurunbook gpu --run-id {run.id}")
    found = wanted(snapshot, look.names(run))
    making = [one for one in found if one.make]
    if not found:
        return run.plan((), "no GPU node offers a GPU yet: nothing to prove")
    if not making:
        return run.plan((), "; ".join(dict.fromkeys(one.reason for one in found)))
    stale = [pod for one in making for pod in one.stale]
    commands = [run.kubectl("delete", "pod", "-n", SMOKE_NAMESPACE, *stale, "--ignore-not-found", limit=120,
                            why="remove smoke pods that failed, or whose driver, toolkit or plug-in is gone")] if stale else []
    path = run.folder / "artifacts" / "smoke.yaml"
    template = yaml_file.load_all(run.manifest("gpu-operator", "smoke.yaml"))
    text = to_yaml(manifest(template, found, run.id))
    commands.append(run.kubectl.apply(path, why=f"run a CUDA program on {len(making)} GPU node(s)"))
    return run.plan(commands, f"{making[0].reason}: {SMOKE} pods add two vectors there ({len(making)} node(s))",
                    files={path: text})


def left(run: Run) -> list[str]:
    """Names of this run's smoke pods that are there, and of their ConfigMap, as KIND/NAME for kubectl delete."""
    selector = f"app={SMOKE},{RUN_LABEL}={run.id}"
    pods = run.core.list_namespaced_pod(SMOKE_NAMESPACE, label_selector=selector, _request_timeout=30).items
    maps = run.core.list_namespaced_config_map(SMOKE_NAMESPACE, label_selector=f"{RUN_LABEL}={run.id}", _request_timeout=30).items
    return [f"pod/{item.metadata.name}" for item in pods] + [
        f"configmap/{item.metadata.name}" for item in maps if item.metadata.name.startswith(SMOKE)]
