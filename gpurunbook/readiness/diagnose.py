"""From a snapshot to the ladder: each rule put to each GPU node, bottom up. Pure.

A rung above the lowest one that is not done is "ahead", unless it is done on its own evidence or has a trouble of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from gpurunbook.readiness import machine, stack, workload
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.rungs import BY_NAME, RUNGS, Finding, Ladder, NodeLadder, Step
from gpurunbook.readiness.snapshot import Names, Object, Snapshot, labels
from gpurunbook.readiness.view import Below, Here, View, containers, latest, name, one_line, phase

RULES: dict[str, Callable[[Here, Below], Step]] = {
    "joined": machine.joined, "ready": machine.is_ready, "initialized": machine.initialized, "pci-label": stack.pci_label,
    "release": stack.release, "driver": stack.driver, "toolkit": stack.toolkit, "device-plugin": stack.device_plugin,
    "capacity": stack.capacity, "allocatable": stack.allocatable, "smoke": workload.smoke, "scheduled": workload.scheduled,
    "pulled": workload.pulled, "running": workload.running, "exec": workload.answers,
}
LEAST = 20.0
"""Seconds that any rung may take, however little patience there is, before it counts as a trouble of no known cause."""


def ladder(snapshot: Snapshot, names: Names, now: datetime, patience: float = 1.0) -> Ladder:
    """What each GPU node shows on each rung, and what is wrong.

    Args:
        now: the moment that the snapshot was taken, with a time zone.
        patience: a factor on the limits of all rungs: 1 on AWS, less on a rehearsal that goes faster.
    """
    if snapshot.lost:
        return _nobody("the cluster", "trouble", snapshot.lost, "wrong-kubeconfig", CAUSES["wrong-kubeconfig"].next)
    view = View(snapshot, names, now, patience)
    found = [climb(Here(view, node)) for node in sorted(snapshot.nodes, key=name) if names.is_gpu_node(labels(node))]
    if "nodes" in snapshot.denied:
        found = list(_nobody("GPU nodes", "unknown", snapshot.denied["nodes"]).nodes)
    elif (lacking := max(names.wanted, 1) - len(found)) > 0 and (names.wanted or not found):
        found.append(_missing(view, lacking))
    findings = [Finding(step.cause, step.rung, node.node, step.evidence, step.next)
                for node in found for step in node.steps if step.state == "trouble"]
    if snapshot.throttled:
        findings.insert(0, Finding("api-throttled", "joined", "", one_line(snapshot.throttled), CAUSES["api-throttled"].next))
    if extra := stack.on_cpu_nodes(view):
        findings.append(extra)
    return Ladder(tuple(found), _each_once(findings))


def climb(here: Here) -> NodeLadder:
    """All rungs of one node."""
    steps: list[Step] = []
    began: datetime | None = None
    clear = True
    for rung in RUNGS:
        step = RULES[rung.name](here, Below(began, clear))
        step = replace(step, evidence=one_line(step.evidence))
        if step.state == "waiting":
            start = latest(step.since, began)
            if not clear:
                step = replace(step, state="ahead", next="")
            elif not step.next and here.view.late(rung.name, start, max(rung.limit, LEAST / here.view.patience)):
                beyond = max(rung.limit * here.view.patience, LEAST)
                step = here.trouble(rung.name, "unknown", f"for longer than {beyond:g} s: {step.evidence}", start)
        if step.state == "done":
            began = latest(began, step.since)
        else:
            clear = False
        steps.append(step)
    return NodeLadder(here.name, tuple(steps))


def _missing(view: View, lacking: int) -> NodeLadder:
    said = f"cluster.yaml wants {view.names.wanted or 'a'} GPU node(s), {lacking} are not there"
    if view.names.since is not None and not view.late("joined", view.names.since):
        return _nobody(f"{lacking} missing", "waiting", said).nodes[0]
    return _nobody(f"{lacking} missing", "trouble", said, "node-missing", CAUSES["node-missing"].next).nodes[0]


def _nobody(node: str, state: str, evidence: str, cause: str = "", following: str = "") -> Ladder:
    """A ladder that ends at its first rung, for a node that nobody can look at."""
    first = Step("joined", state, None, one_line(evidence), cause, following)  # type: ignore[arg-type]
    steps = (first, *(Step(rung.name, "ahead") for rung in RUNGS[1:]))
    finding = (Finding(cause, "joined", "", first.evidence, following),) if cause else ()
    return Ladder((NodeLadder(node, steps),), finding)


def _each_once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without those that say the same of another node: one pod that waits for every node is one trouble."""
    seen: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        seen.setdefault((finding.cause, finding.rung, finding.evidence), finding)
    return tuple(seen.values())


def troubled(snapshot: Snapshot, names: Names, most: int = 5) -> list[tuple[Object, str, bool]]:
    """Containers whose log says more than their status: (pod, container, whether it is the log of the run before)."""
    found: list[tuple[Object, str, bool]] = []
    smoke_seen = 0
    for pod in snapshot.pods:
        if labels(pod).get("app") == "gpu-smoke":
            if phase(pod) in ("Succeeded", "Failed") and smoke_seen < most:
                smoke_seen += 1
                found += [(pod, str(c.get("name")), False) for c in containers(pod)[:1]
                          if not ((c.get("state") or {}).get("terminated") or {}).get("message")]
            continue
        for container in containers(pod):
            if ((container.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff":
                found.insert(0, (pod, str(container.get("name")), True))
    return found[:most]


def settled(found: Ladder, until: str = RUNGS[-1].name) -> bool:
    """Whether watching longer shows nothing new: all done up to a rung, or a trouble, or nothing moves without a person."""
    held = [step for node in found.nodes if (step := holds(node, until))]
    return all(step.state == "trouble" or step.next for step in held)


def goal(found: Ladder) -> str:
    """The rung to be reached: exec, or the smoke pod while no model is deployed."""
    steps = [step for node in found.nodes for step in node.steps]
    return "smoke" if any(step.rung == "scheduled" and step.next == workload.RUN_06 for step in steps) else RUNGS[-1].name


def standing(found: Ladder) -> str:
    """In a word: "done" up to the goal, "trouble" when there is a finding, or "waiting"."""
    if found.findings:
        return "trouble"
    return "waiting" if any(holds(node, goal(found)) for node in found.nodes) else "done"


def holds(node: NodeLadder, until: str = RUNGS[-1].name) -> Step | None:
    """What holds a node up, no higher than a rung; None when all up to there is done. A trouble counts before a wait."""
    last = RUNGS.index(BY_NAME[until])
    steps: Sequence[Step] = node.steps[:last + 1]
    return next((s for s in steps if s.state == "trouble"), None) or next((s for s in steps if s.state != "done"), None)
