"""The CloudFormation stacks that eksctl makes for a cluster, and what is in them.

Deleted stacks are listed too: AWS tells of them for 90 days, and a stack deleted with DELETE_SKIPPED has left something.
Source: CloudFormation's API reference (ListStacks, DescribeStacks, ListStackResources, DescribeStackEvents).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.ownership import Resource
from gpurunbook.targets.eks.stacks import KINDS as EKSCTL_KINDS
from gpurunbook.targets.eks.tags import flat

DELETED = "DELETE_COMPLETE"

KINDS = {
    "AWS::AutoScaling::AutoScalingGroup": "auto scaling group",
    "AWS::EC2::EIP": "address",
    "AWS::EC2::Instance": "instance",
    "AWS::EC2::LaunchTemplate": "launch template",
    "AWS::EC2::NatGateway": "NAT gateway",
    "AWS::EC2::NetworkInterface": "network interface",
    "AWS::EC2::SecurityGroup": "security group",
    "AWS::EC2::Volume": "volume",
    "AWS::EKS::Cluster": "cluster",
    "AWS::EKS::Nodegroup": "node group",
    "AWS::ElasticLoadBalancing::LoadBalancer": "classic load balancer",
    "AWS::ElasticLoadBalancingV2::LoadBalancer": "load balancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup": "target group",
    "AWS::IAM::OIDCProvider": "OIDC provider",
    "AWS::Logs::LogGroup": "log group",
}
"""CloudFormation's type -> our kind, for what the sweep can delete by itself; the rest goes with its stack."""


def stacks(account: Account, name: str, *, deleted: bool = True, since: dt.datetime | None = None) -> list[Resource]:
    """Every stack whose name begins as eksctl's stacks of this cluster do. Raises AwsError.

    `detail`: name and state, the state in CloudFormation's words.

    Args:
        deleted: deleted ones too, of the names that eksctl gives.
        since: leaves out those that were deleted before, and so cannot be of a cluster that was made then.
    """
    found = []
    for one in account.pages("cloudformation", "list_stacks", "StackSummaries"):
        if one["StackName"].startswith(f"eksctl-{name}-"):
            # AWS tells of what was deleted for 90 days, and takes few questions a second.
            if one["StackStatus"] == DELETED and not (deleted and _may_be_of(one, name, since)):
                continue
            try:
                told = account.call("cloudformation", "describe_stacks", StackName=one["StackId"])["Stacks"][0]
            except AwsError as error:
                if error.absent:
                    continue
                raise
            found.append(Resource("stack", told["StackId"], account.region, size=told["StackStatus"],
                                  tags=flat(told.get("Tags")), created=told["CreationTime"],
                                  detail={"name": told["StackName"], "state": told["StackStatus"]}))
    return found


def _may_be_of(summary: Mapping[str, Any], name: str, since: dt.datetime | None) -> bool:
    kind, _, rest = summary["StackName"].removeprefix(f"eksctl-{name}-").partition("-")
    ended = summary.get("DeletionTime")
    return kind in EKSCTL_KINDS and not (kind == "cluster" and rest) and not (since and ended and ended < since)


def lives(stack: Resource) -> bool:
    return stack.detail["state"] != DELETED


def members(account: Account, stack: Resource) -> list[tuple[str, str]]:
    """(kind, id) of what a stack holds, or, once deleted, of what it left behind. Raises AwsError."""
    if not lives(stack):
        return _left_behind(account, stack)
    found = [(KINDS[r["ResourceType"]], r["PhysicalResourceId"])
             for r in account.pages("cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=stack.id)
             if r["ResourceType"] in KINDS and r.get("PhysicalResourceId") and r["ResourceStatus"] != "DELETE_COMPLETE"]
    if any(kind == "address" for kind, _ in found):
        # CloudFormation knows an address by its IP, which the next owner may get: only the allocation id is for ever.
        by_ip = {a["PublicIp"]: a.get("AllocationId", "") for a in account.pages("ec2", "describe_addresses", "Addresses")
                 if "PublicIp" in a}
        found = [(kind, by_ip.get(id.split("|")[0], "") if kind == "address" else id) for kind, id in found]
    return [(kind, _as_id(kind, id)) for kind, id in found if id]


def _left_behind(account: Account, stack: Resource) -> list[tuple[str, str]]:
    last: dict[str, tuple[str, str, str]] = {}
    for event in account.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=stack.id):  # newest first
        last.setdefault(event["LogicalResourceId"],
                        (event["ResourceType"], event.get("PhysicalResourceId", ""), event.get("ResourceStatus", "")))
    return [(KINDS[type], _as_id(KINDS[type], id)) for type, id, status in last.values()
            if type in KINDS and status == "DELETE_SKIPPED" and id and KINDS[type] != "address"]


def _as_id(kind: str, id: str) -> str:
    """A node group's physical id is CLUSTER/GROUP, as ours is; some regions' answers separate the two by a bar."""
    return id.replace("|", "/") if kind == "node group" else id
