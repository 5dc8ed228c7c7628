"""cluster.yaml, read once into frozen, validated models.

The file is eksctl's own ClusterConfig and is checked against eksctl's own schema, so what passes here is what
eksctl reads. Only the part that the runbook needs is kept.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gpurunbook import gpu_facts, yaml_file
from gpurunbook.errors import ConfigError
from gpurunbook.gpu_stack import values_of
from gpurunbook.programs import eksctl
from gpurunbook.yaml_file import wrong as _wrong

MAX_BYTES = 64 * 2**10
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
"""What CloudFormation takes in a stack's name and Kubernetes in a label's value: both carry these names."""
GPU_TYPE = re.compile(r"^(g\d|gr\d|p\d)[a-z0-9-]*\.")
"""EC2 families with NVIDIA GPUs: G, Gr and P (g4ad has AMD GPUs). Source: the EC2 instance type list."""
NOT_NVIDIA = re.compile(r"^g4ad\.")

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Taint(Frozen):
    """A taint that every node of a group gets."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeGroup(Frozen):
    """One node group. `volume_gib` in GiB; `gpu` by the instance family, or picked for its GPUs by `label` (KEY=VALUE,...)."""

    name: str
    instance_type: str
    desired: int
    min: int
    max: int
    volume_gib: int
    ami_family: str
    ami: str
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    zones: tuple[str, ...]
    managed: bool
    label: str = ""

    @property
    def gpu(self) -> bool:
        return bool(self.label) or is_gpu(self.instance_type)

    @property
    def selector(self) -> str:
        """The label selector that the nodes of this group answer to: eksctl's, unless a label was given."""
        return self.label or f"alpha.eksctl.io/nodegroup-name={self.name}"

    @property
    def picks(self) -> dict[str, str]:
        """The selector as labels: a pod's nodeSelector."""
        return dict(pair.split("=", 1) for pair in self.selector.split(","))


class ClusterConfig(Frozen):
    """The cluster that cluster.yaml describes.

    Attributes:
        warnings: sentences for people.
        support: upgradePolicy.supportType.
        default_addons: eksctl installs the usual add-ons (CNI, proxy, DNS).
    """

    path: Path
    name: str
    region: str
    version: str
    groups: tuple[NodeGroup, ...]
    warnings: tuple[str, ...]
    support: str = "EXTENDED"
    default_addons: bool = True

    @property
    def gpu_group(self) -> NodeGroup:
        return next(g for g in self.groups if g.gpu and g.desired > 0)

    @property
    def gpu_stack(self) -> str:
        """Name of the values file in manifests/gpu-operator: who brings driver and toolkit.

        Where the planner knows none, on a cluster of somebody's, the one that leaves the host's driver and toolkit alone.
        """
        return values_of(self.gpu_group.ami_family, self.gpu_group.instance_type) or "al2023"


def is_gpu(instance_type: str) -> bool:
    return bool(GPU_TYPE.match(instance_type)) and not NOT_NVIDIA.match(instance_type)


def locate(folder: Path, file: str, option: str = "--cluster-file") -> Path:
    """Where a file is that a person named from a folder. Raises ConfigError for what can be no file's name."""
    try:
        (path := (folder / file).resolve()).exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long; a NUL or half a character; a loop of links
        raise ConfigError(f"{file[:60]!r} can be no file: {getattr(error, 'strerror', None) or 'no file has such a name'}",
                          where=option, next="name a file that is there") from error
    return path


def load_cluster(path: Path, today: dt.date | None = None, *, whole: bool = True) -> ClusterConfig:
    """Read and check cluster.yaml; without `whole`, one to take down: name and region are enough.

    Raises:
        ConfigError: naming the file, the key, and what was expected there.
    """
    document = _read(path)
    problem = eksctl.schema_problem(document)
    if problem:
        raise _wrong(path, *problem)
    groups = tuple(_group(g, managed) for key, managed in (("nodeGroups", False), ("managedNodeGroups", True))
                   for g in document.get(key) or [])
    meta = document["metadata"]
    named = [("metadata.name", meta["name"]), *((f"{_key(g)}.name", g.name) for g in groups)]
    for key, name in named:
        if not NAME.fullmatch(name):
            raise _wrong(path, key, f"expected at most 63 letters, digits and hyphens, found {name!r}")
    names = [g.name for g in groups]
    for group in groups:
        if names.count(group.name) > 1:
            raise _wrong(path, _key(group), "two groups have this name; every group needs a name of its own")
        for taint in group.taints:
            if not taint.key or taint.effect not in EFFECTS:
                raise _wrong(path, f"{_key(group)}.taints", f"expected a key, and an effect of {', '.join(EFFECTS)}")
        if not 0 <= group.min <= group.desired <= group.max:
            raise _wrong(path, f"{_key(group)}.desiredCapacity",
                         f"expected 0 <= minSize <= desiredCapacity <= maxSize, found {group.min}, {group.desired}, "
                         f"{group.max}")
    if whole and not any(g.gpu and g.desired > 0 for g in groups):
        raise _wrong(path, "nodeGroups", "no group with an NVIDIA GPU instance type (such as g4dn.xlarge) and "
                                         "desiredCapacity of at least 1")
    version = str(meta.get("version") or "")
    return ClusterConfig(path=path, name=meta["name"], region=meta["region"], version=version, groups=groups,
                         warnings=tuple(_warnings(version, groups, document, today or dt.date.today())),
                         support=(document.get("upgradePolicy") or {}).get("supportType") or "EXTENDED",
                         default_addons=not ((document.get("addonsConfig") or {}).get("disableDefaultAddons")
                                             or (document.get("autoModeConfig") or {}).get("enabled")))


def _key(group: NodeGroup) -> str:
    return f"{'managedNodeGroups' if group.managed else 'nodeGroups'}[{group.name}]"


def _group(group: dict[str, Any], managed: bool) -> NodeGroup:
    mixed = (group.get("instancesDistribution") or {}).get("instanceTypes") or group.get("instanceTypes") or []
    one = group.get("instanceType")
    low = group.get("minSize")
    desired = group.get("desiredCapacity", low if low is not None else 2)
    return NodeGroup(
        name=group["name"], instance_type=one if one not in (None, "mixed") else mixed[0] if mixed else "m5.large",
        desired=desired, min=low if low is not None else desired, max=group.get("maxSize", max(desired, low or 0)),
        volume_gib=group.get("volumeSize") or 80, ami_family=group.get("amiFamily") or "AmazonLinux2023",
        ami=group.get("ami") or "", labels={str(k): v for k, v in group.get("labels", {}).items()},
        taints=tuple(Taint(**taint) for taint in group.get("taints", [])),
        zones=tuple(group.get("availabilityZones") or ()), managed=managed)


def _warnings(version: str, groups: tuple[NodeGroup, ...], document: dict[str, Any], today: dt.date) -> list[str]:
    warnings, known = [], gpu_facts.facts()
    ends, newest = known.ends, max(known.ends, key=_minor)
    if not version:
        warnings.append(f"metadata.version is not set: eksctl would choose for you; say {newest!r}")
    elif _minor(version) < _minor(min(ends, key=_minor)) or (version in ends and ends[version] < today):
        warnings.append(f"Kubernetes {version} is out of support on EKS: AWS refuses to create it; "
                        f"say version: \"{newest}\"")
    elif version in ends and (days := (ends[version] - today).days) <= 90:
        warnings.append(f"Kubernetes {version} leaves its present support on {ends[version]}, in {days} days")
    if (document.get("upgradePolicy") or {}).get("supportType") != "STANDARD":
        warnings.append("upgradePolicy.supportType is not STANDARD: after standard support ends the control plane "
                        "is billed at the extended rate")
    for group in groups:
        series = group.ami_family.removeprefix("UbuntuPro").removeprefix("Ubuntu")
        if series in known.ubuntu:
            first, last = known.ubuntu[series]
            if version and (_minor(version) < _minor(first) or (last and _minor(version) > _minor(last))):
                warnings.append(f"{group.name}: {group.ami_family} has no EKS image for Kubernetes {version}")
            elif last and _minor(last) < _minor(min(ends, key=_minor)):
                warnings.append(f"{group.name}: {group.ami_family} images exist only up to Kubernetes {last}; "
                                f"today's form is Ubuntu2404")
        if group.ami.startswith("ami-"):
            warnings.append(f"{group.name}: the image {group.ami} is pinned; images are per region and are "
                            f"withdrawn with their Kubernetes version, so it may no longer exist")
    return warnings


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _read(path: Path) -> dict[str, Any]:
    document = yaml_file.load(path, most=MAX_BYTES)
    if document is None:
        raise _wrong(path, "", "expected an eksctl ClusterConfig; the file is empty")
    if not isinstance(document, dict):
        raise _wrong(path, "", f"expected an eksctl ClusterConfig, found a {type(document).__name__}")
    return document
