"""The ladder from "a node joined" to "the model's pod answers", as data: rungs, what each node shows on each, findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from gpurunbook.plan import State as Mark

State = Literal["done", "waiting", "trouble", "unknown", "ahead"]
"""done; waiting and still within its time; trouble; unknown (could not be asked); ahead (a lower rung holds it up)."""
MARKS: dict[State, Mark] = {"done": "pass", "waiting": "warn", "trouble": "fail", "unknown": "unknown", "ahead": "unknown"}


@dataclass(frozen=True)
class Rung:
    """One step. `usual` is (from, to) in seconds on AWS, from the end of the rung below; `limit`: beyond it is trouble."""

    name: str
    title: str
    usual: tuple[float, float]
    limit: float


RUNGS = (
    Rung("joined", "node joined", (60, 90), 600),
    Rung("ready", "node Ready", (5, 30), 300),
    Rung("initialized", "cloud controller done", (1, 10), 60),
    Rung("pci-label", "PCI label", (5, 60), 180),
    Rung("release", "operator release deployed", (5, 60), 300),
    Rung("driver", "driver", (60, 240), 900),
    Rung("toolkit", "toolkit and runtime class", (10, 60), 300),
    Rung("device-plugin", "one device plugin", (5, 30), 180),
    Rung("capacity", "GPU in capacity", (1, 15), 90),
    Rung("allocatable", "GPU allocatable", (1, 5), 60),
    Rung("smoke", "CUDA smoke pod", (5, 60), 300),
    Rung("scheduled", "model pod scheduled", (1, 5), 60),
    Rung("pulled", "image pulled", (40, 420), 1200),
    Rung("running", "container running", (1, 10), 120),
    Rung("exec", "exec answers", (0.2, 2), 30),
)
BY_NAME = {rung.name: rung for rung in RUNGS}


@dataclass(frozen=True)
class Step:
    """One rung of one node.

    Attributes:
        since: when it got into this state, None where nothing tells.
        evidence: the condition, event or log line that says so, one line.
        cause: a name in gpurunbook.readiness.causes when state is "trouble", "unknown" for a trouble of no known cause.
        next: the next command, when there is something to do.
    """

    rung: str
    state: State
    since: datetime | None = None
    evidence: str = ""
    cause: str = ""
    next: str = ""


@dataclass(frozen=True)
class Finding:
    """A trouble by name: where (`node` is empty when it is the cluster's), on which rung, and the evidence."""

    cause: str
    rung: str
    node: str
    evidence: str
    next: str


@dataclass(frozen=True)
class NodeLadder:
    """All rungs of one GPU node, bottom up."""

    node: str
    steps: tuple[Step, ...]

    @property
    def holds(self) -> Step | None:
        """The lowest rung that is not done; None when all are."""
        return next((step for step in self.steps if step.state != "done"), None)


@dataclass(frozen=True)
class Ladder:
    """Every GPU node's ladder, and what is wrong, each trouble once."""

    nodes: tuple[NodeLadder, ...]
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Nodes, steps and findings as plain values; times in ISO 8601."""
        whole = asdict(self)
        for node in whole["nodes"]:
            for step in node["steps"]:
                step["since"] = step["since"] and step["since"].isoformat()
        return whole
