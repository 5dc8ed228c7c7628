"""From a snapshot to the ladder: each rule put to each GPU node, bottom up. Pure.

A rung above one that waits or is in trouble is "ahead", unless it is done on its own evidence or has a trouble of its own.
What cannot be told holds nothing up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from gpurunbook.readiness import machine, plugins, stack, workload
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.objects import containers, latest, name, one_line, phase, when_seen
from gpurunbook.readiness.rungs import RUNGS, Finding, Ladder, NodeLadder, State, Step
from gpurunbook.readiness.snapshot import Names, Object, Snapshot, labels
from gpurunbook.readiness.view import SMOKE, Below, Here, View

RULES: dict[str, Callable[[Here, Below], Step]] = {
    "joined": machine.joined, "ready": machine.is_ready, "initialized": machine.initialized, "pci-label": stack.pci_label,
    "release": stack.release, "driver": stack.driver, "toolkit": stack.toolkit, "device-plugin": plugins.device_plugin,
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
        return _nobody("the cluster", "trouble", snapshot.lost, snapshot.lost_to)
    view = View(snapshot, names, now, patience)
    found = [climb(Here(view, node)) for node in sorted(snapshot.nodes, key=name) if names.is_gpu_node(labels(node))]
    if "nodes" in snapshot.denied:
        found = list(_nobody("GPU nodes", "unknown", snapshot.denied["nodes"]).nodes)
    elif len(found) < max(names.wanted, 1):
        found.append(_missing(view, names.wanted - len(found)))
    findings = [Finding(step.cause, step.rung, node.node, step.evidence, step.next)
                for node in found for step in node.steps if step.state == "trouble"]
    if snapshot.throttled:
        findings.insert(0, Finding("api-throttled", "joined", "", one_line(snapshot.throttled), CAUSES["api-throttled"].next))
    if extra := plugins.on_cpu_nodes(view):
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
        clear &= step.state in ("done", "unknown")
        steps.append(step)
    return NodeLadder(here.name, tuple(steps))


def _missing(view: View, lacking: int) -> NodeLadder:
    """The row of nodes that are not there. They are on their way since provisioning began, or the last one went."""
    if lacking <= 0:
        return _nobody("GPU nodes", "waiting", "there is none, and none has to be: minSize of the GPU groups is 0, or not known",
                       following="kubectl get nodes").nodes[0]
    said = f"cluster.yaml wants at least {view.names.wanted} GPU node(s), {lacking} are not there"
    there = {name(node) for node in view.snapshot.nodes}
    about = [(event, event.get("involvedObject") or {}) for event in view.snapshot.events]
    gone = (when_seen(event) for event, node in about if node.get("kind") == "Node" and node.get("name") not in there)
    since = latest(view.names.since, *gone)
    if since is not None and not view.late("joined", since):
        return _nobody(f"{lacking} missing", "waiting", said, since=since).nodes[0]
    return _nobody(f"{lacking} missing", "trouble", said, "node-missing").nodes[0]


def _nobody(node: str, state: State, evidence: str, cause: str = "", *, following: str = "",
            since: datetime | None = None) -> Ladder:
    """A ladder that ends at its first rung, for a node that nobody can look at."""
    following = CAUSES[cause].next if cause else following
    first = Step("joined", state, since, one_line(evidence), cause, following)
    steps = (first, *(Step(rung.name, "unknown" if state == "unknown" else "ahead") for rung in RUNGS[1:]))
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
        if labels(pod).get("app") == SMOKE:
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
    """Whether watching longer shows nothing new: done up to a rung, a trouble, or nothing moves, or is told, without a person."""
    held = [step for node in found.nodes if (step := node.held(until))]
    return all(step.state in ("trouble", "unknown") or step.next for step in held)


def goal(found: Ladder) -> str:
    """The rung to be reached: exec, or the smoke pod while no model is deployed."""
    steps = [step for node in found.nodes for step in node.steps if step.rung == "scheduled"]
    return "smoke" if any(step.state == "waiting" and step.next for step in steps) else RUNGS[-1].name


def standing(found: Ladder) -> str:
    """In a word: "done" up to the goal, "trouble" when there is a finding, "waiting", or "unknown": the rest cannot be told."""
    if found.findings:
        return "trouble"
    held = [step for node in found.nodes if (step := node.held(goal(found)))]
    return "done" if not held else "unknown" if all(step.state == "unknown" for step in held) else "waiting"
