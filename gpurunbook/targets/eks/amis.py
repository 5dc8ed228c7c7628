"""Machine images: SSM names one, EC2 must show it. A name alone proves nothing (mountpoint-s3-csi-driver#838).

Parameter names as eksctl builds them (0.230, pkg/ami/ssm_resolver.go), so that what is found here is what eksctl takes.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook import gpu_facts
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.versions import minor

if TYPE_CHECKING:
    from gpurunbook.config import NodeGroup

UBUNTU = re.compile(r"Ubuntu(Pro)?(\d\d)(\d\d)")
FAMILIES = "AmazonLinux2023, Bottlerocket, Ubuntu2204, Ubuntu2404, Ubuntu2604"
ARM = re.compile(r"(a1|[a-z]+\d+g[a-z]*|p6e-gb\d+)\.")
"""Families with Graviton or Grace CPUs: a g after the number, as in m7g and g5g."""
AMAZON = ("amazon-eks-node-", "amazon-eks-gpu-node-", "amazon-eks-arm64-node-", "bottlerocket-")
"""How the names of Amazon's images begin; Canonical's begin with ubuntu-eks."""
SKEW = 3
"""Minor versions that a kubelet may be older than its API server. Source: Kubernetes' version skew policy."""
LATER = "15 to 25 min, then nodes that never join, or join without a GPU"


@dataclass(frozen=True)
class Image:
    """An image that EC2 shows.

    Attributes:
        parameter: the SSM parameter that names it; "" for one that cluster.yaml pins.
        release_version: what pins it in a managed group; "" where its maker gives none.
        created, deprecated: days; None where AWS says nothing.
        state: available, or why it cannot be started.
        root_gib: the least size of its root volume, in GiB.
    """

    id: str
    name: str
    description: str
    parameter: str
    release_version: str
    created: dt.date | None
    deprecated: dt.date | None
    state: str
    arch: str
    root_gib: int

    @property
    def text(self) -> str:
        """What the image says of itself."""
        return f"{self.name} {self.description}"


def parameter(kubernetes: str, family: str, *, gpu: bool = True, arch: str = "x86_64") -> tuple[str, str]:
    """The SSM parameters of the newest image: of its id, and of its release version ("" where there is none).

    Raises RunbookError for a family without one.
    """
    if family == "AmazonLinux2023":
        kind = "nvidia" if gpu else "standard"
        base = f"/aws/service/eks/optimized-ami/{kubernetes}/amazon-linux-2023/{arch}/{kind}/recommended"
        return f"{base}/image_id", f"{base}/release_version"
    if family == "Bottlerocket":
        base = f"/aws/service/bottlerocket/aws-k8s-{kubernetes}{'-nvidia' if gpu else ''}/{arch}/latest"
        return f"{base}/image_id", f"{base}/image_version"
    if ubuntu := UBUNTU.fullmatch(family):
        pro, year, month = ubuntu.groups()
        disk = "ebs-gp2" if int(year) < 24 else "ebs-gp3"
        return (f"/aws/service/canonical/ubuntu/{'eks-pro' if pro else 'eks'}/{year}.{month}/{kubernetes}/stable/current/"
                f"{'arm64' if arch == 'arm64' else 'amd64'}/hvm/{disk}/ami-id", "")
    raise RunbookError(f"no parameter names an image of the family {family}", where="amiFamily in cluster.yaml",
                       next=f"set amiFamily to one of {FAMILIES}")


def look_up(account: Account, kubernetes: str, family: str, *, gpu: bool = True, arch: str = "x86_64") -> Image:
    """The newest image for a Kubernetes version and a family: named by SSM, and shown by EC2.

    Raises:
        AwsError: AWS refused or did not answer, so it is not known.
        RunbookError: there is no such image, or it cannot be seen from this account.
    """
    name, release = parameter(kubernetes, family, gpu=gpu, arch=arch)
    answer = account.call("ssm", "get_parameters", Names=[n for n in (name, release) if n])
    values = {p["Name"]: p["Value"] for p in answer.get("Parameters", [])}
    if name not in values:
        first, last = gpu_facts.facts().ubuntu.get(family.removeprefix("UbuntuPro").removeprefix("Ubuntu"), ("", ""))
        known = f" (its images are for {first} to {last or 'the newest'})" if first else ""
        raise RunbookError(f"{family} has no image for Kubernetes {kubernetes} in {account.region}{known}", where=f"ssm: {name}",
                           next=_try_another(account.region, kubernetes, family))
    image = visible(account, values[name], parameter=name, release_version=values.get(release, ""))
    if image is None:
        raise RunbookError(f"SSM names {values[name]} for {family} {kubernetes}, and EC2 does not show it in {account.region}",
                           where=f"ssm: {name}", next=_try_another(account.region, kubernetes, family))
    return image


def _try_another(region: str, kubernetes: str, family: str) -> str:
    other = "Ubuntu2404" if family == "AmazonLinux2023" else "AmazonLinux2023"
    return f"gpurunbook ami --region {region} --kubernetes {kubernetes} --family {other}, then set that amiFamily in cluster.yaml"


def visible(account: Account, image_id: str, *, parameter: str = "", release_version: str = "") -> Image | None:
    """The image as EC2 shows it to this account, None when it does not. Raises AwsError."""
    try:
        found = account.call("ec2", "describe_images", ImageIds=[image_id], IncludeDeprecated=True)["Images"]
    except AwsError as error:
        if error.absent or error.code in ("InvalidAMIID.Unavailable", "InvalidAMIID.Malformed"):
            return None
        raise
    shown = next((item for item in found if item["ImageId"] == image_id), None)
    return _image(shown, parameter, release_version) if shown else None


def _image(item: Mapping[str, Any], parameter: str, release_version: str) -> Image:
    root = next((d["Ebs"].get("VolumeSize", 0) for d in item.get("BlockDeviceMappings", [])
                 if d.get("DeviceName") == item.get("RootDeviceName") and "Ebs" in d), 0)
    serial = re.search(r"-v?(20\d{6}(?:\.\d+)?)$", item.get("Name", ""))
    return Image(item["ImageId"], item.get("Name", ""), item.get("Description", ""), parameter,
                 release_version or (serial[1] if serial else ""), _date(item.get("CreationDate")),
                 _date(item.get("DeprecationTime")), item.get("State", ""), item.get("Architecture", ""), root)


def _date(text: str | None) -> dt.date | None:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).date() if text else None


def of_group(account: Account, group: NodeGroup, kubernetes: str) -> Image:
    """The image that a node group will start: the one cluster.yaml pins, else the newest of its family.

    Raises AwsError when it is not known, RunbookError when there is none.
    """
    if group.ami.startswith("ami-"):
        image = visible(account, group.ami)
        if image is None:
            raise RunbookError(
                f"{group.ami} is not to be seen in {account.region}: images are per region, and are withdrawn",
                where=f"ami of {group.name} in cluster.yaml",
                next=f"delete the line `ami: {group.ami}` in cluster.yaml: amiFamily finds one")
        return image
    return look_up(account, kubernetes, group.ami_family, gpu=group.gpu, arch=arch_of(group.instance_type))


def arch_of(instance_type: str) -> str:
    return "arm64" if ARM.match(instance_type) else "x86_64"


def check(image: Image, group: NodeGroup, kubernetes: str, today: dt.date, *, region: str) -> Check:
    """Does the image fit the group: is it usable, of the right variant, version and size?"""
    name = f"{group.name}: image"
    how = f"{'pinned' if not image.parameter else group.ami_family} {image.id} {image.name}"
    evidence = f"{how}, made {image.created}" if image.created else how
    new = (f"delete the line `ami: {image.id}` in cluster.yaml" if not image.parameter
           else _try_another(region, kubernetes, group.ami_family))
    if image.state != "available":
        return Check(name, "fail", f"{evidence}: its state is {image.state or 'unknown'}", new, LATER)
    if image.arch != (arch := arch_of(group.instance_type)):
        return Check(name, "fail", f"{evidence}: built for {image.arch or 'an unknown CPU'}, {group.instance_type} is {arch}",
                     new, LATER)
    if image.root_gib > group.volume_gib:
        return Check(name, "fail", f"{evidence}: needs {image.root_gib} GiB, volumeSize is {group.volume_gib}",
                     f"set volumeSize of {group.name} in cluster.yaml to more than {image.root_gib}", LATER)
    if wrong := misfit(image.name, group):
        return Check(name, "fail", f"{evidence}: {wrong}", new, LATER)
    behind = _behind(image.name, kubernetes)
    if behind is not None and not 0 <= behind <= SKEW:
        return Check(name, "fail", f"{evidence}: made for another version than {kubernetes}", new, LATER)
    if behind:
        return Check(name, "warn", f"{evidence}: {behind} minor version{'s' * (behind > 1)} older than {kubernetes}", new, LATER)
    if image.deprecated and image.deprecated <= today:
        return Check(name, "warn", f"{evidence}: deprecated since {image.deprecated}, may be withdrawn any day", new, LATER)
    if group.gpu and not group.ami_family.startswith("Ubuntu") and "nvidia" not in image.name and "-gpu-" not in image.name:
        return Check(name, "warn", f"{evidence}: its name does not tell whether it carries NVIDIA's driver", new, LATER)
    return Check(name, "pass", evidence, "", LATER)


def misfit(image_name: str, group: NodeGroup) -> str:
    """Why an image of that name cannot serve the group; "" when nothing speaks against it (amazon-eks-ami#1817)."""
    amazon = image_name.startswith(AMAZON)
    if amazon and group.ami_family.startswith("Ubuntu"):
        return f"an Amazon image, and amiFamily is {group.ami_family}: nodes would be started the wrong way"
    if not group.gpu:
        return ""
    if "-standard-" in image_name:
        return "the standard variant has no NVIDIA driver: 0 GPUs"
    if amazon and "-nvidia-" not in image_name and "-gpu-" not in image_name:
        return "not the nvidia variant, so it has no NVIDIA driver: 0 GPUs"
    return ""


def _behind(image_name: str, kubernetes: str) -> int | None:
    """Minor versions that the image's kubelet, by its name, is older than the cluster; None when the name does not say."""
    stated = re.search(r"(?:k8s[_-]|-)(1\.\d+)(?=[/-])", image_name)
    if not stated or not image_name.startswith((*AMAZON, "ubuntu-eks")) or not minor(kubernetes)[1:]:
        return None
    return minor(kubernetes)[1] - minor(stated[1])[1]
