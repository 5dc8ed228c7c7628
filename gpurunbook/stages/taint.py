"""04: the taint that a cloud controller should have removed, and why nothing schedules while it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurunbook.plan import Check, Plan
from gpurunbook.stages import nodes
from gpurunbook.stages.nodes import Node

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"


def observe(run: Run) -> list[Node]:
    """The nodes of the GPU group."""
    return [n for n in nodes.observe(run) if n.group == run.cluster.gpu_group.name]


def stuck(found: list[Node]) -> list[Node]:
    """Those that carry the taint."""
    return [n for n in found if any(t.startswith(f"{UNINITIALIZED}:") for t in n.taints)]


def plan(run: Run, found: list[Node]) -> Plan:
    held = stuck(found)
    if not held:
        return run.plan((), "no GPU node carries the taint: nothing to remove")
    return run.plan([run.kubectl.untaint_nodes(run.cluster.gpu_group.selector, UNINITIALIZED)],
                    f"{len(held)} GPU node(s) still carry {UNINITIALIZED}: the scheduler puts nothing there, "
                    f"neither the operator's pods nor the model's")


def verify(run: Run) -> list[Check]:
    found = observe(run)
    held = stuck(found)
    other = sorted({t for n in found for t in n.taints} - {f"{UNINITIALIZED}:NoSchedule"})
    return [Check("no GPU node is uninitialized", "fail" if held else "pass",
                  ", ".join(n.name for n in held) or f"{len(found)} GPU node(s) free of it",
                  f"kubectl taint nodes -l {run.cluster.gpu_group.selector} {UNINITIALIZED}-"),
            Check("other taints on GPU nodes", "warn" if other else "pass", ", ".join(other) or "none",
                  "a pod needs a toleration for each: kubectl describe node")]
