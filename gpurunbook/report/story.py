"""What each stage of a run did, told from its journal: for the report, and for what compares two runs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gpurunbook import stages
from gpurunbook.journal import Record


@dataclass(frozen=True)
class Trouble:
    """An error of a cell, as a person was told it. `where` and `next` are "" for one that is not ours."""

    what: str
    where: str
    next: str
    time: str


@dataclass(frozen=True)
class Change:
    """What a plan changed in the cluster: rows of (object, before, after); `left_out` is what could not be looked at."""

    rows: tuple[tuple[str, str, str], ...]
    left_out: tuple[str, ...]


@dataclass
class StageStory:
    """What a stage did, from its records: outcome, commands, checks, changes, errors.

    Attributes:
        seconds: the wall time of its last walk: the whole notebook's where papermill ran it.
        since: when `outcome` became so, in seconds since the epoch; 0 when it was not run.
        commands: id, shown, full (what ran, for a POSIX shell), why, changes, code, seconds, error, tail.
        blocker: what its last wait was held up by, "" when nothing holds it up.
        modified: how the notebook's code differed from the shipped one; "" when it did not.
    """

    name: str
    seconds: float = 0.0
    outcome: str = "not run"
    since: float = 0.0
    commands: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    errors: list[Trouble] = field(default_factory=list)
    began: float | None = None
    blocker: str = ""
    modified: str = ""

    @property
    def title(self) -> str:
        return stages.title(self.name)

    @property
    def changing(self) -> list[dict[str, Any]]:
        return [command for command in self.commands if command["changes"]]

    @property
    def reading(self) -> list[dict[str, Any]]:
        return [command for command in self.commands if not command["changes"]]


def stories(records: Iterable[Record]) -> list[StageStory]:
    """The records sorted by stage; a stage that ran more than once keeps all its commands."""
    told = {name: StageStory(name) for name in stages.NAMES}
    by_id: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["kind"] == "result":
            if (command := by_id.get(record["id"])) is not None:
                command |= {key: record.get(key) for key in ("code", "seconds", "error", "tail")}
        elif (story := told.get(record.get("stage", ""))) is not None:
            if record["kind"] == "intent":
                by_id[record["id"]] = command = _intended(record)
                story.commands.append(command)
            else:
                _tell(story, record)
    return list(told.values())


def _intended(record: Record) -> dict[str, Any]:
    command = {key: record[key] for key in ("id", "shown", "argv", "why", "changes")}
    return command | {"full": shlex.join(map(str, record["argv"])), "code": None, "seconds": None,
                      "error": "no result: interrupted", "tail": ""}


def _tell(story: StageStory, record: Record) -> None:
    kind = record["kind"]
    if kind == "stage":
        story.since = moment = datetime.fromisoformat(record["time"]).timestamp()
        if record["state"] == "started":
            story.began, story.outcome, story.blocker = moment, "started", ""
        else:
            story.outcome = record["state"]
            story.seconds = moment - story.began if story.began else story.seconds
    elif kind == "notebook" and record["state"] == "ended":
        story.seconds = record["seconds"]
    elif kind == "notebook":
        story.modified = record.get("modified", "")
    elif kind == "cell":
        story.modified = story.modified or "a cell was run that is not a shipped one"
    elif kind == "checks":
        story.checks = record["checks"]
    elif kind == "wait":
        story.blocker = f"{record['what']}: {record['blocker']}" if record["blocker"] else ""
    elif kind == "changed":
        left_out: dict[str, list[str]] = {}
        for what, why in record.get("left_out", {}).items():
            left_out.setdefault(str(why), []).append(str(what))
        story.changes.append(Change(tuple((str(a), str(b), str(c)) for a, b, c in record["rows"]),
                                    tuple(f"{', '.join(kinds)} ({why})" for why, kinds in left_out.items())))
    elif kind == "error":
        what = record.get("what") or ": ".join(filter(None, (record.get("type"), record["error"])))
        story.errors.append(Trouble(what, record.get("where", ""), record.get("next", ""), record.get("time", "")))
