"""The ladder of an open run: once, or followed until it settles."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from gpurunbook import identity
from gpurunbook.config import NodeGroup
from gpurunbook.errors import RunbookError
from gpurunbook.processes import Process
from gpurunbook.readiness import probe
from gpurunbook.readiness.cluster import LOST, Cluster
from gpurunbook.readiness.diagnose import ladder
from gpurunbook.readiness.objects import phase
from gpurunbook.readiness.reading import Reader, Refused
from gpurunbook.readiness.rungs import FEW, Ladder
from gpurunbook.readiness.snapshot import Names, Probe, Snapshot, labels, ready, when
from gpurunbook.readiness.view import View

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

TICK = 1.0
"""Seconds after which a ladder is looked at again though nothing changed: a limit may have passed."""
ASK_AGAIN = 10.0
"""Seconds between two tries of exec where the first went wrong."""


@dataclass(frozen=True)
class Look:
    """One look: the ladder, and what it was read from. `seconds` since the first request."""

    ladder: Ladder
    snapshot: Snapshot
    seconds: float


def names(run: Run) -> Names:
    """The names by which this run's GPU nodes, operator and model are known."""
    from gpurunbook.stages import gpu_operator, model, objects
    chart, deployment = gpu_operator.pin(run), model.manifest(run)
    began = run.journal.last("stage", stage="provision")
    return Names(
        is_gpu_node=gpu_nodes(run.cluster.groups), wanted=sum(min(g.min, g.desired) for g in run.cluster.groups if g.gpu),
        since=when(began["time"]) if began else None, namespace=chart["namespace"], release=chart["release"],
        model_namespace=objects.NAMESPACE, model_label=deployment.label, container=deployment.container, run=run.id,
        ours=run.target.ours, alone=gpu_operator.alone(run), helm_at_work=_helm_at_work(run),
        cut_short=gpu_operator.cut_short(run))


def gpu_nodes(groups: tuple[NodeGroup, ...]) -> Any:
    """Whether a node's labels put it into a GPU group."""
    from gpurunbook.stages.nodes import group_of

    def is_gpu_node(found: Mapping[str, str]) -> bool:
        _, group = group_of(found, groups)
        return bool(group and group.gpu)

    return is_gpu_node


def _helm_at_work(run: Run) -> bool:
    return any("--install" in record["argv"] and "program" in record and Process(**record["program"]).alive
               for record in run.journal.in_flight())


def once(run: Run, *, exec_too: bool = True) -> Look:
    """Read the cluster, try exec where the model's container runs, and say what each GPU node shows.

    Args:
        exec_too: False leaves exec untried.

    Raises:
        RunbookError: the run has no cluster at all.
    """
    began, known = time.monotonic(), names(run)
    reader, lost = _connect(run)
    if reader is None:
        return _look(run, lost, known, began, datetime.now(UTC))
    cluster = Cluster(reader, known)
    snapshot = cluster.read()
    if exec_too and not snapshot.lost:
        snapshot = replace(snapshot, probes=_probes(run, known, snapshot, (), most=FEW))
    return _look(run, snapshot, known, began, cluster.now)


def follow(run: Run, *, timeout: float, over: Callable[[Look], bool], seen: Seen | None = None,
           exec_too: bool = True) -> Generator[Look, None, None]:
    """A look each time that something changes, and each second, until `over` says so or the time is over.

    Args:
        seen: times that are known already.
        exec_too: False leaves exec untried.

    Raises:
        RunbookError: the run has no cluster at all.
    """
    began, known = time.monotonic(), names(run)
    reader, lost = _connect(run)
    if reader is None:
        yield _look(run, lost, known, began, datetime.now(UTC))
        return
    seen = seen or Seen()
    with Cluster(reader, known).following() as cluster:
        probes: tuple[Probe, ...] = ()
        while True:
            snapshot = cluster.snapshot()
            if exec_too and not snapshot.lost:
                probes = _probes(run, known, snapshot, probes, most=1)
            if sum(known.is_gpu_node(labels(node)) for node in snapshot.nodes) >= known.wanted:
                known = replace(known, since=cluster.now)  # one that goes from here on is missing from then on
            now = replace(known, helm_at_work=_helm_at_work(run))
            found = _look(run, replace(snapshot, probes=probes), now, began, cluster.now)
            found = replace(found, ladder=seen.dated(found.ladder, cluster.now))
            yield found
            if over(found) or found.seconds > timeout:
                return
            cluster.wait(TICK)


def footer(run: Run) -> str:
    """Provenance for a chart: target and run; a rehearsal says so."""
    where = "REHEARSAL: no GPU, these are no times of AWS" if run.target.cannot_show else run.target.name
    return f"GPU readiness · {where} · run {run.id}"


def _look(run: Run, snapshot: Snapshot, known: Names, began: float, now: datetime) -> Look:
    found = ladder(snapshot, known, now, run.target.patience(run))
    return Look(found, snapshot, time.monotonic() - began)


def _connect(run: Run) -> tuple[Reader | None, Snapshot]:
    """A reader of the run's own cluster; or none, and what says why it is not to be reached or is another one."""
    if not run.kubeconfig.exists():
        raise RunbookError(f"run {run.id} has no cluster", where=str(run.kubeconfig),
                           next="gpurunbook run --until provision; gpurunbook status lists the runs")
    from kubernetes.config import ConfigException
    record = run.journal.last("identity")
    try:
        # The smallest API: CoreV1Api alone brings 100 MB of model classes, which nothing here uses.
        reader = Reader(run.client("VersionApi").api_client)
        seen = identity.read(run.kubeconfig, run.target.context(run), lambda: _Namespaces(reader),
                             (record or {}).get("ca_sha256", ""))
    except Refused as refused:
        if refused.why in LOST:
            return None, Snapshot(lost=refused.said, lost_to=LOST[refused.why])
        return reader, Snapshot()  # it answers, and will not say who it is: the rungs tell what can be read
    except (ConfigException, yaml.YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        return None, Snapshot(lost=f"{run.kubeconfig.name} cannot be used: {error}")
    except RunbookError as error:
        return None, Snapshot(lost=error.what)
    if record and not record.get("void") and (differs := [key for key, value in seen.items() if record[key] != value]):
        return None, Snapshot(lost=f"the cluster at {seen['server']} is not the one this run began with: "
                                   f"{', '.join(differs)} differ")
    return reader, Snapshot()


class _Namespaces:
    """As much of CoreV1Api as identity.read asks for, without a retry of its own."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read_namespace(self, name: str, **_: object) -> Any:
        from types import SimpleNamespace
        found = self._reader.get(f"/api/v1/namespaces/{name}")
        return SimpleNamespace(metadata=SimpleNamespace(uid=found.get("metadata", {}).get("uid")))


def _probes(run: Run, known: Names, snapshot: Snapshot, before: tuple[Probe, ...], *, most: int) -> tuple[Probe, ...]:
    """Try exec in the model's pods that run: at most so many, those first that were not asked; one that went wrong, again."""
    running = {str(p["metadata"].get("uid")): p for p in View(snapshot, known, datetime.now(UTC), 1).model
               if ready(p) and phase(p) == "Running"}
    asked = {one.pod: one for one in before if one.pod in running}
    again = [uid for uid, one in asked.items() if not (one.whole and one.tar is not False)
             and (datetime.now(UTC) - one.when).total_seconds() >= ASK_AGAIN]
    for uid in [*(uid for uid in running if uid not in asked), *again][:most]:
        asked[uid] = probe.ask(run, known, running[uid])
    return tuple(asked.values())


class Seen:
    """When rungs became done while somebody looked, for those of which the cluster does not tell.

    Args:
        before: a ladder of earlier, whose times hold for nodes that are still the same.
    """

    def __init__(self, before: Ladder | None = None) -> None:
        self._open: set[tuple[str, str]] = set()
        self._done: dict[tuple[str, str], datetime] = {}
        self._before = {(node.node, node.steps[0].since): node for node in (before.nodes if before else ()) if node.steps}

    def dated(self, found: Ladder, now: datetime) -> Ladder:
        """The ladder with what was seen filled in."""
        for node in found.nodes:
            if old := self._before.pop((node.node, node.steps[0].since), None):
                self._done |= {(node.node, s.rung): s.since for s in old.steps if s.since and s.state == "done"}
            for step in node.steps:
                key = node.node, step.rung
                if step.state != "done":
                    self._open.add(key)
                    self._done.pop(key, None)
                elif key in self._open and step.since is None:
                    self._done.setdefault(key, now)
        return replace(found, nodes=tuple(replace(node, steps=tuple(
            replace(step, since=step.since or self._done.get((node.node, step.rung))) for step in node.steps))
            for node in found.nodes))

