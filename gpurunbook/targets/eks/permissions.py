"""May we make the cluster? IAM's own simulation of the actions that eksctl needs, on the names that eksctl will use.

The actions are eksctl's documented minimum (eksctl 0.230, usage/minimum-iam-policies), as few as tell a role that can from
one that cannot. A simulation knows policies, boundaries and the organization's policies; it does not know the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check
from gpurunbook.targets.eks import tags
from gpurunbook.targets.eks.account import Account, AwsError

NAME = "IAM allows what eksctl does"
LATER = "1 to 15 min, then a rollback at the first call that is denied"
ACTIONS = {
    "arn:{partition}:cloudformation:{region}:{account}:stack/eksctl-{cluster}-cluster/*": (
        "cloudformation:CreateStack", "cloudformation:DescribeStacks", "cloudformation:DescribeStackEvents",
        "cloudformation:DeleteStack"),
    "arn:{partition}:eks:{region}:{account}:cluster/{cluster}": (
        "eks:CreateCluster", "eks:DescribeCluster", "eks:DeleteCluster", "eks:CreateNodegroup", "eks:CreateAddon",
        "eks:TagResource"),
    "arn:{partition}:iam::{account}:role/eksctl-{cluster}-cluster-ServiceRole": (
        "iam:CreateRole", "iam:GetRole", "iam:AttachRolePolicy", "iam:PutRolePolicy", "iam:PassRole", "iam:TagRole",
        "iam:DetachRolePolicy", "iam:DeleteRole"),
    "arn:{partition}:iam::{account}:instance-profile/eksctl-{cluster}-nodegroup": (
        "iam:CreateInstanceProfile", "iam:AddRoleToInstanceProfile", "iam:DeleteInstanceProfile"),
    "*": (
        "ec2:CreateVpc", "ec2:CreateSubnet", "ec2:CreateInternetGateway", "ec2:AllocateAddress", "ec2:CreateNatGateway",
        "ec2:CreateRouteTable", "ec2:CreateSecurityGroup", "ec2:CreateLaunchTemplate", "ec2:RunInstances", "ec2:CreateTags",
        "ec2:DeleteVpc", "ec2:TerminateInstances", "autoscaling:CreateAutoScalingGroup",
        "autoscaling:DeleteAutoScalingGroup"),
}
"""Actions by the resource that they are simulated on; policies are often narrowed to eksctl's names."""


def principal(account: Account, arn: str) -> str:
    """The ARN that can be simulated: a user's as it is, an assumed role's as its role's.

    Raises RunbookError for one that cannot be (root, a federated user), AwsError where AWS must be asked and refuses.
    """
    head, _, rest = arn.partition("::")
    number, _, name = rest.partition(":")
    if head.endswith(":iam") and name.startswith(("user/", "role/")):
        return arn
    if name.startswith("assumed-role/"):
        role = name.split("/")[1]
        try:
            return str(account.call("iam", "get_role", RoleName=role)["Role"]["Arn"])  # only AWS knows the role's path
        except AwsError:
            if role.startswith("AWSReservedSSO_"):
                raise
        return f"{head.removesuffix(':sts')}:iam::{number}:role/{role}"
    raise RunbookError(f"IAM cannot simulate {name.split('/')[0]}", where="aws sts get-caller-identity",
                       next="sign in as a role or a user made for this: nothing limits root")


def resources(arn: str, region: str, cluster: str) -> dict[str, tuple[str, ...]]:
    """ACTIONS with this account, region and cluster in place. `arn`: any ARN of the account."""
    _, partition, _, _, number, *_ = arn.split(":")
    return {resource.format(partition=partition, region=region, account=number, cluster=cluster): actions
            for resource, actions in ACTIONS.items()}


def context(region: str) -> dict[str, str]:
    """What a policy's conditions may ask about, as it is when a run makes and deletes a cluster: condition key -> value."""
    return {"aws:RequestedRegion": region, "iam:AWSServiceName": "eks.amazonaws.com",
            **{f"aws:{of}Tag/{key}": "preflight" for of in ("Request", "Resource") for key in (tags.RUN, tags.OWNER)}}


def simulate(account: Account, who: str, resource: str, actions: Sequence[str]) -> list[dict[str, Any]]:
    """IAM's evaluation of each action. Raises AwsError."""
    return account.pages(
        "iam", "simulate_principal_policy", "EvaluationResults", PolicySourceArn=who, ActionNames=list(actions),
        ResourceArns=[resource], ContextEntries=[{"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
                                                 for key, value in context(account.region).items()])


def check(results: Sequence[Mapping[str, Any]], expected: int) -> Check:
    """`expected`: how many actions were asked about; an answer that leaves some out is no pass."""
    refused = [r for r in results if r["EvalDecision"] != "allowed"]
    # A condition on something that the simulation was not told (a tag, say) reads as denied and may well be allowed; so
    # does a Deny of what lacks it.
    unsure = [r for r in refused if r.get("MissingContextValues")]
    denied = [r for r in refused if r not in unsure]
    fix = "attach manifests/aws/provision.json to the role or user, or ask whoever manages the account"
    if denied:
        return Check(NAME, "fail", "denied: " + ", ".join(map(_named, denied)), fix, LATER)
    if unsure:
        keys = sorted({key for r in unsure for key in r["MissingContextValues"]})
        return Check(NAME, "unknown", f"depends on {', '.join(keys)}: " + ", ".join(map(_named, unsure)), fix, LATER)
    if len(results) < expected:
        return Check(NAME, "unknown", f"IAM judged {len(results)} of {expected} actions", fix, LATER)
    return Check(NAME, "pass", f"simulated: {len(results)} actions allowed", "", LATER)


def _named(result: Mapping[str, Any]) -> str:
    by = ""
    if not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        by = " (by the organization)"
    elif not result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
        by = " (by the permissions boundary)"
    return f"{result['EvalActionName']}{by}"
