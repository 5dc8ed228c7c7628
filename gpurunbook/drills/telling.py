"""The reveal: a drill in full, with the names of this run's objects in its commands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook.drills.drill import Drill, Mend

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


@dataclass(frozen=True)
class Told:
    """What a reveal says. `why` comes from gpurunbook.readiness.causes."""

    name: str
    title: str
    rung: str
    why: str
    made: str
    teaches: str
    mends: tuple[Mend, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __repr__(self) -> str:
        lines = [f"{self.name}: {self.title}", "", f"It shows on the rung {self.rung!r}. {self.why}",
                 f"It was made {self.made}.", f"It teaches {self.teaches}."]
        for mend in self.mends:
            lines += ["", f"Mend it: {mend.how}", *(f"  {command}" for command in mend.commands)]
        return "\n".join(lines)


def told(drill: Drill, run: Run) -> Told:
    """The drill, with this run's names. The GPU node's is known from cluster.yaml: its cluster may not answer."""
    from gpurunbook.readiness.causes import CAUSES
    from gpurunbook.readiness.rungs import BY_NAME
    cause = CAUSES[drill.cause]
    return Told(cause.name, cause.title, BY_NAME[cause.rung].title, cause.why, drill.made, drill.teaches,
                tuple(Mend(mend.how, tuple(command.format(**names(run)) for command in mend.commands)) for mend in drill.mends))


def names(run: Run) -> dict[str, str]:
    """What the commands of a drill name."""
    from gpurunbook.targets.rehearsal import nodes
    groups = [group for group in run.cluster.groups for _ in range(group.desired)]
    node = next(name for name, group in zip(nodes.names(run.cluster), groups, strict=False) if group.gpu)
    return {"node": node, "run": run.id, "folder": str(run.folder), "root": str(run.root)}
