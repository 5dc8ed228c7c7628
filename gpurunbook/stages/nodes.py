"""03: the nodes, group by group, against cluster.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook import show
from gpurunbook.config import NodeGroup, is_gpu
from gpurunbook.plan import Check, Plan

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

GPU = "nvidia.com/gpu"
GROUP_LABELS = ("alpha.eksctl.io/nodegroup-name", "eks.amazonaws.com/nodegroup")


@dataclass(frozen=True)
class Node:
    """A node as the API server shows it. `gpus` is allocatable nvidia.com/gpu; `taints` as KEY:EFFECT."""

    name: str
    group: str
    ready: bool
    instance_type: str
    zone: str
    gpus: int
    taints: tuple[str, ...]
    labels: dict[str, str]
    provider_id: str
    version: str

    @property
    def gpu(self) -> bool:
        return is_gpu(self.instance_type)


def observe(run: Run) -> list[Node]:
    """Every node of the cluster, by name."""
    return sorted((_node(item) for item in run.core.list_node(_request_timeout=30).items), key=lambda n: n.name)


def _node(item: Any) -> Node:
    labels = item.metadata.labels or {}
    conditions = {c.type: c.status for c in item.status.conditions or []}
    return Node(
        name=item.metadata.name, group=next((labels[k] for k in GROUP_LABELS if k in labels), ""),
        ready=conditions.get("Ready") == "True",
        instance_type=labels.get("node.kubernetes.io/instance-type", ""),
        zone=labels.get("topology.kubernetes.io/zone", ""),
        gpus=int((item.status.allocatable or {}).get(GPU, 0)),
        taints=tuple(f"{t.key}:{t.effect}" for t in item.spec.taints or []), labels=labels,
        provider_id=item.spec.provider_id or "", version=item.status.node_info.kubelet_version)


def table(found: list[Node], caption: str = "") -> show.Table:
    return show.Table(("node", "group", "type", "zone", "status", "GPUs", "taints"),
                      [(n.name, n.group, n.instance_type, n.zone, "Ready" if n.ready else "NotReady", n.gpus,
                        ", ".join(n.taints) or "none") for n in found],
                      caption, ["pass" if n.ready else "fail" for n in found])


def plan(run: Run, found: list[Node]) -> Plan:
    return run.plan((), "this stage only looks")


def verify(run: Run) -> list[Check]:
    found = observe(run)
    return [check(group, found) for group in run.cluster.groups] + [
        Check("every node says where it is", "pass" if all(n.provider_id and n.zone for n in found) else "warn",
              ", ".join(sorted({n.zone for n in found if n.zone})) or "no zone labels",
              "the cloud controller sets providerID and zone: kubectl get nodes -o yaml")]


def check(group: NodeGroup, found: list[Node]) -> Check:
    """Does a group have the Ready nodes that cluster.yaml asks for?"""
    ready = [n for n in found if n.group == group.name and n.ready]
    return Check(f"{group.name}: {group.desired} Ready", "pass" if len(ready) == group.desired else "fail",
                 f"{len(ready)} Ready of type {group.instance_type}", f"kubectl get nodes -l {group.selector}")
