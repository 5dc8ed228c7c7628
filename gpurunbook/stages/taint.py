"""04: the taint that a cloud controller should have removed, and why nothing schedules while it is there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpurunbook.plan import Check, Plan
from gpurunbook.stages import nodes
from gpurunbook.stages.nodes import Node

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
YOUNG_SECONDS = 60
"""How long a cloud controller may take: normally it is done within seconds."""


def observe(run: Run) -> list[Node]:
    """The nodes of the GPU group."""
    return [n for n in nodes.observe(run) if n.group == run.cluster.gpu_group.name]


def stuck(found: list[Node]) -> list[Node]:
    """Those that carry the taint."""
    return [n for n in found if any(t.startswith(f"{UNINITIALIZED}:") for t in n.taints)]


def young(run: Run, held: list[Node]) -> list[Node]:
    """Those of the stuck nodes that are not stuck yet: on a cluster with a cloud controller of somebody's, it may still come."""
    if run.target.ours or not any(_unplaced(n) for n in held):
        return []
    now, items = datetime.now(UTC), run.core.list_node(_request_timeout=30).items
    new = {i.metadata.name for i in items if (now - i.metadata.creation_timestamp).total_seconds() < YOUNG_SECONDS}
    return [n for n in held if _unplaced(n) and n.name in new]


def _unplaced(node: Node) -> bool:
    return not (node.provider_id and node.zone)


def plan(run: Run, found: list[Node]) -> Plan:
    """Remove the taint from those that carry it: by the group's selector where that is all of them, else by name."""
    held, group = stuck(found), run.cluster.gpu_group
    left = young(run, held)
    said = f"left to the cloud controller, since younger than {YOUNG_SECONDS} s: {', '.join(n.name for n in left)}"
    if held == left:
        return run.plan((), said if left else "no GPU node carries the taint: nothing to remove")
    removed = [n for n in held if n not in left]
    whole = removed == found and all(group.picks.items() <= n.labels.items() for n in found)
    command = (run.kubectl.untaint_nodes(UNINITIALIZED, selector=group.selector) if whole else
               run.kubectl.untaint_nodes(UNINITIALIZED, names=[n.name for n in removed]))
    return run.plan([command], f"{len(removed)} GPU node(s) still carry {UNINITIALIZED}: the scheduler puts nothing there, "
                               f"neither the operator's pods nor the model's" + (f"; {said}" if left else ""))


def verify(run: Run) -> list[Check]:
    found = observe(run)
    held = stuck(found)
    left = young(run, held)
    other = sorted({t for n in found for t in n.taints} - {f"{UNINITIALIZED}:NoSchedule"})
    names = " ".join(n.name for n in held)
    return [Check("no GPU node is uninitialized", "pass" if not held else "warn" if held == left else "fail",
                  (f"{names} (new: left to the cloud controller)" if held == left else names) if held else
                  f"{len(found)} GPU node(s) free of it",
                  "in a minute, run this stage again" if held == left else f"kubectl taint nodes {names} {UNINITIALIZED}-"),
            Check("other taints on GPU nodes", "warn" if other else "pass", ", ".join(other) or "none",
                  "a pod needs a toleration for each: kubectl describe node")]
