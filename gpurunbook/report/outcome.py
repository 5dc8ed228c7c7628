"""A run in one line, and what to type next: for whoever opens its report in the night. Pure, from the journal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from gpurunbook import stages
from gpurunbook.journal import Record
from gpurunbook.plan import State
from gpurunbook.report.story import StageStory, Trouble
from gpurunbook.runs import RunInfo


@dataclass(frozen=True)
class Step:
    """A command to type, and what it does."""

    command: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        state: pass, fail, or warn for one that has not come to an end.
        line: what happened, one sentence.
        trouble: why, where it stopped.
        details: more of it: what was in flight, what held it up.
        steps: what can be typed next, the likeliest first.
    """

    state: State
    line: str
    trouble: Trouble | None
    details: tuple[str, ...]
    steps: tuple[Step, ...]


def outcome(info: RunInfo, told: Sequence[StageStory], records: Sequence[Record]) -> Outcome:
    """Of the run as its journal tells it now."""
    return _drill(info, told, records) if info.drill else _walk(info, told, records)


def _walk(info: RunInfo, told: Sequence[StageStory], records: Sequence[Record]) -> Outcome:
    ran = sorted((story for story in told if story.outcome != "not run"), key=lambda story: story.since)
    newest = ran[-1] if ran else None
    if info.state == "running" and not (newest and newest.outcome == "failed"):  # a notebook that failed may be open still
        held = [newest] if newest and newest.outcome == "started" else []
        here = f"in {held[0].title}" if held else "between two stages"
        return Outcome("warn", f"Under way, {here} when this was written", None, (*_held(held), *_failed_before(ran)), (
            Step(f"gpurunbook status --run-id {info.id}", "says where it is now"),
            Step(f"gpurunbook report --run-id {info.id}", "writes this page again")))
    stopped = next((story for story in reversed(ran) if story.outcome in ("failed", "started")), None)
    if stopped and stopped.outcome == "failed":
        return _failed(info, stopped, ran, records)
    if info.state == "finished":
        return _finished(info, told)
    if stopped:
        return Outcome("warn", f"Interrupted in {stopped.title}", None, (
            *_held([stopped]), *_failed_before(ran), *(_in_flight(records) or _last(records))), _go_on(info))
    if info.state == "kept":
        last = f"Walked up to {_furthest(ran).title}" if ran else "Begun"
        return Outcome("pass", f"{last}; the cluster was left up", None, (), _go_on(info))
    last = f"after {_furthest(ran).title}" if ran else "before its first stage"
    return Outcome("warn", f"Left {last}; nothing failed", None, _in_flight(records), _go_on(info))


def _drill(info: RunInfo, told: Sequence[StageStory], records: Sequence[Record]) -> Outcome:
    """Of a fault to practise on. It is named once it was revealed, or is gone."""
    verdicts = [record["mended"] for record in records if record["kind"] == "verdict"]
    mended, gone = bool(verdicts and verdicts[-1]), info.state == "finished"
    hints = sum(record["kind"] == "hint" for record in records)
    details = [f"hints given: {hints}"] if hints else []
    seed = next(int(record["seed"]) for record in records if record["kind"] == "drill")
    if gone or any(record["kind"] == "reveal" for record in records):
        from gpurunbook.drills import catalogue
        details.insert(0, f"the fault was {catalogue.pick(seed).cause}")
    if not gone:
        teardown = next(story for story in told if story.name == "teardown")
        if teardown.outcome == "failed":
            failed = _walk(info, told, records)
            return replace(failed, line=f"A drill: {failed.line}", details=(*failed.details, *details))
        line = ("it was found mended" if mended else "not mended yet" if verdicts else
                "up, and not checked yet" if info.state == "kept" else "begun")
        return Outcome("pass" if mended else "warn", f"A drill: {line}", None, tuple(details), (
            *(() if mended else (Step(f"gpurunbook gpu --run-id {info.id}", "shows where the GPU nodes are held up"),
                                 Step(f"gpurunbook drill check --run-id {info.id}", "says whether it is mended"))),
            Step(f"gpurunbook teardown --run-id {info.id}", "ends the drill")))
    over = _finished(info, told)
    became = "found mended, then torn down" if mended else "torn down, not found mended"
    left = "nothing left behind" if over.state == "pass" else over.line.partition("; ")[2]
    return replace(over, line=f"A drill: {became}; {left}", details=(*details, *over.details),
                   steps=(Step(f"gpurunbook drill start --seed {seed}", "begins the same drill again"),))


def _furthest(ran: Sequence[StageStory]) -> StageStory:
    return max(ran, key=lambda story: stages.NAMES.index(story.name))


def _failed_before(ran: Sequence[StageStory], but: StageStory | None = None) -> tuple[str, ...]:
    return tuple(f"failed before: {story.title}" for story in ran if story.outcome == "failed" and story is not but)


def _failed(info: RunInfo, story: StageStory, ran: Sequence[StageStory], records: Sequence[Record]) -> Outcome:
    """Of the stage where it stopped last; what failed before that is named."""
    gone = info.state == "finished"
    line = f"Stopped in {story.title}" + ("; torn down since" if gone and story.name != "teardown" else "")
    if gone:
        steps: tuple[Step, ...] = (Step(_new(info), "begins a new run"),)
    elif story.name == "teardown":
        steps = (Step(f"gpurunbook teardown --run-id {info.id}", "goes on with taking away what it made"),)
    else:
        steps = _go_on(info)
    return Outcome("fail", line, story.errors[-1] if story.errors else _unsaid(story),
                   (*_held([story]), *_failed_before(ran, story), *_in_flight(records)), steps)


def _unsaid(story: StageStory) -> Trouble | None:
    """Why a stage failed whose error is not in the journal: its first check that failed, or its last command."""
    check = next((c for c in story.checks if c["state"] == "fail"), None)
    if check:
        return Trouble(f"{check['name']}: {check['evidence']}", "", check.get("fix", ""), "")
    command = next((c for c in reversed(story.commands) if c["code"] != 0), None)
    if command:
        how = command["error"] or f"exit code {command['code']}"
        return Trouble(f"{command['why']}: {how}", command["shown"], "", "")
    return None


def _finished(info: RunInfo, told: Sequence[StageStory]) -> Outcome:
    """Nothing is left behind where every check of the teardown passed, and only there."""
    ran = sum(story.outcome == "done" for story in told)
    whole, checks = ran == len(told), next(story.checks for story in told if story.name == "teardown")
    steps = () if whole else (Step(_new(info), "begins a new run"),)
    left = [check for check in checks if check["state"] != "pass"]
    if checks and not left:
        return Outcome("pass", "Walked to the end, nothing left behind" if whole else
                       f"Torn down, nothing left behind; {ran} of {len(told)} stages were walked", None, (), steps)
    names = ", ".join(str(check["name"]) for check in left) or "the teardown's checks are not in the journal"
    line = f"{'Walked to the end, torn' if whole else 'Torn'} down; not proved: {names}"
    details = tuple(f"{check['name']}: {check['evidence']}" + (f"; {check['fix']}" if check.get("fix") else "") for check in left)
    return Outcome("warn", line, None, details, steps)


def _held(begun: Sequence[StageStory]) -> tuple[str, ...]:
    return tuple(f"waiting: {story.blocker}" for story in begun[-1:] if story.blocker)


def _in_flight(records: Sequence[Record]) -> tuple[str, ...]:
    """Commands without a result: whether they came to their end nobody saw."""
    ended = {r["id"] for r in records if r["kind"] == "result"}
    return tuple(f"in flight: {r['shown']}" for r in records if r["kind"] == "intent" and r["id"] not in ended)


def _last(records: Sequence[Record]) -> tuple[str, ...]:
    """Where nothing was in flight, the last command that had ended: it stopped after that."""
    why = {r["id"]: r["why"] for r in records if r["kind"] == "intent"}
    ended = [r for r in records if r["kind"] == "result" and r["id"] in why]
    return tuple(f"no command was in flight; the last to end, {r['time'][11:19]} UTC: {why[r['id']]}" for r in ended[-1:])


def _go_on(info: RunInfo) -> tuple[Step, ...]:
    return (Step(f"gpurunbook run --run-id {info.id}", "looks at the cluster and goes on with what is missing"),
            Step(f"gpurunbook teardown --run-id {info.id}", "takes away what the run made"))


def _new(info: RunInfo) -> str:
    target = "" if info.target == "rehearsal" else f" --target {info.target}"
    file = "" if Path(info.cluster_file).name == "cluster.yaml" else f" -f {shlex.quote(info.cluster_file)}"
    return f"gpurunbook run{target}{file}"


def length(records: Sequence[Record]) -> float:
    """Seconds from the first record to the last."""
    times = [datetime.fromisoformat(r["time"]).timestamp() for r in records]
    return max(times) - min(times) if times else 0.0


def stages_done(told: Sequence[StageStory]) -> str:
    return f"{sum(story.outcome == 'done' for story in told)} of {len(stages.NAMES)} stages"
