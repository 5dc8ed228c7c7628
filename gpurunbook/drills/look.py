"""The ladder of a drill's run, read once by the same code that `gpurunbook gpu` uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpurunbook.readiness.rungs import Ladder
    from gpurunbook.runbook import Run


def ladder(run: Run) -> Ladder:
    """Read the cluster once. A cluster that does not answer, or is another one, is a finding and no error."""
    from gpurunbook.readiness.look import once
    return once(run).ladder
