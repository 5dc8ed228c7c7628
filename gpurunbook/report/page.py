"""The report of a run: one HTML file without scripts, from the journal and the artifacts."""

from __future__ import annotations

import json
import platform
import shlex
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpurunbook import files, runs, show, targets, times
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal, Record
from gpurunbook.report import rung_times
from gpurunbook.report.gantt import gantt
from gpurunbook.report.outcome import length, outcome, stages_done
from gpurunbook.report.pictures import ROOM, pictures
from gpurunbook.report.story import stories
from gpurunbook.stages.answered import advice, latencies, tokens

PACKAGES = ("gpurunbook", "papermill", "jupyterlab", "kubernetes", "matplotlib")
MARKS = {"done": "pass", "failed": "fail", "started": "warn", "not run": "unknown"}
"""How a stage's outcome is marked."""
LARGEST = 3_000_000
"""Bytes of a page: text goes before pictures."""
TAILS = 20
"""Failed commands whose output is on the page: the last ones. The others' is in logs/."""


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
    environment = Environment(loader=PackageLoader("gpurunbook", "templates"), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined, finalize=_cleaned)
    environment.filters |= {"took": times.took, "tick": times.tick, "usually": times.usually, "quoted": quoted}
    target = targets.get(info.target)
    path, by_name = folder / "report.html", {story.name: story for story in told}
    later = by_name["model"].outcome == "done" and by_name["model"].since > by_name["gpu_operator"].since
    page = partial(
        environment.get_template("report.html").render,
        run=info, stories=told, outcome=outcome(info, told, records), stages_done=stages_done(told), length=length(records),
        ended=records[-1]["time"], marks=show.MARKS, stage_marks=MARKS, cannot_show=target.cannot_show,
        programs={r["name"]: r for r in records if r["kind"] == "program"}, header=_header(folder, records),
        versions={name: version(name) for name in PACKAGES} | {"Python": platform.python_version()},
        ours=target.ours, spent=target.spent(folder), tokens=tokens(folder), latency=latencies(folder), gantt=gantt(records),
        advice=advice(folder), tails=_tails(records), ladder=rung_times.read(folder, later=later), later=later)
    text = len(page(pictures=pictures(folder, told, 0)).encode())
    files.write(path, page(pictures=pictures(folder, told, min(ROOM, (LARGEST - text) * 3 // 4))))
    return path


def _tails(records: list[Record]) -> set[str]:
    """Ids of the commands whose output is shown: the last that failed."""
    changing = {r["id"] for r in records if r["kind"] == "intent" and r["changes"]}
    failed = [r["id"] for r in records if r["kind"] == "result" and r["id"] in changing and r.get("tail") and r.get("code") != 0]
    return set(failed[-TAILS:])


def _cleaned(value: Any) -> Any:
    """Whatever text gets onto the page, no control character passes; markup is escaped after that. A macro's is both already."""
    return show.clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def quoted(text: str) -> str:
    """Between quotes, with what is no letter escaped; letters of every writing stay."""
    return show.clean(json.dumps(text, ensure_ascii=False))


def _header(folder: Path, records: list[Record]) -> str:
    """The line under which the short commands can be pasted, as far as the journal tells."""
    path = next((str(Path(r["path"]).parent) for r in records if r["kind"] == "program" and r["name"] == "kubectl"), "")
    return f"export KUBECONFIG={shlex.quote(str(folder / 'kubeconfig'))}" + (f" PATH={shlex.quote(path)}:$PATH" if path else "")
