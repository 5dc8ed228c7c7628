"""Names of the journal's boundaries. A boundary is the append of one record; a point is just before it, within it, or after it.

An act has three records (intent, pid, result), so its points are: not intended yet, intended, started but not known by pid,
started, done but not said, said.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEFORE, TORN, AFTER = "before", "torn", "after"
TORN_SHARE = 4
"""One in so many points before a record leaves half of its line behind."""
ELDER = "of an earlier life"


class Namer:
    """Names the records of one life of a runner, in order; the same step has the same name in every life."""

    def __init__(self) -> None:
        self.stage, self._intents, self._seen = "walk", dict[str, str](), Counter[str]()

    def name(self, record: Mapping[str, Any]) -> str:
        """Such as `model: intent kubectl, deploy the model's image`; a second one of that name in this life ends in ` (2)`."""
        kind = record["kind"]
        if kind in ("notebook", "stage"):
            self.stage = record["stage"]
        if kind == "intent":
            self._intents[record["id"]] = f"{Path(record['argv'][0]).name}, {record['why']}"
        what = (self._intents.get(record["id"], ELDER) if "id" in record and kind in ("intent", "pid", "result") else
                f"{record['what']}{', blocked' if record['blocker'] else ''}" if kind == "wait" else
                record.get("state") or record.get("name") or "")
        name = f"{self.stage}: {kind} {what}".rstrip()
        if kind == "notebook" and record["state"] == "ended":
            self.stage = "walk"
        if kind == "wait":  # it may look any number of times
            return name
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name} ({self._seen[name]})"


def points(name: str, seed: int) -> tuple[str, str]:
    """Where to kill at a boundary: before its record or, for some, within it; and after it."""
    torn = int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest(), 16) % TORN_SHARE == 0
    return f"{TORN if torn else BEFORE} {name}", f"{AFTER} {name}"


def spread(names: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` points of these boundaries, evenly spread over the walk; the seed says where it begins."""
    every = [point for name in names for point in points(name, seed)]
    step, first = len(every) / count, random.Random(seed).random()
    return [every[min(int((i + first) * step), len(every) - 1)] for i in range(min(count, len(every)))]
