"""The order of the walk, by the state of the cluster: what somebody has done by hand counts as well as a notebook.

Only a stage that would change the cluster in vain, and wait half an hour for what cannot come, is refused. What only looks
says itself what it finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurunbook import show, stages
from gpurunbook.errors import RunbookError

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


def refuse(run: Run) -> None:
    """Raises RunbookError when the run's stage was opened before one that it stands on; names it. Changes nothing.

    Where that stage was done, and what it made is broken since, it only says so: the stage's own wait names the cause. A drill
    is to be found out, and not told.
    """
    if run.journal.last("drill") or not (lacks := missing(run)):
        return
    stage, why = lacks
    if run.journal.last("stage", stage=stage, state="done"):
        show.show(show.Box(f"{why}, though {stages.stem(stage)} was done", ("why: gpurunbook gpu",), "warn"))
        return
    here, where = ("", str(run.journal.path)) if stage == "provision" else (" in this cluster", "kubectl describe nodes")
    raise RunbookError(f"too early: {stages.stem(stage)} has not been done{here}: {why}", where=where,
                       next=f"run notebooks/{stages.notebook(stage)} first, or: gpurunbook run --run-id {run.id} --from {stage}; "
                       "nothing was changed")


def missing(run: Run) -> tuple[str, str] | None:
    """(the stage that comes first, why); None where nothing is missing, or nobody tells.

    All but 01, 02 and 09 need a cluster; 05 needs a GPU node that takes pods, 06 besides one with a GPU to give, unless it has
    deployed already. That 07 and 08 need a pod which is ready they say themselves.
    """
    from gpurunbook.runbook import WITHOUT_CLUSTER
    if run.stage not in WITHOUT_CLUSTER and not run.journal.last("stage", stage="provision"):
        return "provision", "this run has no cluster yet"
    if run.stage not in ("gpu_operator", "model"):
        return None
    from kubernetes.config import ConfigException

    from gpurunbook.stages import model, taint
    try:
        run.check_identity()  # what another cluster has, or lacks, says nothing of this run
        found = taint.observe(run)
        if found and len(taint.stuck(found)) == len(found):
            return "taint", f"{found[0].name} still has the taint {taint.UNINITIALIZED}, which repels every pod"
        if run.stage == "model" and found and not any(node.gpus for node in found) and not model.there(
                run, model.manifest(run).name):
            return "gpu_operator", f"no node of {run.cluster.gpu_group.name} has a GPU to give (allocatable nvidia.com/gpu is 0)"
    except (RunbookError, ConfigException):
        return None  # whoever opens the stage asks again, and says what is wrong
    return None
