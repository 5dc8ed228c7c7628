"""Mended, or what still shows: decided from the ladder alone, as everything else is."""

from __future__ import annotations

from dataclasses import dataclass

from gpurunbook.readiness.rungs import RUNGS, Finding, Ladder, Step


@dataclass(frozen=True)
class Verdict:
    """`still`: findings that are there. `waits`: (node, step) below or on the drill's rung that is not done."""

    still: tuple[Finding, ...]
    waits: tuple[tuple[str, Step], ...]
    nodes: int

    @property
    def mended(self) -> bool:
        """No finding at all, the drill's or a new one, and every GPU node is past the rung."""
        return not self.still and not self.waits and self.nodes > 0


def judge(ladder: Ladder, rung: str) -> Verdict:
    """Hold a ladder against the rung on which the fault showed."""
    names = [one.name for one in RUNGS]
    reach = names[:names.index(rung) + 1]
    waits = tuple((node.node, step) for node in ladder.nodes for step in node.steps
                  if step.rung in reach and step.state not in ("done", "ahead"))
    return Verdict(tuple(ladder.findings), waits, len(ladder.nodes))
