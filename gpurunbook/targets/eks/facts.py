"""The run's cluster as AWS shows it now: the control plane, the node groups, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpurunbook.errors import RunbookError
from gpurunbook.targets import ClusterState, Part
from gpurunbook.targets.eks import stacks, tags
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.stacks import Stack

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig

ADDONS = ("vpc-cni", "kube-proxy", "coredns")
"""What `eksctl create cluster` installs after the control plane, and no node becomes Ready without."""
IN_PROGRESS = ("CREATING", "UPDATING", "DELETING")


@dataclass(frozen=True)
class Facts:
    """What AWS says.

    Attributes:
        status: of the control plane, EKS's word (ACTIVE, CREATING, FAILED ...); "" when there is none.
        tags: of the cluster, or of its stack while there is no cluster.
        stacks: eksctl's stacks of this cluster that are not deleted.
        groups: EKS-managed node groups -> their status; health: group -> EKS's words on what ails it.
        addons: those that EKS lists; empty without a control plane.
        zones: the zones that the cluster has subnets in.
        detail: DescribeCluster's answer; empty without a control plane.
    """

    status: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    stacks: tuple[Stack, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    addons: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def run_id(self) -> str:
        """The run that made it; "" when nobody of ours did."""
        return self.tags.get(tags.RUN, "")

    @property
    def anything(self) -> bool:
        return bool(self.status or self.stacks)

    def stack(self, kind: str, group: str = "") -> Stack | None:
        return next((s for s in self.stacks if (s.kind, s.group) == (kind, group)), None)


@dataclass(frozen=True)
class EksState(ClusterState):
    """ClusterState with what it was told from."""

    facts: Facts = field(default_factory=Facts)


def read(account: Account, name: str) -> Facts:
    """Ask EKS, CloudFormation and EC2. An absent cluster is a fact. Raises AwsError when AWS refuses or is away."""
    found = tuple(stacks.of_cluster(account, name))
    try:
        cluster = account.call("eks", "describe_cluster", name=name)["cluster"]
    except AwsError as error:
        if not error.absent:
            raise
        # The control plane's stack is first, if it is there; a node group's may outlive it.
        return Facts(stacks=found, tags=next((dict(s.tags) for s in found if tags.RUN in s.tags), {}))
    groups, health = {}, {}
    for group in account.pages("eks", "list_nodegroups", "nodegroups", clusterName=name):
        told = account.call("eks", "describe_nodegroup", clusterName=name, nodegroupName=group)["nodegroup"]
        groups[group] = told["status"]
        health[group] = tuple(f"{i['code']}: {i['message']}" for i in told.get("health", {}).get("issues", []))
    active = cluster["status"] == "ACTIVE"
    subnets = cluster.get("resourcesVpcConfig", {}).get("subnetIds", [])
    rows = account.pages("ec2", "describe_subnets", "Subnets", SubnetIds=subnets) if subnets else []
    return Facts(
        status=cluster["status"], tags=tags.flat(cluster.get("tags")), stacks=found, groups=groups, health=health,
        addons=tuple(account.pages("eks", "list_addons", "addons", clusterName=name)) if active else (),
        zones=tuple(sorted({row["AvailabilityZone"] for row in rows})), detail=cluster)


def claim(facts: Facts, cluster: str, run_id: str, *, ours: bool, me: Callable[[], str]) -> None:
    """May this run go on with what is there?

    Args:
        ours: this run began to make it, or a person named its run; a run id that was drawn by chance may be drawn twice.
        me: who asks, as in the owner's tag.

    Raises:
        RunbookError: another run made it, or another person's run of the same name, or nobody of ours.
    """
    made_by, owner = facts.run_id, facts.tags.get(tags.OWNER, "")
    if not facts.anything or (made_by == run_id and (ours or owner == me())):
        return
    if made_by == run_id:
        raise RunbookError(f"the cluster {cluster} was made by a run of {owner or 'somebody'} with the same id, {run_id}",
                           where=f"tag {tags.OWNER} of {cluster}",
                           next="name another cluster in cluster.yaml, and begin another run: --run-id OTHER")
    if made_by:
        raise RunbookError(f"the cluster {cluster} was made by run {made_by}" + (f" of {owner}" if owner else ""),
                           where=f"tag {tags.RUN} of {cluster}",
                           next=f"go on with that run: --run-id {made_by}; or name another cluster in cluster.yaml")
    raise RunbookError(f"a cluster {cluster} is there that no run of gpurunbook made",
                       where=f"eksctl get cluster --name {cluster}",
                       next="name another in cluster.yaml, or use that one: --target existing")


def parts(facts: Facts, cluster: ClusterConfig) -> tuple[Part, ...]:
    """The control plane and each node group of cluster.yaml, in ClusterState's words."""
    whole = facts.stack("cluster")
    found = [Part("control plane", _word(facts.status or (whole.status if whole else "")),
                  _evidence(facts.status, whole))]
    for group in cluster.groups:
        stack, managed = facts.stack("nodegroup", group.name), facts.groups.get(group.name, "")
        word = _word(managed if managed and managed != "ACTIVE" else stack.status if stack else managed)
        sick = "; ".join(facts.health.get(group.name, ()))
        found.append(Part(f"node group {group.name}", word, sick or _evidence(managed, stack)))
    return tuple(found)


def _word(status: str) -> str:
    if not status:
        return "absent"
    if status == "ACTIVE" or status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        return "running"
    if status == "DEGRADED":
        return "degraded"
    return "on its way" if status in IN_PROGRESS or status.endswith("IN_PROGRESS") else "failed"


def _evidence(status: str, stack: Stack | None) -> str:
    told = [f"EKS: {status}"] if status else []
    if stack:
        told.append(f"stack {stack.status}" + (f": {stack.reason}" if stack.reason and "FAILED" in stack.status else ""))
    return ", ".join(told)
