"""The account's quotas: what the cluster needs, what is used, what is free.

EC2 counts instances in vCPUs, by bucket: G and VT together, P, Standard and so on, On-Demand apart from spot. Codes from
AWS's EC2, VPC and EKS quota pages; the values are asked for, never assumed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook.plan import Check
from gpurunbook.targets.eks import tags
from gpurunbook.targets.eks.account import Account, AwsError

if TYPE_CHECKING:
    from gpurunbook.config import NodeGroup
    from gpurunbook.targets.eks.instance_types import InstanceType


@dataclass(frozen=True)
class Bucket:
    """Families that share a vCPU quota. `spot` is "" where AWS sells no spot instances."""

    name: str
    on_demand: str
    spot: str


STANDARD = Bucket("Standard (A, C, D, H, I, M, R, T, Z)", "L-1216C47A", "L-34B43A08")
G_AND_VT = Bucket("G and VT", "L-DB2E81BA", "L-3819A6DF")
BUCKETS = {**dict.fromkeys(("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"), STANDARD),
           **dict.fromkeys(("g", "gr", "vt"), G_AND_VT),
           "p": Bucket("P", "L-417A185B", "L-7212CCBC"), "x": Bucket("X", "L-7295265B", "L-E3A00192"),
           "f": Bucket("F", "L-74FC7D96", "L-88CF9481"), "inf": Bucket("Inf", "L-1945791B", "L-B5D1601B"),
           "trn": Bucket("Trn", "L-2C3B7624", "L-6B0D517C"), "dl": Bucket("DL", "L-6E869C2A", "L-85EED4F7"),
           "hpc": Bucket("HPC", "L-F7808C92", ""), "u": Bucket("High Memory", "L-43DA4232", "")}
"""By the letters before a type's first digit: g4dn is "g", gr6 is "gr", u-6tb1 is "u"."""
P5 = Bucket("P", "L-417A185B", "L-C4BD4855")
"""P5 shares the On-Demand quota of P and has a spot quota of its own."""


def bucket(instance_type: str) -> Bucket | None:
    """The bucket of a type; None for one that no vCPU quota counts (mac runs on hosts of its own)."""
    if instance_type.startswith("p5"):
        return P5
    letters = re.match(r"[a-z]+", instance_type)
    return BUCKETS.get(letters[0]) if letters else None


@dataclass(frozen=True)
class Quota:
    """One quota and what it is compared with; `service` and `code` as Service Quotas knows them."""

    name: str
    unit: str
    service: str
    code: str
    later: str


ADDRESSES = Quota("quota: Elastic IP addresses", "addresses", "ec2", "L-0263D0A3",
                  "about 3 min, then the stack rolls back at its NAT gateway")
VPCS = Quota("quota: VPCs in the region", "VPCs", "vpc", "L-F678F1CE", "about 1 min, then a rollback, then a stack to delete")
GATEWAYS = Quota("quota: internet gateways in the region", "internet gateways", "vpc", "L-A4707A72",
                 "about 1 min, then a rollback, then a stack to delete")
NATS = Quota("quota: NAT gateways in a zone", "NAT gateways", "vpc", "L-FE5A380F", "about 3 min, then a rollback")
CLUSTERS = Quota("quota: EKS clusters in the region", "clusters", "eks", "L-1194D53C", "about 3 min, then a rollback")


def of_bucket(found: Bucket, spot: bool) -> Quota:
    """The vCPU quota of a bucket, On-Demand or spot."""
    return Quota(f"quota: {found.name} vCPUs{', spot' if spot else ''}", "vCPUs", "ec2", found.spot if spot else found.on_demand,
                 "15 min or more: a group without nodes, pods Pending and no log; a rise takes hours to days")


def value(account: Account, quota: Quota) -> float:
    """The quota that applies: the account's own, else AWS's default. Raises AwsError."""
    try:
        answer = account.call("service-quotas", "get_service_quota", ServiceCode=quota.service, QuotaCode=quota.code)
    except AwsError as error:
        if not error.absent:
            raise
        answer = account.call("service-quotas", "get_aws_default_service_quota", ServiceCode=quota.service,
                              QuotaCode=quota.code)
    return float(answer["Quota"]["Value"])


def compare(quota: Quota, region: str, *, needed: int, used: int, at: float, at_most: int = 0) -> Check:
    """Needed, used and free against the quota `at`; `at_most` is what is needed when groups grow to their maxSize."""
    free = int(at) - used
    evidence = f"{needed} needed, {used} of {at:g} {quota.unit} used, {max(free, 0)} free"
    rise = (f"aws service-quotas request-service-quota-increase --service-code {quota.service} --quota-code {quota.code} "
            f"--desired-value {used + max(needed, at_most)} --region {region}")
    if needed > 0 and needed > free:
        return Check(quota.name, "fail", evidence, rise, quota.later)
    if at_most > max(free, 0):
        return Check(quota.name, "warn", f"{evidence}; maxSize needs {at_most}", rise, quota.later)
    return Check(quota.name, "pass", evidence, "", quota.later)


@dataclass(frozen=True)
class Instance:
    """A pending or running instance. `ours`: it is a node of this cluster."""

    type: str
    spot: bool
    ours: bool


def instances(account: Account, cluster: str) -> list[Instance]:
    """What counts against a vCPU quota now: no dedicated hosts, no capacity blocks. Raises AwsError."""
    found = account.pages("ec2", "describe_instances", "Reservations",
                          Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}])
    return [Instance(i["InstanceType"], i.get("InstanceLifecycle") == "spot", belongs(i.get("Tags"), cluster))
            for reservation in found for i in reservation["Instances"]
            if i.get("InstanceLifecycle", "spot") == "spot" and i.get("Placement", {}).get("Tenancy") != "host"]


def belongs(marks: Iterable[Mapping[str, Any]] | None, cluster: str) -> bool:
    """Made for the cluster of that name, by eksctl or EKS; it is already counted and needs no more room."""
    flat = tags.flat(list(marks or ()))
    return (cluster in (flat.get("alpha.eksctl.io/cluster-name"), flat.get("eks:cluster-name"))
            or f"kubernetes.io/cluster/{cluster}" in flat)


def vcpus(quota: Quota, region: str, groups: Sequence[NodeGroup], running: Sequence[Instance],
          types: Mapping[str, InstanceType], at: float) -> Check:
    """`groups` and `running` are all of the quota's bucket and kind; `types` has every type that they name."""
    used = sum(types[i.type].vcpus for i in running)
    ours = sum(types[i.type].vcpus for i in running if i.ours)
    needed = sum(types[g.instance_type].vcpus * g.desired for g in groups) - ours
    return compare(quota, region, needed=max(needed, 0), used=used, at=at,
                   at_most=max(0, sum(types[g.instance_type].vcpus * g.max for g in groups) - ours))


@dataclass(frozen=True)
class Network:
    """What eksctl makes for a cluster file: `nats` takes one address each, `per_zone` of them in one zone."""

    vpcs: int
    nats: int
    per_zone: int


def network(document: Mapping[str, Any]) -> Network:
    """eksctl makes a VPC with a single NAT gateway unless the file says otherwise. Source: eksctl 0.230, pkg/apis vpc.go."""
    vpc = document.get("vpc") or {}
    if vpc.get("id") or vpc.get("subnets"):
        return Network(0, 0, 0)
    kind = (vpc.get("nat") or {}).get("gateway") or "Single"
    if kind == "Disable" or (document.get("privateCluster") or {}).get("enabled"):
        return Network(1, 0, 0)
    zones = document.get("availabilityZones") or ()
    default = 2 if document["metadata"]["region"] == "us-east-1" else 3
    return Network(1, (len(zones) or default) if kind == "HighlyAvailable" else 1, 1)


def counted(quota: Quota, region: str, cluster: str, found: Sequence[Mapping[str, Any]], needed: int, at: float) -> Check:
    """`found`: everything of the kind in the region, with its Tags."""
    ours = sum(belongs(one.get("Tags"), cluster) for one in found)
    return compare(quota, region, needed=max(0, needed - ours), used=len(found), at=at)


def addresses(account: Account) -> list[dict[str, Any]]:
    return account.pages("ec2", "describe_addresses", "Addresses")


def vpcs(account: Account, owner: str) -> list[dict[str, Any]]:
    """Those of the account numbered `owner`: one that another account shares with it counts there."""
    return [v for v in account.pages("ec2", "describe_vpcs", "Vpcs") if v.get("OwnerId", owner) == owner]


def internet_gateways(account: Account) -> list[dict[str, Any]]:
    return account.pages("ec2", "describe_internet_gateways", "InternetGateways")


def nat_gateways(account: Account) -> list[dict[str, Any]]:
    """Those that count, each with the `Zone` of its subnet ("" when the subnet is not ours to see)."""
    found = account.pages("ec2", "describe_nat_gateways", "NatGateways",
                          Filters=[{"Name": "state", "Values": ["pending", "available", "deleting"]}])
    if not found:
        return []
    zones = {s["SubnetId"]: s["AvailabilityZone"] for s in account.pages("ec2", "describe_subnets", "Subnets")}
    return [{**nat, "Zone": zones.get(nat.get("SubnetId", ""), "")} for nat in found]


def nats(region: str, cluster: str, found: Sequence[Mapping[str, Any]], zones: Sequence[str], needed: int, at: float) -> Check:
    """eksctl picks the zone, so a full one is a risk, and all full ones are a failure. `zones`: those it may pick."""
    if any(belongs(nat.get("Tags"), cluster) for nat in found):
        needed = 0
    used = Counter(nat["Zone"] for nat in found)
    worst, best = max(zones, key=lambda z: used[z]), min(zones, key=lambda z: used[z])
    check = compare(NATS, region, needed=needed, used=used[worst], at=at)
    check = Check(check.name, check.state, f"{check.evidence} ({worst}, the fullest)", check.fix, check.later)
    if check.state == "fail" and used[best] + needed <= at:
        return Check(check.name, "warn", check.evidence, f"set availabilityZones in cluster.yaml without {worst}", check.later)
    return check


def clusters(account: Account) -> list[str]:
    """Names of the EKS clusters in the region. Raises AwsError."""
    return account.pages("eks", "list_clusters", "clusters")
