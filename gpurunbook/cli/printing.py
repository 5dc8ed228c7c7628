"""What the command line prints: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from gpurunbook import defects, live, show, stages
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Record
from gpurunbook.masking import hide_json
from gpurunbook.plan import Checks
from gpurunbook.stages.answered import tokens


class _Seen(Console):
    """What is printed is a sign of life."""

    def print(self, *objects: Any, **options: Any) -> None:
        live.signed()
        super().print(*objects, **options)


class _Results(Console):
    """stdout, which may be the terminal on which progress is drawn, by `console`, which knows only of its own lines."""

    def print(self, *objects: Any, **options: Any) -> None:
        with live.lifted():
            super().print(*objects, **options)

    # rich prints JSON with all its characters as they are; some of those are commands to a terminal.
    def print_json(self, json: str | None = None, **options: Any) -> None:
        super().print_json(json and hide_json(json), **{"ensure_ascii": True, **options})


console = _Seen(stderr=True, highlight=False, soft_wrap=True, emoji=False)
out = _Results(highlight=False, soft_wrap=True, markup=False, emoji=False)
COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "unknown": "cyan"}


_verbose = [False]


def show_tracebacks(wanted: bool) -> None:
    """Whether `complain` prints an error's traceback too."""
    _verbose[0] = wanted


def complain(error: RunbookError) -> None:
    """What, where and next on stderr."""
    console.print(f"[bold red]error:[/] {plain(str(error))}")
    if _verbose[0]:
        console.print(plain(defects.text(error)), style="dim")


def complain_of(error: Exception) -> None:
    """The same for an error of nobody's making. Where its traceback cannot be kept in a file it is shown."""
    try:
        told = defects.told(error)
    except OSError:
        complain(defects.explained(error))
        console.print(plain(defects.text(error)), style="dim")
    else:
        complain(told)


def plain(text: str) -> str:
    """Text without control characters, in which rich finds no markup."""
    return escape("\n".join(show.clean(line) for line in text.splitlines()))


def tell(record: Record) -> None:
    """One journal record as a line of progress."""
    kind = record["kind"]
    if kind == "notebook" and record["state"] == "started":
        console.print(f"[bold]{stages.stem(record['stage'])}[/]")
    elif kind == "notebook":
        console.print(f"   {record['seconds']:.1f} s", style="dim")
    elif kind == "intent":
        sign, style = ("$", "") if record["changes"] else ("?", "dim")
        console.print(f"   {sign} {_one(_cut(record['shown']))}", style=style)
    elif kind == "wait" and record["blocker"]:
        console.print(f"   … {plain(record['what'])}: {_one(_cut(record['blocker']))}", style="dim")
    elif kind == "event":
        console.print(f"   · {_one(_cut(record['line']))}",
                      style="red" if "FAILED" in record["status"] else "yellow" if record["status"] == "BLOCKED" else "dim")
    elif kind == "checks":
        for check in record["checks"]:
            if check["state"] != "pass":
                console.print(f"   {show.MARKS[check['state']]} {_one(check['name'])}: {_one(check['evidence'])}",
                              style="red" if check["state"] == "fail" else "yellow")


def _one(text: str) -> str:
    """`plain` text on one line: no text from the cluster makes a line of its own."""
    return plain(show.line(text))


def _cut(text: str) -> str:
    """At most 150 characters of a line of progress; the notebook and the report have the whole."""
    return text if len(text) <= 150 else f"{text[:149]}…"


def outcome(folder: Path, page: Path, names: Sequence[str], as_json: bool) -> None:
    found = (tokens(folder) if "next_token" in names else None) or {}
    if as_json:
        out.print_json(json.dumps({"run": folder.name, "folder": str(folder), "report": str(page),
                                   "prompt": found.get("prompt"), "top": found.get("top")}))
        return
    if found:
        out.print(f"\n{show.clean(found['prompt'])!r}, the ten most likely next tokens ("
                  f"{show.line(found['arms'][0]['precision'])}, {show.line(found['model'])}):")
        for rank, token in enumerate(found["top"], 1):
            out.print(f"  {rank:2} {token['p']:7.2%}  {show.clean(token['text'])!r}")
    out.print(f"\nreport     {page}")
    for name, path in (("chart", folder / "artifacts" / "top10.png"), ("notebooks", folder / "notebooks")):
        if path.exists():
            out.print(f"{name:10} {path}")
    if "teardown" not in names:
        out.print(f"the cluster stays up; go on: gpurunbook run --run-id {folder.name}; "
                  f"end it: gpurunbook teardown --run-id {folder.name}")


def checks(found: Checks) -> None:
    """Checks on stdout, each on a line, with what finding out later costs and what mends it below those that need it."""
    width = max((len(check.name) for check in found), default=0)
    for check in found:
        style = COLOURS[check.state] if check.state != "pass" else ""
        out.print(f"{show.MARKS[check.state]} {show.line(check.name):{width}}  {show.line(check.evidence)}", style=style)
        if check.state != "pass":
            for word, text in (("later", check.later), ("mend", check.fix)):
                if text:
                    out.print(f"  {'':{width}}  {word + ':':6} {show.line(text)}", style="dim")
    counts = [f"{sum(c.state == state for c in found)} {state}" for state in COLOURS if any(c.state == state for c in found)]
    out.print(f"\n{', '.join(counts)}")


def table(rows: show.Table) -> None:
    """A table on stdout: coloured marks on a terminal, plain text when piped."""
    # A row is a line where a program reads it; a person's terminal is only so wide.
    lines = rows.lines(out.width if out.is_terminal else None)
    head = 2 if rows.caption else 1
    out.print("\n".join(one for part in lines[:head] for one in part))
    for part, state in zip(lines[head:], rows.states or [""] * len(rows.rows), strict=True):
        out.print("\n".join(part), style=COLOURS.get(state, ""))
