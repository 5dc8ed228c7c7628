"""The report of a run: one HTML file without scripts, from the journal and the artifacts."""

from __future__ import annotations

import json
import platform
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpurunbook import files, rung_times, runs, show, targets
from gpurunbook.errors import RunbookError
from gpurunbook.gantt import gantt
from gpurunbook.journal import Journal, Record
from gpurunbook.outcome import outcome, span, stages_done
from gpurunbook.pictures import pictures
from gpurunbook.stages import answer
from gpurunbook.story import StageStory, stories

__all__ = ["StageStory", "latencies", "stories", "tokens", "write"]

PACKAGES = ("gpurunbook", "papermill", "jupyterlab", "kubernetes", "matplotlib")
MARKS = {"done": "pass", "failed": "fail", "started": "warn", "not run": "unknown"}
"""How a stage's outcome is marked."""


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
    environment.filters |= {"took": took, "tick": tick, "usually": usually}
    target = targets.get(info.target)
    path = folder / "report.html"
    page = environment.get_template("report.html").render(
        run=info, stories=told, outcome=outcome(info, told, records), stages_done=stages_done(told), span=span(records),
        ended=records[-1]["time"], marks=show.MARKS, stage_marks=MARKS, cannot_show=target.cannot_show,
        programs={r["name"]: r for r in records if r["kind"] == "program"}, header=_header(folder, records),
        versions={name: version(name) for name in PACKAGES} | {"Python": platform.python_version()},
        ours=target.ours, spent=target.spent(folder), tokens=tokens(folder), latency=latencies(folder), gantt=gantt(records),
        pictures=pictures(folder, told), ladder=rung_times.read(folder))
    files.write(path, page)
    return path


def tokens(folder: Path) -> dict[str, Any] | None:
    """What next_tokens.json holds, None when the stage has not ended well since it last began."""
    info = runs.read(folder)
    done = info is not None and info.stages.get("next_token") == "done"
    return _answer(folder / "artifacts" / "next_tokens.json") if done else None


def latencies(folder: Path) -> list[dict[str, Any]]:
    """Of each precision that was timed: its name, percentiles and samples, in ms; [] where none was."""
    found = _answer(folder / "artifacts" / "latency.json")
    if not found:
        return []
    from gpurunbook.stages.latency import summary
    return [{"precision": arm["precision"], "samples": arm["samples_ms"], **summary(arm["samples_ms"])}
            for arm in found["arms"] if arm["samples_ms"]]


def _cleaned(value: Any) -> Any:
    """Whatever text gets onto the page, no control character passes; markup is escaped after that. A macro's is both already."""
    return show.clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def took(seconds: float) -> str:
    """`0.4 s`, `12 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds < 119.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def tick(seconds: float) -> str:
    """Of an axis: `0 s`, `80 s`, `2:39`, `3:12 h`."""
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:.1f} s" if 0 < seconds < 9.95 else f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d}" if whole < 7200 else f"{whole // 3600}:{whole // 60 % 60:02d} h"


def usually(pair: tuple[float, float]) -> str:
    """`5 to 30 s`, `12 to 21 min`."""
    low, high = pair
    return f"{low:.2g} to {high:.3g} s" if high < 600 else f"{low / 60:.0f} to {high / 60:.0f} min"


def _header(folder: Path, records: list[Record]) -> str:
    """The line under which the short commands can be pasted, as far as the journal tells."""
    path = next((str(Path(r["path"]).parent) for r in records if r["kind"] == "program" and r["name"] == "kubectl"), "")
    return f"export KUBECONFIG={shlex.quote(str(folder / 'kubeconfig'))}" + (f" PATH={shlex.quote(path)}:$PATH" if path else "")


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
