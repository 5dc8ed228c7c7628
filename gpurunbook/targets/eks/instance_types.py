"""Instance types: what they are, and in which zones they are offered.

An offering says that a zone has the type at all. Whether it has one free now, only starting it tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook.plan import Check
from gpurunbook.targets.eks.account import Account

if TYPE_CHECKING:
    from gpurunbook.config import NodeGroup

WITHOUT_EKS = {"use1-az3", "usw1-az2", "cac1-az3"}
"""Zone ids in which EKS makes no control plane. Source: AWS's EKS network requirements; eksctl 0.230 avoids the same."""
TWO_ZONES = 2
"""EKS wants subnets in at least two zones."""
G7_DRIVER = 595
"""The first NVIDIA driver for EC2's G7. AL2023's NVIDIA image carried 580 when read (2026-08)."""


@dataclass(frozen=True)
class InstanceType:
    """As DescribeInstanceTypes has it. `arch` is x86_64 or arm64; `gpu` such as "T4"; memory in MiB, `gpu_mib` for each GPU."""

    name: str
    vcpus: int
    memory_mib: int
    arch: str
    gpus: int
    gpu: str
    gpu_maker: str
    gpu_mib: int


def describe(account: Account, names: Sequence[str]) -> dict[str, InstanceType]:
    """The types that the region knows, by name; a name that it does not know is left out. Raises AwsError."""
    wanted = sorted(set(names))
    # A filter, since naming an unknown type among InstanceTypes fails the whole call; a filter takes 200 values.
    found = [item for i in range(0, len(wanted), 200) for item in account.pages(
        "ec2", "describe_instance_types", "InstanceTypes", Filters=[{"Name": "instance-type", "Values": wanted[i:i + 200]}])]
    return {item["InstanceType"]: _type(item) for item in found}


def _type(item: Mapping[str, Any]) -> InstanceType:
    [gpu, *_] = item.get("GpuInfo", {}).get("Gpus") or [{}]
    archs = item.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    return InstanceType(item["InstanceType"], item["VCpuInfo"]["DefaultVCpus"], item["MemoryInfo"]["SizeInMiB"],
                        next((a for a in archs if a in ("x86_64", "arm64")), ""), gpu.get("Count", 0), gpu.get("Name", ""),
                        gpu.get("Manufacturer", ""), gpu.get("MemoryInfo", {}).get("SizeInMiB", 0))


def zones(account: Account) -> list[str]:
    """The region's zones in which a cluster can be made. Raises AwsError."""
    found = account.pages("ec2", "describe_availability_zones", "AvailabilityZones", Filters=[
        {"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}])
    return sorted(z["ZoneName"] for z in found if z.get("ZoneId") not in WITHOUT_EKS)


def offerings(account: Account, names: Sequence[str]) -> dict[str, set[str]]:
    """Zones by type. Raises AwsError."""
    found = account.pages("ec2", "describe_instance_type_offerings", "InstanceTypeOfferings",
                          LocationType="availability-zone",
                          Filters=[{"Name": "instance-type", "Values": sorted(set(names))}])
    offered: dict[str, set[str]] = {name: set() for name in names}
    for item in found:
        offered.setdefault(item["InstanceType"], set()).add(item["Location"])
    return offered


def known(group: NodeGroup, types: Mapping[str, InstanceType], region: str) -> Check:
    """Is the group's type one that can do what the group is for?"""
    name, later = f"{group.name}: instance type", "15 min, then a node that cannot run the image"
    found = types.get(group.instance_type)
    if found is None:
        return Check(name, "fail", f"{region} has no instance type {group.instance_type}",
                     "set another instanceType in cluster.yaml, or another region", "about 1 min, then eksctl refuses")
    gpus = f", {found.gpus} {found.gpu_maker} {found.gpu} ({found.gpu_mib / 1024:g} GiB)" if found.gpus else ""
    evidence = f"{found.name}: {found.vcpus} vCPUs, {found.memory_mib / 1024:g} GiB{gpus}, {found.arch or 'unknown CPU'}"
    if group.gpu and found.gpu_maker.upper() != "NVIDIA":
        return Check(name, "fail", f"{evidence}: no NVIDIA GPU", "set instanceType to one such as g4dn.xlarge", later)
    if group.gpu and found.arch != "x86_64":
        return Check(name, "fail", f"{evidence}: the model's image is built for x86_64",
                     "set instanceType to one such as g4dn.xlarge", later)
    return Check(name, "pass", evidence, "", later)


def offered(group: NodeGroup, offers: Mapping[str, set[str]], asked: Sequence[str], region_zones: Sequence[str]) -> Check:
    """`asked`: the zones that cluster.yaml names for the group or the cluster; empty where eksctl chooses."""
    name, later = f"{group.name}: {group.instance_type} is offered", "10 to 25 min, then a group that failed, in the wrong zone"
    there, wanted = offers.get(group.instance_type, set()), set(asked or region_zones)
    good, bad = sorted(wanted & there), sorted(wanted - there)
    if not good:
        elsewhere = ", ".join(sorted(there)) or "no zone of this region"
        return Check(name, "fail", f"not in {', '.join(bad)}; offered in {elsewhere}",
                     f"set availabilityZones: [{', '.join(sorted(there))}] in cluster.yaml" if there
                     else "set another instanceType in cluster.yaml, or another region", later)
    if bad:
        return Check(name, "warn", f"in {', '.join(good)}; not in {', '.join(bad)}",
                     f"set availabilityZones: [{', '.join(good)}] for {group.name} in cluster.yaml", later)
    return Check(name, "pass", f"in {', '.join(good)}; a free one is not promised", "", later)


def common(groups: Sequence[NodeGroup], offers: Mapping[str, set[str]], asked: Sequence[str],
           region_zones: Sequence[str]) -> Check:
    """eksctl takes only zones that offer every group's type, and EKS wants two; where the file names zones, those count."""
    name, later = "two zones for the cluster", "about 1 min, then eksctl refuses"
    if asked:
        return Check(name, "pass" if len(set(asked)) >= TWO_ZONES else "fail", f"cluster.yaml names {', '.join(asked)}",
                     "name two zones in availabilityZones in cluster.yaml", later)
    both = sorted(set(region_zones).intersection(*(offers.get(g.instance_type, set()) for g in groups)))
    if len(both) >= TWO_ZONES:
        return Check(name, "pass", f"{', '.join(both)} offer every type", "", later)
    some = ", ".join([*both, *(z for z in region_zones if z not in both)][:TWO_ZONES])
    return Check(name, "fail", f"{both[0]} alone offers every type" if both else "no zone offers every type",
                 f"set availabilityZones: [{some}] in cluster.yaml, and one for each group that its type is offered in", later)


def newest_gpu(group: NodeGroup) -> bool:
    """The group's GPU is newer than the driver in Amazon's images."""
    return group.instance_type.startswith("g7.")


def driver(group: NodeGroup, image_text: str) -> Check:
    """G7 needs driver 595. `image_text`: what the group's image says of itself.

    On Ubuntu the operator brings the driver (595 since chart v26.7.0); on Amazon Linux the image does.
    """
    name, later = f"{group.name}: the driver knows the GPU", "25 min, then a node without a GPU to give"
    if group.ami_family.startswith("Ubuntu"):
        return Check(name, "pass", f"the GPU operator installs {G7_DRIVER} or newer (chart v26.7.0)", "", later)
    stated = re.search(r"nvidia\D{0,30}(\d{3})\.\d", image_text, re.IGNORECASE)
    if stated and int(stated[1]) >= G7_DRIVER:
        return Check(name, "pass", f"the image carries {stated[1]}", "", later)
    carried = f"the image carries {stated[1]}" if stated else "AL2023's NVIDIA image carried 580 when read (2026-08)"
    return Check(name, "fail", f"G7 needs driver {G7_DRIVER}, {carried}",
                 f"set amiFamily: Ubuntu2404 for {group.name} in cluster.yaml, or a type such as g6.xlarge", later)
