"""03: the nodes, group by group, against cluster.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook import show
from gpurunbook.config import NodeGroup
from gpurunbook.plan import Check, Plan

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

GPU = "nvidia.com/gpu"
GROUP_LABELS = ("alpha.eksctl.io/nodegroup-name", "eks.amazonaws.com/nodegroup")


@dataclass(frozen=True)
class Node:
    """A node as the API server shows it.

    Attributes:
        group: the group whose selector picks it, else the name that eksctl or EKS gave its group.
        gpu: its group is a GPU group.
        gpus: allocatable nvidia.com/gpu.
        taints: as KEY:EFFECT.
    """

    name: str
    group: str
    gpu: bool
    ready: bool
    instance_type: str
    zone: str
    gpus: int
    taints: tuple[str, ...]
    labels: dict[str, str]
    provider_id: str
    version: str


def observe(run: Run) -> list[Node]:
    """Every node of the cluster, by name."""
    found = run.core.list_node(_request_timeout=30).items
    return sorted((_node(item, run.cluster.groups) for item in found), key=lambda n: n.name)


def group_of(labels: Mapping[str, str], groups: Sequence[NodeGroup]) -> tuple[str, NodeGroup | None]:
    """The name that eksctl or EKS gave a node's group ("" without one), and the group of cluster.yaml that it belongs to."""
    named = next((labels[key] for key in GROUP_LABELS if key in labels), "")
    return named, next((g for g in groups if g.picks.items() <= labels.items() or g.name == named), None)


def _node(item: Any, groups: Sequence[NodeGroup]) -> Node:
    labels = item.metadata.labels or {}
    conditions = {c.type: c.status for c in item.status.conditions or []}
    named, group = group_of(labels, groups)
    return Node(
        name=item.metadata.name, group=group.name if group else named, gpu=bool(group and group.gpu),
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
    """Does a group have the Ready nodes that it should have? Above `desired` an autoscaler may go up to `max`."""
    ready = [n for n in found if n.group == group.name and n.ready]
    kind = f" of type {group.instance_type}" if group.instance_type else ""
    return Check(f"{group.name}: {group.desired} Ready", "pass" if group.desired <= len(ready) <= group.max else "fail",
                 f"{len(ready)} Ready{kind}", f"kubectl get nodes -l {group.selector}")
