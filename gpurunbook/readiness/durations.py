"""What each rung took: the one place from which the chart, the report's table and `gpurunbook diff` have it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from gpurunbook.journal import Record
from gpurunbook.readiness.rungs import RUNGS

ORDER = [rung.name for rung in RUNGS]
WHOLE = timedelta(seconds=1)
"""The API tells most times in whole seconds, rounded down: what is done may seem to be so before its command."""


class Duration(NamedTuple):
    """`start` and `seconds` of a rung; `start` counts the seconds of the rungs before it, and nothing between."""

    rung: str
    start: float
    seconds: float


def durations(done: Iterable[tuple[str, datetime]], commands: Mapping[str, datetime]) -> list[Duration]:
    """Each from the end of the one done before it, or from its own command where that came later.

    The first begins the clock and is not told. Of rungs done in the same second the lower comes first.

    Args:
        done: (rung, when it was done), in any order.
        commands: rung -> when the command began that it waits for; one that came after the rung was done is not its.
    """
    ordered = sorted(done, key=lambda pair: (pair[1], ORDER.index(pair[0])))
    made: list[Duration] = []
    clock = 0.0
    for (_, before), (name, at) in pairwise(ordered):
        began = commands.get(name, before)
        start = max(before, began) if began < at + WHOLE else before
        seconds = max(0.0, (at - start).total_seconds())
        made.append(Duration(name, clock, seconds))
        clock += seconds
    return made


def commands(records: Iterable[Record]) -> dict[str, datetime]:
    """rung -> when a person's newest command for it began: helm for the release, kubectl apply for a pod."""
    found: dict[str, datetime] = {}
    for record in records:
        if record["kind"] == "intent" and (rung := _for(record)):
            found[rung] = datetime.fromisoformat(record["time"])
    return found


def _for(record: Record) -> str:
    argv = [str(word) for word in record["argv"]]
    if record["stage"] == "gpu_operator" and "--install" in argv:
        return "release"
    if "apply" not in argv:
        return ""
    files = {PurePath(word).name for word in argv}
    applied = {("gpu_operator", "smoke.yaml"): "smoke", ("model", "deployment.yaml"): "scheduled"}
    return next((rung for (stage, file), rung in applied.items() if record["stage"] == stage and file in files), "")
