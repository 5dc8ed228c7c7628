"""The readiness ladder that notebook 05 left in artifacts/ladder.json: how far each GPU node came, and what each rung took."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gpurunbook.plan import State as Mark
from gpurunbook.readiness.durations import durations
from gpurunbook.readiness.rungs import BY_NAME, MARKS
from gpurunbook.readiness.waiting import FILE

NODES = 5
"""Nodes that a page shows; those that are held up come first."""


@dataclass(frozen=True)
class Row:
    """A rung of a node. `took`: see readiness.durations; None where nothing tells."""

    title: str
    state: str
    mark: Mark
    since: str
    took: float | None
    usual: tuple[float, float]
    evidence: str
    next: str


@dataclass(frozen=True)
class Node:
    name: str
    rows: tuple[Row, ...]

    @property
    def held(self) -> Row | None:
        return next((row for row in self.rows if row.state != "done"), None)


@dataclass(frozen=True)
class Rungs:
    """The nodes that are shown, how many there are, and what was found wrong: (title, evidence, next)."""

    nodes: tuple[Node, ...]
    count: int
    findings: tuple[tuple[str, str, str], ...]


MODEL = ("scheduled", "pulled", "running", "exec")
"""Rungs of 06's pod, which 05 sees only where 06 ran before it."""


def read(folder: Path, *, later: bool = False) -> Rungs | None:
    """None when the run has no ladder, or one that is torn.

    Args:
        later: 06 is done since: its rungs that were still ahead are left out.
    """
    try:
        found = json.loads((folder / "artifacts" / FILE).read_text(encoding="utf-8"))
        commands = {str(rung): datetime.fromisoformat(began) for rung, began in found.get("commands", {}).items()}
        nodes = sorted((_node(node, commands, later=later) for node in found["nodes"]), key=lambda node: node.held is None)
        findings = tuple((str(f["title"]), str(f["evidence"]), str(f["next"])) for f in found["findings"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return Rungs(tuple(nodes[:NODES]), len(nodes), findings)


def _node(node: dict[str, Any], commands: dict[str, datetime], *, later: bool) -> Node:
    steps = [step for step in node["steps"] if step["rung"] in BY_NAME and step["state"] in MARKS
             and not (later and step["rung"] in MODEL and step["state"] != "done")]
    done = [(str(s["rung"]), datetime.fromisoformat(s["since"])) for s in steps if s["state"] == "done" and s["since"]]
    took = {one.rung: one.seconds for one in durations(done, commands)}
    return Node(str(node["node"]), tuple(
        Row(BY_NAME[s["rung"]].title, s["state"], MARKS[s["state"]], str(s["since"] or "")[11:19], took.get(s["rung"]),
            BY_NAME[s["rung"]].usual, str(s["evidence"]), str(s["next"])) for s in steps))
