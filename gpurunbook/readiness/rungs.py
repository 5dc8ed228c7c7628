"""The ladder from "a node joined" to "the model's pod answers", as data: rungs, what each node shows on each, findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from gpurunbook import show
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


# The release's limit: a helm that waits may take 900 s. The driver's: the startup probe
# of the operator's driver container (v26.7.0) gives it 60 + 120 x 10 = 1260 s.
RUNGS = (
    Rung("joined", "node joined", (60, 90), 600),
    Rung("ready", "node Ready", (5, 30), 300),
    Rung("initialized", "cloud controller done", (1, 10), 60),
    Rung("pci-label", "PCI label", (5, 60), 180),
    Rung("release", "operator release deployed", (5, 60), 960),
    Rung("driver", "driver", (60, 240), 1300),
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
FEW = 5
"""Nodes up to which each rung of each is shown."""
BY_NAME = {rung.name: rung for rung in RUNGS}


@dataclass(frozen=True)
class Step:
    """One rung of one node.

    Attributes:
        since: when it got into this state, None where nothing tells.
        evidence: the condition, event or log line that says so, one line.
        cause: a name in gpurunbook.readiness.causes when state is "trouble", "unknown" for a trouble of no known cause.
        next: the next command, or several joined by "; ", when there is something to do.
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

    def held(self, until: str = RUNGS[-1].name) -> Step | None:
        """What holds the node up on its way to a rung; None when nothing does.

        A trouble counts before a wait, a wait before what cannot be told; that does not count once the rung is reached.
        """
        names = [step.rung for step in self.steps]
        steps = self.steps[:names.index(until) + 1]
        waits = next((s for s in steps if s.state == "trouble"), None) or next(
            (s for s in steps if s.state in ("waiting", "ahead")), None)
        return waits or (next((s for s in steps if s.state == "unknown"), None) if steps[-1].state != "done" else None)

    @property
    def holds(self) -> Step | None:
        """What holds it up on its way to the last rung."""
        return self.held()


@dataclass(frozen=True, repr=False)
class Ladder:
    """Every GPU node's ladder, and what is wrong, each trouble once.

    `commands`: (rung, when the command began that it waits for), where a person gave one and somebody looked.
    """

    nodes: tuple[NodeLadder, ...]
    findings: tuple[Finding, ...] = ()
    commands: tuple[tuple[str, datetime], ...] = ()

    @property
    def table(self) -> show.Table:
        """Rung by rung for a few nodes; for many, how many nodes are held up where."""
        if len(self.nodes) > FEW:
            return self._groups()
        rows: list[tuple[str, ...]] = []
        states: list[str] = []
        for node in self.nodes:
            for step in node.steps:
                usual = "{:g} to {:g} s".format(*BY_NAME[step.rung].usual)
                which = (node.node,) if len(self.nodes) > 1 else ()
                rows.append((*which, BY_NAME[step.rung].title, step.state, clock(step.since), usual, step.evidence))
                states.append(MARKS[step.state])
        head = ("rung", "state", "since (UTC)", "usually", "evidence")
        caption = self.nodes[0].node if len(self.nodes) == 1 else ""
        return show.Table(("node", *head) if len(self.nodes) > 1 else head, rows, caption, states)

    def _groups(self) -> show.Table:
        """Nodes that are held up on the same rung in the same way are one row."""
        groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        for node in self.nodes:
            step = node.holds
            key = (step.rung, step.state, step.cause) if step else ("", "done", "")
            groups.setdefault(key, []).append((node.node, step.evidence if step else "all rungs are done"))
        names = [rung.name for rung in RUNGS]
        ordered = sorted(groups.items(), key=lambda pair: names.index(pair[0][0]) if pair[0][0] else len(names))
        rows = [(BY_NAME[rung].title if rung else "all", state, len(found), found[0][0], found[0][1])
                for (rung, state, _), found in ordered]
        return show.Table(("held up at", "state", "nodes", "such as", "evidence there"), rows, f"{len(self.nodes)} GPU nodes",
                          [MARKS[state] for (_, state, _), _ in ordered])  # type: ignore[index]

    @property
    def boxes(self) -> tuple[show.Box, ...]:
        """Each finding: what it is, where, why, and what next."""
        from gpurunbook.readiness.causes import CAUSES
        made = []
        for finding in self.findings:
            cause = CAUSES[finding.cause]
            where = BY_NAME[finding.rung].title + (f" of {finding.node}" if finding.node else "")
            made.append(show.Box(f"{finding.cause}: {cause.title} ({where})",
                                 tuple(filter(None, (finding.evidence, cause.why, cause.advice, f"next: {finding.next}"))),
                                 "fail"))
        return tuple(made)

    def __repr__(self) -> str:
        return "\n".join([repr(self.table), *map(repr, self.boxes)])

    def _repr_html_(self) -> str:
        return self.table._repr_html_() + "".join(box._repr_html_() for box in self.boxes)

    def to_json(self) -> dict[str, Any]:
        """Nodes, steps and findings as plain values, with what is usual on AWS; times in ISO 8601, durations in seconds."""
        from gpurunbook.readiness.causes import CAUSES
        whole = asdict(self) | {"commands": {rung: began.isoformat() for rung, began in self.commands}}
        for node in whole["nodes"]:
            for step in node["steps"]:
                rung = BY_NAME[step["rung"]]
                step |= {"since": step["since"] and step["since"].isoformat(), "title": rung.title, "usual": rung.usual,
                         "limit": rung.limit}
        for finding in whole["findings"]:
            cause = CAUSES[finding["cause"]]
            finding |= {"title": cause.title, "why": cause.why, "advice": cause.advice}
        return whole


def clock(time: datetime | None) -> str:
    """A time of day in UTC, with the day when that is not today."""
    if time is None:
        return "-"
    time = time.astimezone(UTC)
    return time.strftime("%H:%M:%S" if time.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")
