"""The order of the walk, by the state of the cluster: what somebody has done by hand counts as well as a notebook.

Only a stage that would change the cluster in vain, and wait half an hour for what cannot come, is refused. What only looks
says itself what it finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurunbook import stages
from gpurunbook.errors import RunbookError

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


TOO_EARLY = "too early: "
"""How the error begins; a stage that was refused was not begun."""


def refuse(run: Run) -> None:
    """Raises RunbookError when the run's stage was opened before one that it stands on; names it. Changes nothing."""
    if lacks := missing(run):
        stage, why = lacks
        name = stages.notebook(stage)
        raise RunbookError(f"{TOO_EARLY}{name.removesuffix('.ipynb')} has not been done in this cluster: {why}",
                           where="kubectl describe nodes", next=f"run notebooks/{name} first, or: gpurunbook run "
                           f"--run-id {run.id} --from {stage}; nothing was changed")


def missing(run: Run) -> tuple[str, str] | None:
    """(the stage that comes first, why); None where nothing is missing, or the nodes may not be listed.

    05 needs a GPU node that takes pods, 06 besides one with a GPU to give. That 07 and 08 need a pod which is ready they say
    themselves.
    """
    if run.stage not in ("gpu_operator", "model"):
        return None
    from kubernetes.client import ApiException

    from gpurunbook.stages import taint
    try:
        found = taint.observe(run)
    except ApiException:
        return None
    if found and len(taint.reason(run, found).removed) == len(found):
        return "taint", f"{found[0].name} still has the taint {taint.UNINITIALIZED}, which repels every pod"
    if run.stage == "model" and found and not any(node.gpus for node in found):
        return "gpu_operator", f"no node of {run.cluster.gpu_group.name} has a GPU to give (allocatable nvidia.com/gpu is 0)"
    return None
