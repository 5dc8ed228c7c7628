"""What is in the account, kind by kind: AWS's answers as Resources. Changes nothing, decides nothing.

What AWS itself made and ends with its owner (the interfaces of load balancers, NAT gateways and
control planes) cannot be deleted, and is not listed.
Sources: the API references of EC2, EKS, Elastic Load Balancing, Auto Scaling, IAM, CloudWatch Logs and CloudFormation.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpurunbook.targets.eks import versions
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.ownership import Resource
from gpurunbook.targets.eks.tags import flat

OURS_TO_DELETE = ("interface", "efa", "efa-only", "trunk", "branch")
"""Types of network interface that a customer can delete."""
SERVICE = "a service of AWS"
"""What uses a thing for which AWS names no instance."""
TAGS_AT_ONCE = 20
"""Load balancers whose tags one DescribeTags gives."""


def volumes(account: Account, name: str) -> list[Resource]:
    return [Resource("volume", v["VolumeId"], account.region, v["AvailabilityZone"], f"{v['Size']} GiB {v['VolumeType']}",
                     flat(v.get("Tags")), v["CreateTime"],
                     users=tuple(a.get("InstanceId") or a.get("AssociatedResource") or SERVICE
                                 for a in v.get("Attachments", ()) if a.get("State") != "detached"),
                     detail={"gib": str(v["Size"]), "type": v["VolumeType"]})
            for v in account.pages("ec2", "describe_volumes", "Volumes") if v["State"] not in ("deleting", "deleted")]


def network_interfaces(account: Account, name: str) -> list[Resource]:
    found = []
    for i in _interfaces(account):
        tags, held = flat(i.get("TagSet")), i.get("Attachment", {})
        # The first interface of an instance cannot be detached; it goes with the instance.
        loose = {"attachment": held["AttachmentId"]} if held.get("DeviceIndex") and "AttachmentId" in held else {}
        found.append(Resource("network interface", i["NetworkInterfaceId"], account.region, i.get("AvailabilityZone", ""),
                              i.get("Status", ""), tags, _moment(tags.get("node.k8s.amazonaws.com/createdAt", "")),
                              users=(held.get("InstanceId") or SERVICE,) if held else (), detail=loose))
    return found


def _interfaces(account: Account) -> list[dict[str, Any]]:
    return [i for i in account.pages("ec2", "describe_network_interfaces", "NetworkInterfaces")
            if not i.get("RequesterManaged") and i.get("InterfaceType", "interface") in OURS_TO_DELETE]


def load_balancers(account: Account, name: str) -> list[Resource]:
    found = account.pages("elbv2", "describe_load_balancers", "LoadBalancers")
    tags = _elbv2_tags(account, [b["LoadBalancerArn"] for b in found])
    return [Resource("load balancer", b["LoadBalancerArn"], account.region, size=b["Type"], created=b["CreatedTime"],
                     tags=tags.get(b["LoadBalancerArn"], {}), detail={"name": b["LoadBalancerName"], "type": b["Type"]})
            for b in found]


def classic_load_balancers(account: Account, name: str) -> list[Resource]:
    found = account.pages("elb", "describe_load_balancers", "LoadBalancerDescriptions")
    tags = {d["LoadBalancerName"]: flat(d["Tags"]) for some in _parts([b["LoadBalancerName"] for b in found])
            for d in account.call("elb", "describe_tags", LoadBalancerNames=some)["TagDescriptions"]}
    return [Resource("classic load balancer", b["LoadBalancerName"], account.region, size="classic", created=b["CreatedTime"],
                     tags=tags.get(b["LoadBalancerName"], {}), detail={"type": "classic"}) for b in found]


def target_groups(account: Account, name: str) -> list[Resource]:
    found = account.pages("elbv2", "describe_target_groups", "TargetGroups")
    tags = _elbv2_tags(account, [g["TargetGroupArn"] for g in found])
    return [Resource("target group", g["TargetGroupArn"], account.region, tags=tags.get(g["TargetGroupArn"], {}),
                     users=tuple(g.get("LoadBalancerArns", ())), detail={"name": g["TargetGroupName"]}) for g in found]


def _elbv2_tags(account: Account, arns: list[str]) -> dict[str, dict[str, str]]:
    return {d["ResourceArn"]: flat(d["Tags"]) for some in _parts(arns)
            for d in account.call("elbv2", "describe_tags", ResourceArns=some)["TagDescriptions"]}


def security_groups(account: Account, name: str) -> list[Resource]:
    """Each with what uses it: an interface, or the instance that goes with it. AWS's own interfaces end with their owner."""
    users: dict[str, list[str]] = {}
    for i in _interfaces(account):
        for group in i.get("Groups", ()):
            users.setdefault(group["GroupId"], []).append(i.get("Attachment", {}).get("InstanceId") or i["NetworkInterfaceId"])
    return [Resource("security group", g["GroupId"], account.region, tags=flat(g.get("Tags")), detail={"name": g["GroupName"]},
                     users=tuple(sorted(set(users.get(g["GroupId"], ())))),
                     protected="the default group of a VPC" if g["GroupName"] == "default" else "")
            for g in account.pages("ec2", "describe_security_groups", "SecurityGroups")]


def addresses(account: Account, name: str) -> list[Resource]:
    return [Resource("address", a["AllocationId"], account.region, size=a.get("PublicIp", ""), tags=flat(a.get("Tags")),
                     users=tuple(filter(None, [a.get("InstanceId") or a.get("NetworkInterfaceId")])))
            for a in account.pages("ec2", "describe_addresses", "Addresses") if a.get("AllocationId")]


def nat_gateways(account: Account, name: str) -> list[Resource]:
    return [Resource("NAT gateway", g["NatGatewayId"], account.region, size=g.get("ConnectivityType", ""),
                     tags=flat(g.get("Tags")), created=g.get("CreateTime"), going=g["State"] == "deleting",
                     also=tuple(a["NetworkInterfaceId"] for a in g.get("NatGatewayAddresses", ()) if "NetworkInterfaceId" in a))
            for g in account.pages("ec2", "describe_nat_gateways", "NatGateways")
            if g["State"] in ("pending", "available", "deleting")]


def instances(account: Account, name: str) -> list[Resource]:
    return [Resource("instance", i["InstanceId"], account.region, i.get("Placement", {}).get("AvailabilityZone", ""),
                     i["InstanceType"], flat(i.get("Tags")), i["LaunchTime"], going=i["State"]["Name"] == "shutting-down",
                     detail={"type": i["InstanceType"]})
            for r in account.pages("ec2", "describe_instances", "Reservations") for i in r["Instances"]
            if i["State"]["Name"] != "terminated"]


def launch_templates(account: Account, name: str) -> list[Resource]:
    return [Resource("launch template", t["LaunchTemplateId"], account.region, tags=flat(t.get("Tags")), created=t["CreateTime"],
                     detail={"name": t["LaunchTemplateName"]})
            for t in account.pages("ec2", "describe_launch_templates", "LaunchTemplates")]


def auto_scaling_groups(account: Account, name: str) -> list[Resource]:
    return [Resource("auto scaling group", g["AutoScalingGroupName"], account.region, size=f"{g['DesiredCapacity']} wanted",
                     tags=flat(g.get("Tags")), created=g["CreatedTime"])
            for g in account.pages("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups")]


def key_pairs(account: Account, name: str) -> list[Resource]:
    return [Resource("key pair", k["KeyPairId"], account.region, tags=flat(k.get("Tags")), created=k.get("CreateTime"),
                     detail={"name": k["KeyName"]}) for k in account.pages("ec2", "describe_key_pairs", "KeyPairs")]


def log_groups(account: Account, name: str) -> list[Resource]:
    return [Resource("log group", g["logGroupName"], account.region, size=f"{g.get('storedBytes', 0) / 2**30:.2f} GiB",
                     created=dt.datetime.fromtimestamp(g["creationTime"] / 1000, dt.UTC), tags=flat(account.call(
                         "logs", "list_tags_for_resource", resourceArn=g["arn"].removesuffix(":*"))["tags"]),
                     detail={"bytes": str(g.get("storedBytes", 0))})
            for g in account.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=f"/aws/eks/{name}/")]


def oidc_providers(account: Account, name: str) -> list[Resource]:
    found = []
    for one in account.call("iam", "list_open_id_connect_providers")["OpenIDConnectProviderList"]:
        issuer = one["Arn"].partition("oidc-provider/")[2]
        if issuer.startswith(f"oidc.eks.{account.region}."):
            told = account.call("iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=one["Arn"])
            found.append(Resource("OIDC provider", one["Arn"], account.region, tags=flat(told.get("Tags")),
                                  created=told["CreateDate"], also=(issuer,)))
    return found


def clusters(account: Account, name: str) -> list[Resource]:
    """The cluster of that name, if there is one. `type` says at which rate it is billed: standard, extended or unknown."""
    found = _cluster(account, name)
    if not found:
        return []
    version = found.get("version", "")
    return [Resource("cluster", name, account.region, size=version, tags=flat(found.get("tags")), created=found["createdAt"],
                     also=(found["arn"],), detail={"type": _rate(account, version)})]


def _cluster(account: Account, name: str) -> dict[str, Any]:
    """DescribeCluster's answer, {} for none."""
    try:
        found: dict[str, Any] = account.call("eks", "describe_cluster", name=name)["cluster"]
        return found
    except AwsError as error:
        if error.absent:
            return {}
        raise


def _rate(account: Account, version: str) -> str:
    try:
        status = next((v.status for v in versions.describe(account) if v.number == version), "")
    except (AwsError, LookupError):
        status = ""  # then the price is unknown; that the cluster is there is known all the same
    return {"STANDARD_SUPPORT": "standard", "EXTENDED_SUPPORT": "extended"}.get(status, "unknown")


def node_groups(account: Account, name: str) -> list[Resource]:
    if not _cluster(account, name):
        return []
    names = account.pages("eks", "list_nodegroups", "nodegroups", clusterName=name)
    found = [account.call("eks", "describe_nodegroup", clusterName=name, nodegroupName=n)["nodegroup"] for n in names]
    return [Resource("node group", f"{name}/{g['nodegroupName']}", account.region, size=" ".join(g.get("instanceTypes", ())),
                     tags=flat(g.get("tags")), created=g["createdAt"]) for g in found]


def _parts(items: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), TAGS_AT_ONCE):
        yield list(items[start:start + TAGS_AT_ONCE])


def _moment(text: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


Reader = Callable[[Account, str], list[Resource]]
READERS: dict[str, tuple[Reader, str]] = {
    "load balancer": (load_balancers, "billed by the hour until somebody finds it"),
    "classic load balancer": (classic_load_balancers, "billed by the hour until somebody finds it"),
    "target group": (target_groups, "counts against a quota"),
    "instance": (instances, "billed by the hour until somebody finds it"),
    "auto scaling group": (auto_scaling_groups, "starts instances anew"),
    "launch template": (launch_templates, "counts against a quota"),
    "node group": (node_groups, "starts instances anew"),
    "network interface": (network_interfaces, "its subnet and VPC cannot be deleted"),
    "NAT gateway": (nat_gateways, "billed by the hour until somebody finds it"),
    "address": (addresses, "billed by the hour, and there are few"),
    "volume": (volumes, "billed by the GiB until somebody finds it"),
    "security group": (security_groups, "its VPC cannot be deleted"),
    "OIDC provider": (oidc_providers, "counts against a quota"),
    "key pair": (key_pairs, "counts against a quota"),
    "log group": (log_groups, "billed by the GiB until somebody finds it"),
}
"""Kind -> (reader, what a forgotten one costs). Stacks and the cluster are read first: leftovers.py."""
