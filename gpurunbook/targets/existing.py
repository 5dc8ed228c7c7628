"""A cluster that is there already and is not ours: kind, k3s, on-prem, somebody's EKS; whatever a kubeconfig opens.

    python -m gpurunbook.targets.existing FILE -- COMMAND ...    keeps what COMMAND prints in FILE, 0600, and shows none of it

Notebook 02 copies one context into the run's own kubeconfig; from then on the user's file is not read again, and each
stage works as on any other target. What a run makes there is known by its label and its journal; nothing else is touched.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook import yaml_file
from gpurunbook.command import Command
from gpurunbook.command import run as run_command
from gpurunbook.config import ClusterConfig, NodeGroup, Taint
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal, Record
from gpurunbook.masking import hide
from gpurunbook.plan import Check, Plan
from gpurunbook.stages import gpu_operator, taint
from gpurunbook.targets import ClusterState, Part, Target, Wishes, adoption, belongings

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

CREDENTIALS = ("AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_APPLICATION_CREDENTIALS")
"""How the variables begin that programs need which a kubeconfig calls for a token."""
COPY_SECONDS = 30.0
NOT_OURS = "this cluster is not ours"


class Existing(Target):
    """The target `existing`: see gpurunbook.targets.Target."""

    name = "existing"
    ours = False

    @property
    def passes_on(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in os.environ if name.startswith(CREDENTIALS)))

    def begun(self, folder: Path) -> bool:
        return _adopted(folder) is not None

    def agree(self, cluster: ClusterConfig, wishes: Wishes) -> None:
        """Raises ConfigError when no kubeconfig is named, or it has no such context."""
        adoption.find(_named(wishes), wishes.context)

    def describe(self, folder: Path, cluster: ClusterConfig) -> ClusterConfig:
        """What was adopted, as one group of GPU nodes; before that cluster.yaml's groups, without what is dated in it.

        What the run's own kubeconfig holds of secrets is hidden from here on, before anything is journalled.
        """
        _config(folder / "kubeconfig")
        adopted = _adopted(folder)
        if adopted is None:
            return cluster.model_copy(update={"warnings": ()})
        group = NodeGroup(
            name=adopted["selector"], label=adopted["selector"], instance_type="", desired=1, min=1, max=sys.maxsize,
            volume_gib=0, ami_family=adopted["os"], ami="", labels={}, zones=(), managed=False,
            taints=tuple(Taint(key=adoption.GPU, effect=effect) for effect in adopted["gpu_taints"]))
        return cluster.model_copy(update={"name": adopted["context"], "region": "", "version": adopted["version"],
                                          "groups": (group,), "warnings": ()})

    def context(self, run: Run) -> str:
        """Out of the run's own kubeconfig, which has one: EKS's are ARNs, and the journal hides account ids."""
        return str(_config(run.kubeconfig).get("current-context", ""))

    def observe(self, run: Run) -> ClusterState:
        adopted = _adopted(run.folder)
        if adopted is None or not run.kubeconfig.exists():
            return ClusterState((Part("the run's own kubeconfig", "absent"),), False, (), ())
        try:
            nodes = adoption.look(lambda: run.core)
        except RunbookError as error:
            return ClusterState((Part(f"context {adopted['context']}", "dead", error.what),), False, (), ())
        gpu = adoption.picked(nodes, adopted["selector"])
        return ClusterState((Part(f"context {adopted['context']}", "running", f"{adopted['server']}; {NOT_OURS}"),), True,
                            tuple(n.name for n in nodes), () if gpu else (f"a node with {adopted['selector']}",))

    def create(self, run: Run, state: ClusterState, wishes: Wishes) -> Plan:
        """The one command that copies the context; nothing where that is done. The journal gets what was adopted.

        Raises:
            ConfigError: no such file or context, no label that picks GPU nodes, or another cluster than this run's.
            RunbookError: the cluster does not answer.
        """
        adopted = _adopted(run.folder) if run.kubeconfig.exists() else None
        if adopted:
            self._same(run, adopted, wishes)
            nodes = adoption.look(lambda: run.core)
            found = {key: adopted[key] for key in ("file", "context", "server")}
        else:
            file = _file(run, wishes)
            context, server = adoption.find(file, wishes.context)
            nodes = adoption.look(lambda: adoption.client(file, context))
            found = {"file": str(file), "context": context, "server": server}
        selector = adoption.choose(nodes, wishes.selector or (adopted["selector"] if adopted else ""))
        gpu = adoption.picked(nodes, selector)
        _adopt(run, {**found, "selector": selector, "os": gpu[0].os, "version": gpu[0].version,
                     "gpu_taints": sorted({effect for n in gpu for key, effect in n.taints if key == adoption.GPU})})
        # The run was opened before it was known which nodes it is about.
        run.cluster = self.describe(run.folder, run.cluster)
        reason = f"{NOT_OURS}: nothing is made here; {selector} picks its GPU nodes: {', '.join(n.name for n in gpu)}"
        if adopted:
            return run.plan((), f"{reason}; the run's own kubeconfig has the context {found['context']}")
        view = (f"--kubeconfig={file}", "config", "view", "--minify", "--flatten", "--raw", f"--context={context}")
        keep = ("-m", "gpurunbook.targets.existing", str(run.kubeconfig), "--")
        copy = Command((sys.executable, *keep, run.program("kubectl"), *view), shown=("python", *keep, "kubectl", *view),
                       why="copy the context into the run's own kubeconfig", limit=COPY_SECONDS)
        return run.plan([copy], reason)

    def _same(self, run: Run, adopted: Record, wishes: Wishes) -> None:
        """A run has one cluster. Raises ConfigError when another is asked for."""
        other = wishes.kubeconfig and hide(str(_file(run, wishes))) != adopted["file"]
        if other or wishes.context not in ("", self.context(run)):
            raise ConfigError(f"run {run.id} walks through context {adopted['context']} of {adopted['file']}",
                              where="--kubeconfig, --context", next="begin another run: gpurunbook run --run-id OTHER ...")

    def delete(self, run: Run, state: ClusterState) -> Plan:
        """The namespace, if this run made it and nobody else uses it, and last the kubeconfig.

        Raises:
            RunbookError: the cluster does not answer, so that nothing can be taken away from it.
        """
        files = (str(run.kubeconfig), str(_making(run.kubeconfig)))
        away = Command(("rm", "-f", *files), why="remove the run's own kubeconfig; yours is as it was", limit=10)
        if not run.kubeconfig.exists():
            return run.plan([away] if _making(run.kubeconfig).exists() else (),
                            f"{NOT_OURS}, and the run has no way into it any more")
        if not state.answers:
            raise RunbookError(f"the cluster does not answer: {state.parts[0].evidence}", where=str(run.kubeconfig),
                               next=f"try again when it does; if it is gone for good: {away.short}; and try again")
        commands, said = [], [f"{NOT_OURS}: what this run made goes, and nothing else"]
        pinned = gpu_operator.pin(run)
        namespace, release = pinned["namespace"], pinned["release"]
        if gpu_operator.made_namespace(run):
            if others := adoption.beside(run.client, namespace, release):
                said.append(f"the namespace {namespace} stays, since others use it: {', '.join(others)}")
            else:
                commands.append(run.kubectl("delete", "namespace", namespace, "--ignore-not-found", limit=300,
                                            why="remove the namespace that this run made"))
        if any("taint" in r["argv"] for r in run.journal.succeeded() if r["stage"] == "taint" and r["changes"]):
            said.append(f"the taint {taint.UNINITIALIZED} that 04 removed is not put back")
        if run.stage == "teardown":
            belongings.count(run)
        commands.append(away)
        return run.plan(commands, "; ".join(said))

    def left(self, run: Run) -> list[Check]:
        """Asked with the client that the teardown began with: the kubeconfig is gone by now."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError
        files = [file for file in (run.kubeconfig, _making(run.kubeconfig)) if file.exists()]
        checks = [Check("the run's own kubeconfig is gone", "fail" if files else "pass", str(run.kubeconfig),
                        f"rm -f {' '.join(map(str, files))}")]
        try:
            return [*belongings.mine(run), belongings.theirs(run), *checks]
        except (RunbookError, ApiException, HTTPError) as error:
            why = error.what if isinstance(error, RunbookError) else type(error).__name__
            return [belongings.unseen(run, why), *checks]


def _making(kubeconfig: Path) -> Path:
    """Where the copy stands until it is whole; a kill may leave it there."""
    return kubeconfig.with_suffix(".making")


def _config(kubeconfig: Path) -> dict[str, Any]:
    """The run's own kubeconfig, {} where there is none or it cannot be read; its secrets are hidden from here on."""
    try:
        config: dict[str, Any] = yaml_file.load(kubeconfig) or {}
    except ConfigError:
        return {}
    if not isinstance(config, dict):
        return {}
    adoption.hide_secrets(config)
    return config


def _adopted(folder: Path) -> Record | None:
    """What the run took over: file, context, server, selector, os, version, gpu_taints (effects)."""
    return Journal(folder).last("existing")


def _adopt(run: Run, record: dict[str, Any]) -> None:
    before = _adopted(run.folder) or {}
    if run.stage == "provision" and {key: before.get(key) for key in record} != json.loads(hide(json.dumps(record))):
        run.journal.append("existing", **record)


def _file(run: Run, wishes: Wishes) -> Path:
    return (run.root / _named(wishes)).absolute()


def _named(wishes: Wishes) -> Path:
    if not wishes.kubeconfig:
        raise ConfigError("which cluster? target existing takes over one that is there", where="--kubeconfig, --context",
                          next="gpurunbook run --target existing --kubeconfig FILE --context NAME -p selector=KEY=VALUE")
    return Path(wishes.kubeconfig).expanduser()


def _keep(file: Path, argv: list[str]) -> None:
    """Run a command and write what it prints to a file that only its owner may read."""
    printed = run_command(Command(tuple(argv), why="", limit=COPY_SECONDS, data=True), env=os.environ).raw
    making = _making(file)
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(printed)
    making.replace(file)


if __name__ == "__main__":
    try:
        _keep(Path(sys.argv[1]), sys.argv[sys.argv.index("--") + 1:])
    except RunbookError as problem:
        sys.exit(str(problem))
