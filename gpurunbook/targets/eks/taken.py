"""What is there already: the region, and a cluster or a stack of the name that cluster.yaml wants."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from gpurunbook.plan import Check
from gpurunbook.targets.eks import tags
from gpurunbook.targets.eks.account import Account, AwsError, home

REGION, REGION_LATER = "region", "about 1 min, then eksctl gives up on a host that does not exist"
CLUSTER, CLUSTER_LATER = "the cluster's name is free", "about 1 min, then eksctl refuses; or another's cluster in use"


def regions(account: Account) -> dict[str, str]:
    """Every region of the partition, with opted-in, not-opted-in or opt-in-not-required. Raises AwsError."""
    found = account.pages("ec2", "describe_regions", "Regions", region=home(account.region), AllRegions=True)
    return {r["RegionName"]: r.get("OptInStatus", "") for r in found}


def region(known: Mapping[str, str], wanted: str) -> Check:
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, 3)
        return Check(REGION, "fail", f"there is no region {wanted}", f"set metadata.region in cluster.yaml to "
                     f"{' or '.join(close) if close else 'one of aws ec2 describe-regions'}", REGION_LATER)
    if known[wanted] == "not-opted-in":
        return Check(REGION, "fail", f"{wanted} is not enabled in this account",
                     f"aws account enable-region --region-name {wanted}", REGION_LATER)
    return Check(REGION, "pass", wanted, "", REGION_LATER)


def check(account: Account, name: str) -> Check:
    """Is the name free, or taken by what a run made? A stack without its cluster blocks a new one (eksctl#2005)."""
    try:
        cluster = account.call("eks", "describe_cluster", name=name)["cluster"]
    except AwsError as error:
        if not error.absent:
            raise
        return _stack(account, name)
    return _whose(f"EKS cluster {name} is there, {cluster.get('status', 'of unknown status')}", tags.flat(cluster.get("tags")),
                  "set another metadata.name in cluster.yaml")


def _stack(account: Account, name: str) -> Check:
    try:
        [stack, *_] = account.call("cloudformation", "describe_stacks", StackName=f"eksctl-{name}-cluster")["Stacks"]
    except AwsError as error:
        if not error.absent:
            raise
        return Check(CLUSTER, "pass", f"no EKS cluster and no stack is named {name}", "", CLUSTER_LATER)
    delete = f"aws cloudformation delete-stack --region {account.region} --stack-name {stack['StackName']}"
    return _whose(f"no EKS cluster {name}, but its stack {stack['StackName']} is there, {stack['StackStatus']}",
                  tags.flat(stack.get("Tags")), f"if it is yours: {delete}; or set another metadata.name in cluster.yaml")


def _whose(evidence: str, marks: Mapping[str, str], foreign: str) -> Check:
    """A run's own cluster is one to go on with; `foreign` is what to do about another's."""
    if run := marks.get(tags.RUN):
        return Check(CLUSTER, "warn", f"{evidence}, made by run {run}",
                     f"go on with it: gpurunbook run --run-id {run}; or end it: gpurunbook teardown --run-id {run}",
                     CLUSTER_LATER)
    return Check(CLUSTER, "fail", f"{evidence}, and no run made it", foreign, CLUSTER_LATER)
