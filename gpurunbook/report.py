"""The report of a run: one HTML file without scripts, from the journal and the artifacts."""

from __future__ import annotations

import base64
import json
import platform
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpurunbook import files, runs, show, stages, targets
from gpurunbook.errors import RunbookError
from gpurunbook.gantt import gantt
from gpurunbook.journal import Journal, Record
from gpurunbook.stages import answer

LADDER = "Time that each rung of the ladder took, from the node to the GPU."
PACKAGES = ("gpurunbook", "papermill", "jupyterlab", "kubernetes", "matplotlib")


@dataclass
class StageStory:
    """What a stage did, from its records: outcome, commands, checks, waits, errors.

    `seconds` is the wall time of its last walk: the whole notebook's where papermill ran it. `modified` says how the
    notebook's code differed from the shipped one; "" when it did not.
    """

    name: str
    seconds: float = 0.0
    outcome: str = "not run"
    commands: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    waits: list[Record] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    began: float | None = None
    modified: str = ""

    @property
    def title(self) -> str:
        return stages.notebook(self.name).removesuffix(".ipynb").replace("_", " ", 1)


def write(folder: Path) -> Path:
    """Write runs/ID/report.html from what is in the run folder. Returns its path.

    Raises:
        RunbookError: the folder is no run, or cannot be written.
    """
    info = runs.read(folder)
    if info is None:
        raise RunbookError(f"{folder} is no run: its journal is missing or empty", where=str(folder),
                           next="gpurunbook status")
    records = list(Journal(folder).records())
    told = stories(records)
    # Whatever text gets onto the page, no control character passes; markup is escaped after that.
    environment = Environment(loader=PackageLoader("gpurunbook", "templates"), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined,
                              finalize=lambda value: show.clean(value) if isinstance(value, str) else value)
    path = folder / "report.html"
    page = environment.get_template("report.html").render(
        run=info, stories=told, total=sum(s.seconds for s in told), marks=show.MARKS,
        cannot_show=targets.get(info.target).cannot_show, failed=[s for s in told if s.outcome == "failed"],
        programs=_programs(records),
        versions={name: version(name) for name in PACKAGES} | {"Python": platform.python_version()},
        spent=targets.get(info.target).spent(folder), tokens=tokens(folder), latency=_latency(folder),
        pictures={name: _picture(folder / "artifacts" / f"{name}.png") for name in ("top10", "latency", "rungs")},
        gantt=gantt(records), ladder_alt=LADDER)
    files.write(path, page)
    return path


def tokens(folder: Path) -> dict[str, Any] | None:
    """What next_tokens.json holds, None when the stage has not ended well since it last began."""
    info = runs.read(folder)
    done = info is not None and info.stages.get("next_token") == "done"
    return _answer(folder / "artifacts" / "next_tokens.json") if done else None


def stories(records: list[Record]) -> list[StageStory]:
    """The records sorted by stage; a stage that ran more than once keeps all its commands."""
    told = {name: StageStory(name) for name in stages.NAMES}
    by_id: dict[str, dict[str, Any]] = {}
    for record in records:
        story = told.get(record.get("stage", ""))
        kind = record["kind"]
        if kind == "result":
            if (command := by_id.get(record["id"])) is not None:
                command |= {key: record.get(key) for key in ("code", "seconds", "error", "tail")}
        elif story is None:
            continue
        elif kind == "stage":
            moment = datetime.fromisoformat(record["time"]).timestamp()
            if record["state"] == "started":
                story.began, story.outcome = moment, "started"
            else:
                story.outcome = record["state"]
                story.seconds = moment - story.began if story.began else story.seconds
        elif kind == "notebook" and record["state"] == "ended":
            story.seconds = record["seconds"]
        elif kind == "notebook":
            story.modified = record.get("modified", "")
        elif kind == "cell":
            story.modified = story.modified or "a cell was run that is not a shipped one"
        elif kind == "intent":
            command = {key: record[key] for key in ("shown", "argv", "why", "changes")}
            command |= {"code": None, "seconds": None, "error": "no result: interrupted", "tail": ""}
            by_id[record["id"]] = command
            story.commands.append(command)
        elif kind == "checks":
            story.checks = record["checks"]
        elif kind == "wait":
            story.waits.append(record)
        elif kind == "error":
            story.errors.append(record["error"])
    return list(told.values())


def _programs(records: list[Record]) -> dict[str, Record]:
    return {r["name"]: r for r in records if r["kind"] == "program"}


def _json(path: Path) -> dict[str, Any] | None:
    """An artifact; None when it is absent, or torn by a kill while it was written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _answer(path: Path) -> dict[str, Any] | None:
    """What main.py said, as next_token.save wrote it; None also when somebody has changed it into what it cannot be."""
    found = _json(path) or {}
    try:
        answer.check({key: value for key, value in found.items() if key not in ("top", "run", "target")})
    except ValueError:
        return None
    return {**found, "top": found["arms"][0]["top"]}


def _latency(folder: Path) -> list[dict[str, Any]]:
    found = _answer(folder / "artifacts" / "latency.json")
    if not found:
        return []
    from gpurunbook.stages.latency import summary
    return [{"precision": arm["precision"], **summary(arm["samples_ms"])} for arm in found["arms"] if arm["samples_ms"]]


def _picture(path: Path) -> str | None:
    return base64.b64encode(path.read_bytes()).decode() if path.exists() else None
