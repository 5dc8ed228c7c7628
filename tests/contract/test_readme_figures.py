"""Every figure of the README's tables of seconds and milliseconds comes from a file in benchmarks/results/, cell by cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "README.md").read_text().splitlines()
Found = dict[str, Any]
Cells = dict[int, str]
"""Column, from 1 -> all that its cell says."""


def hostile(name: str) -> Callable[[Found], Cells]:
    return lambda r: {3: str(r[name]["tried"]), 4: str(r[name]["violations"]), 5: str(r[name]["seconds"])}


def arm(name: str) -> Callable[[Found], Cells]:
    """p50 of both; the ratios to the tutorial's arm where both answers are the same; the largest change of a log p where not."""
    def cells(r: Found) -> Cells:
        rows = [r["arms"][name][what] for what in ("forward", "step")]
        same = not any(row["fails"] for row in rows)
        ratios = " and ".join(f"{row['ratio'][0]:.2f}" for row in rows) if same or name == r["base"] else ""
        off = max(row["quality"]["delta"] for row in rows)
        answer = "it is the measure" if name == r["reference"] else "yes" if same else f"no: log p off by up to {off:.2f}"
        return {2: f"{rows[0]['p50']:.1f}", 3: f"{rows[1]['p50']:.1f}", 4: ratios, 5: answer}
    return cells


FIGURES: list[tuple[str, str, Callable[[Found], Cells]]] = [
    ("rehearsal", "| `make demo`, first time", lambda r: {2: f"{r['cold_make_demo']['seconds']}"}),
    ("rehearsal", "| `make demo` from then on", lambda r: {2: f"{r['demo']['total_s']:.0f}"}),
    ("rehearsal", "| of it: the cluster", lambda r: {
        1: f"of it: the cluster from nothing to all nodes Ready (plain `kwokctl create cluster --wait`: "
           f"{r['control_plane']['kwokctl_s']:.1f})", 2: f"{r['control_plane']['ours_s']:.1f}"}),
    ("rehearsal", "| of it: ten tokens", lambda r: {2: f"{r['demo']['stages']['next_token']:.0f}"}),
    ("rehearsal", "| of it: 100 timed", lambda r: {2: f"{r['demo']['stages']['latency']:.0f}"}),
    ("rehearsal", "| `make test`", lambda r: {2: f"{r['make_test']['seconds']}"}),
    ("chaos", "| `make chaos LONG=1`", lambda r: {
        3: f"{r['points_killed']} and {r['pairs']} kills", 4: str(r["violations"]), 5: str(r["seconds"])}),
    ("hostile", "| `make chaos`, in", hostile("chaos")),
    ("hostile", "| `make abuse`", hostile("abuse")),
    ("hostile", "| in `make test` |", hostile("adversary")),
    ("inference", "| LLM.int8, as in the tutorial", arm("LLM.int8")),
    ("inference", "| fp32", arm("fp32")),
    ("inference", "| bf16", arm("bf16")),
    ("inference", "| llama.cpp", arm("llama.cpp Q4_1")),
    ("inference", "| int4 in torch alone", arm("arms int4")),
    ("inference", "| the same, compiled", arm("arms int4 compiled")),
]


@pytest.mark.parametrize(("file", "start", "cells"), FIGURES, ids=[start for _, start, _ in FIGURES])
def test_a_row_says_what_was_measured(file: str, start: str, cells: Callable[[Found], Cells]) -> None:
    (line,) = [line for line in LINES if line.startswith(start)]
    there = dict(enumerate(cell.strip() for cell in line.split("|")))
    wanted = cells(json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text()))
    assert {column: there[column] for column in wanted} == wanted
