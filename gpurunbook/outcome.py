"""A run in one line, and what to type next: for whoever opens its report in the night. Pure, from the journal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gpurunbook import stages
from gpurunbook.journal import Record
from gpurunbook.plan import State
from gpurunbook.runs import RunInfo
from gpurunbook.story import StageStory, Trouble


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
    failed = [story for story in told if story.outcome == "failed"]
    begun = [story for story in told if story.outcome == "started"]
    if failed:
        return _failed(info, failed, records)
    if info.state == "finished":
        return _finished(info, told)
    if info.state == "running":
        here = f"in {begun[-1].title}" if begun else "between two stages"
        return Outcome("warn", f"Under way, {here} when this was written", None, _held(begun), (
            Step(f"gpurunbook status --run-id {info.id}", "says where it is now"),
            Step(f"gpurunbook report --run-id {info.id}", "writes this page again")))
    done = [story for story in told if story.outcome == "done"]
    if info.state == "kept":
        last = f"Walked up to {done[-1].title}" if done else "Begun"
        return Outcome("pass", f"{last}; the cluster was left up", None, (), _go_on(info))
    if begun:
        return Outcome("warn", f"Interrupted in {begun[-1].title}", None,
                       (*_held(begun), *(_in_flight(records) or _last(records))), _go_on(info))
    last = f"after {done[-1].title}" if done else "before its first stage"
    return Outcome("warn", f"Left {last}; nothing failed", None, _in_flight(records), _go_on(info))


def _failed(info: RunInfo, failed: Sequence[StageStory], records: Sequence[Record]) -> Outcome:
    """The last of the walk that failed, since what failed before it was overcome or is named in its own section."""
    story = failed[-1]
    gone = info.state == "finished"
    line = f"Stopped in {story.title}" + ("; torn down since" if gone and story.name != "teardown" else "")
    others = tuple(f"failed too: {other.title}" for other in failed[:-1])
    if gone:
        steps: tuple[Step, ...] = (Step(_new(info), "begins a new run"),)
    elif story.name == "teardown":
        steps = (Step(f"gpurunbook teardown --run-id {info.id}", "goes on with taking away what it made"),)
    else:
        steps = _go_on(info)
    return Outcome("fail", line, story.errors[-1] if story.errors else _unsaid(story),
                   (*_held([story]), *others, *_in_flight(records)), steps)


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
    ran = [story for story in told if story.outcome == "done"]
    whole = len(ran) == len(told)
    line = ("Walked to the end, nothing left behind" if whole else
            f"Torn down, nothing left behind; {len(ran)} of {len(told)} stages were walked")
    return Outcome("pass", line, None, (), () if whole else (Step(_new(info), "begins a new run"),))


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


def span(records: Sequence[Record]) -> float:
    """Seconds from the first record to the last."""
    times = [datetime.fromisoformat(r["time"]).timestamp() for r in records]
    return max(times) - min(times) if times else 0.0


def stages_done(told: Sequence[StageStory]) -> str:
    return f"{sum(story.outcome == 'done' for story in told)} of {len(stages.NAMES)} stages"
