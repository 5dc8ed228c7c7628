"""Notebook 05's wait and checks: the ladder followed to a rung, kept as a file, and judged."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from gpurunbook import cells, live
from gpurunbook.errors import RunbookError
from gpurunbook.files import write
from gpurunbook.masking import hide
from gpurunbook.plan import Check
from gpurunbook.plan import State as Mark
from gpurunbook.readiness import durations, look
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.rungs import BY_NAME, RUNGS, Ladder, State, Step
from gpurunbook.readiness.screen import Screen, summary
from gpurunbook.readiness.snapshot import Snapshot, when

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

CHECKED = tuple(rung.name for rung in RUNGS[4:11])
"""From the release to the smoke pod."""
JUDGED: dict[State, Mark] = {"done": "pass", "waiting": "fail", "trouble": "fail", "unknown": "unknown", "ahead": "unknown"}
FILE = "ladder.json"


def wait(run: Run, until: str, *, policy: bool) -> Ladder:
    """Follow until all GPU nodes have reached a rung, and the ClusterPolicy is ready if `policy`.

    Raises:
        RunbookError: a node is in trouble, or nothing goes on without a person, or what holds a node up may not be read, or
            the target's limit is over. Where only the last rung itself cannot be told, there is nothing to wait for.
    """
    what, screen, blocker, seen = f"GPU nodes reach: {BY_NAME[until].title}", Screen(until), "", look.Seen(_before(run))
    step = live.Live(what, None, lambda: run.target.meter(run), live.LOOKS)
    limit, saved, commands = run.target.wait_limit(run), None, tuple(durations.commands(run.journal.records()).items())
    looks = look.follow(run, timeout=limit, seen=seen, exec_too=False, over=lambda one: False)
    try:
        with step, closing(looks):  # its watches end with this block, whatever happens in it
            for seen_now in looks:
                found = replace(seen_now, ladder=replace(seen_now.ladder, commands=commands))
                screen(found.ladder, found.seconds)
                step.usual = step.usual or usual(found.ladder, until, run.target.patience(run))
                if found.ladder != saved:
                    _save(run, found.ladder)
                    saved = found.ladder
                now = _blocker(found.ladder, found.snapshot, until, policy=policy)
                if now != blocker or not now:
                    run.journal.append("wait", stage=run.stage, what=what, blocker=now, seconds=round(found.seconds, 3),
                                       usual=step.usual)
                step.blocker = blocker = now
                if not blocker:
                    return found.ladder
                _judge(run, found.ladder, until)
    except KeyboardInterrupt as error:
        cells.shorten(error, f"waiting for: {what}; last seen: {blocker}", str(run.journal.path))
        raise
    raise RunbookError(f"{what}: not within {limit:g} s; last seen: {blocker}", where=str(run.journal.path),
                       next=f"gpurunbook gpu --run-id {run.id}; kubectl describe clusterpolicy")


def usual(found: Ladder, until: str, patience: float) -> tuple[float, float] | None:
    """Seconds that the rungs up to one usually take, for the node with most of them ahead; None where none is."""
    names = [rung.name for rung in RUNGS]
    ahead = [[BY_NAME[step.rung].usual for step in node.steps[:names.index(until) + 1] if step.state != "done"]
             for node in found.nodes]
    longest = max(ahead, key=len, default=[])
    low, high = (patience * sum(bounds) for bounds in zip(*longest, strict=True)) if longest else (0.0, 0.0)
    return (round(low) or 1.0, round(high)) if high >= 2 else None


def _blocker(found: Ladder, snapshot: Snapshot, until: str, *, policy: bool) -> str:
    held = [step for node in found.nodes if (step := node.held(until))]
    if any(step.state != "unknown" or step.rung != until for step in held):
        return summary(found, until)
    state = next((str((item.get("status") or {}).get("state", "pending")) for item in snapshot.policies), "absent")
    return f"ClusterPolicy {state}" if policy and state != "ready" else ""


def _judge(run: Run, found: Ladder, until: str) -> None:
    """Raises RunbookError where waiting longer is of no use: the rung, its cause, why, and what next."""
    for node in found.nodes:
        step = node.held(until)
        if not step or (step.state == "unknown" and step.rung == until):
            continue
        what = f"{node.node}: {BY_NAME[step.rung].title}"
        if step.state == "trouble":
            cause = CAUSES[step.cause]
            said = " ".join(filter(None, (cause.why, cause.advice)))
            raise RunbookError(f"{what}: {cause.title} ({cause.name}): {step.evidence}. {said}", where=_look(run), next=step.next)
        if step.state == "unknown":
            raise RunbookError(f"{what}: cannot be told: {step.evidence}", where=_look(run), next="kubectl auth can-i --list")
        if step.next:
            raise RunbookError(f"{what}: {step.evidence}", where=_look(run), next=step.next)


def _look(run: Run) -> str:
    """The ladder, and the `export` line that the next command needs."""
    return f"gpurunbook gpu --run-id {run.id}"


def _save(run: Run, found: Ladder) -> None:
    write(run.artifacts / FILE, hide(json.dumps({"run": run.id, "target": run.target.name, **found.to_json()}, indent=1)) + "\n")


def _before(run: Run) -> Ladder:
    """The ladder that this run saved before, for the times in it; an empty one where there is none that can be read."""
    from gpurunbook.readiness.rungs import NodeLadder
    with suppress(OSError, ValueError, KeyError, TypeError):
        nodes = json.loads((run.artifacts / FILE).read_text())["nodes"]
        return Ladder(tuple(NodeLadder(str(node["node"]), tuple(
            Step(s["rung"], s["state"], when(s["since"])) for s in node["steps"])) for node in nodes))
    return Ladder(())


def checks(found: Ladder, names: tuple[str, ...] = CHECKED) -> list[Check]:
    """A check for each of the rungs, over all GPU nodes; and one for each trouble that holds none of them up. Pure."""
    made = [_check(found, rung) for rung in names]
    told = {(step.rung, step.evidence) for node in found.nodes for step in node.steps}
    return made + [Check(CAUSES[f.cause].title, "warn", f.evidence, f.next) for f in found.findings
                   if (f.rung, f.evidence) not in told]


def _check(found: Ladder, rung: str) -> Check:
    steps = [(node.node, step) for node in found.nodes for step in node.steps if step.rung == rung]
    order = ("trouble", "waiting", "unknown", "ahead", "done")
    node, worst = min(steps, key=lambda pair: order.index(pair[1].state))
    name = BY_NAME[rung].title
    if worst.state == "done":
        more = f" (and {len(steps) - 1} more nodes)" if len(steps) > 1 else ""
        return Check(name, "pass", f"{worst.evidence}{more}")
    cause = f"{worst.cause}: " if worst.cause else ""
    return Check(name, JUDGED[worst.state], f"{node}: {cause}{worst.evidence or 'a rung below holds it up'}",
                 worst.next or "gpurunbook gpu")
