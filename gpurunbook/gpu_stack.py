"""The GPU stack planner: from image family, EC2 type and Kubernetes version to eksctl flags, Helm values, and who supports it.

Pure: versions and dates come in as gpurunbook.gpu_facts.Facts. What a GPU is does not age, and stands here.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpurunbook import show
from gpurunbook.gpu_facts import SOON_DAYS, Facts, minor

Support = Literal["NVIDIA-supported", "AWS-documented, not NVIDIA-supported", "not supported"]
NVIDIA: Support = "NVIDIA-supported"
AWS: Support = "AWS-documented, not NVIDIA-supported"
NOBODY: Support = "not supported"
MARKS = {NVIDIA: "pass", AWS: "warn", NOBODY: "fail"}

NO_PLUGIN = "--install-nvidia-plugin=false"
UBUNTU = re.compile(r"Ubuntu(Pro)?(\d{4})")
FAMILIES = ("Ubuntu2004", "UbuntuPro2004", "Ubuntu2204", "UbuntuPro2204", "Ubuntu2404", "UbuntuPro2404", "Ubuntu2604",
            "UbuntuPro2604", "AmazonLinux2", "AmazonLinux2023", "Bottlerocket", "BottlerocketFips",
            *(f"WindowsServer{year}{kind}Container" for year in (2019, 2022, 2025) for kind in ("Core", "Full")))
"""amiFamily in eksctl's schema (0.231)."""
OS_NAMES = ((r"Ubuntu (\d\d)\.(\d\d)", r"Ubuntu\1\2"), (r"Amazon Linux (2023|2)\b", r"AmazonLinux\1"),
            (r"Bottlerocket ", "Bottlerocket"))
"""How such images name themselves in a node's status.nodeInfo.osImage."""
OTHERS = ((r"g4ad", "GPUs of AMD's"), (r"inf\d|trn\d", "AWS's Neuron chips"), (r"dl\d|vt\d|f\d", "other accelerators"))


@dataclass(frozen=True)
class Gpu:
    """What an EC2 family carries. `arm`: beside an Arm CPU; `virtual`: a part of a GPU, by NVIDIA's GRID driver."""

    name: str
    generation: str
    arm: bool = False
    virtual: bool = False


GPUS = {
    "g4dn": Gpu("T4", "Turing"), "g5": Gpu("A10G", "Ampere"), "g5g": Gpu("T4G", "Turing", arm=True), "g6": Gpu("L4", "Ada"),
    "g6e": Gpu("L40S", "Ada"), "g6f": Gpu("part of an L4", "Ada", virtual=True), "gr6": Gpu("L4", "Ada"),
    "gr6f": Gpu("part of an L4", "Ada", virtual=True), "g7": Gpu("RTX PRO 4500", "Blackwell"),
    "g7e": Gpu("RTX PRO 6000", "Blackwell"), "p3": Gpu("V100", "Volta"), "p3dn": Gpu("V100", "Volta"),
    "p4d": Gpu("A100", "Ampere"), "p4de": Gpu("A100", "Ampere"), "p5": Gpu("H100", "Hopper"), "p5e": Gpu("H200", "Hopper"),
    "p5en": Gpu("H200", "Hopper"), "p6-b200": Gpu("B200", "Blackwell"), "p6-b300": Gpu("B300", "Blackwell"),
    "p6e-gb200": Gpu("GB200", "Blackwell", arm=True),
}
"""EC2 family -> its GPU. Source: the EC2 pages on accelerated instance types."""
LIKE_NVIDIA = re.compile(r"(g|gr|p)\d[a-z0-9-]*")


@dataclass(frozen=True)
class Choice:
    """One line of a recipe: what is chosen, how, and why in a sentence."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Recipe:
    """How GPUs of a kind get usable.

    Attributes:
        values: the Helm values file in manifests/gpu-operator, without .yaml; "" when the operator is not to be installed.
        flags: of `eksctl create cluster` and `create nodegroup`.
        settings: the chart's settings that the values file decides, by their dotted names.
        warnings: sentences; those that make it `not supported` first.
    """

    family: str
    instance_type: str
    kubernetes: str
    support: Support
    values: str
    flags: tuple[str, ...]
    settings: Mapping[str, bool | str]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        kubernetes = f", Kubernetes {self.kubernetes}" if self.kubernetes else ""
        return f"{self.family or 'any image'} on {self.instance_type or 'a GPU node'}{kubernetes}: {self.support}"

    @property
    def table(self) -> show.Table:
        """Line by line: what, choice, why; last the warnings that the support's line has not said."""
        rows = [(c.what, c.value, c.why) for c in self.choices]
        rows += [("warning", "", warning) for warning in self.warnings if warning not in self.choices[0].why]
        states = [MARKS[self.support], *("warn" if what == "warning" else self._mark for what, *_ in rows[1:])]
        return show.Table(("what", "choice", "why"), rows, self.title, states)

    @property
    def _mark(self) -> str:
        """Of a choice: nothing is good about the parts of a stack that nobody supports."""
        return "unknown" if MARKS[self.support] == "fail" else "pass"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"title": self.title}


def family_of(image: str) -> str:
    """eksctl's name of an image family, also for what a node says of its operating system."""
    for pattern, name in OS_NAMES:
        if found := re.match(pattern, image):
            return found.expand(name)
    return image


def values_of(family: str, instance_type: str) -> str:
    """Which values file in manifests/gpu-operator fits, without .yaml; "" when none does. It depends on no version."""
    family, kind = family_of(family), instance_type.partition(".")[0]
    if kind and not _nvidia(kind):
        return ""
    if UBUNTU.fullmatch(family):
        return "ubuntu-volta" if kind in GPUS and GPUS[kind].generation == "Volta" else "ubuntu"
    return "al2023" if family.startswith("AmazonLinux") else "bottlerocket" if family.startswith("Bottlerocket") else ""


def _nvidia(kind: str) -> bool:
    return bool(LIKE_NVIDIA.fullmatch(kind)) and not any(re.fullmatch(pattern, kind) for pattern, _ in OTHERS)


def plan_stack(family: str, instance_type: str, kubernetes: str, *, known: Facts, today: dt.date,
               managed: bool = False) -> Recipe:
    """The recipe for nodes of an image family and an EC2 type in a cluster of a Kubernetes version.

    Args:
        family: eksctl's amiFamily, or a node's osImage.
        instance_type: such as "g4dn.xlarge"; "" when it is not known, on a cluster that is there already.
        kubernetes: such as "1.36"; "" when cluster.yaml leaves it open.
        managed: the node group is EKS's (managedNodeGroups), not eksctl's own.
    """
    family, kind = family_of(family), instance_type.partition(".")[0]
    version = ".".join(map(str, minor(kubernetes)))
    values = values_of(family, instance_type)
    troubles = [*_no_gpu(kind), *(_image(family, version, known) if not kind or _nvidia(kind) else ()),
                *(_type(family, kind, values, known) if values else ()), *(_kubernetes(version, known, today) if values else ())]
    support = NOBODY if troubles else NVIDIA if values.startswith("ubuntu") else AWS
    settings = _settings(values, known)
    choices = [Choice("support", support, "; ".join(troubles) or _vouched(support, family, known))]
    if values:
        choices += _choices(values, settings, known, version)
    else:
        choices.append(Choice("GPU operator", "not installed", troubles[0]))
    warnings = (*troubles, *(_notes(family, kind, version, managed, known, today) if values else ()))
    return Recipe(family, instance_type, version, support, values, (NO_PLUGIN,) if values else (), settings, tuple(choices),
                  warnings)


def _vouched(support: Support, family: str, known: Facts) -> str:
    if support == NVIDIA:
        return (f"NVIDIA's platform support page lists {family} on EKS with Kubernetes {known.kubernetes[0]} to "
                f"{known.kubernetes[1]} for chart {known.chart}")
    issue = "gpu-driver-container#416" if family.startswith("Bottlerocket") else "gpu-operator#1492"
    return f"AWS's user guide says how the operator goes with this image; NVIDIA does not list it (NVIDIA/{issue})"


# What makes a recipe `not supported`

def _no_gpu(kind: str) -> Iterator[str]:
    other = next((what for pattern, what in OTHERS if re.fullmatch(pattern, kind)), "")
    if kind and not _nvidia(kind):
        yield f"{kind} has {other or 'no GPU'}: NVIDIA's operator has nothing to do there"


def _image(family: str, version: str, known: Facts) -> Iterator[str]:
    ubuntu = UBUNTU.fullmatch(family)
    if family.startswith("Windows"):
        yield "neither the operator nor its driver container runs on Windows nodes"
    elif family in known.ended:
        yield f"{family} was ended by its maker on {known.ended[family]}: no new images, and none for later Kubernetes versions"
    elif ubuntu:
        first, last = known.ubuntu.get(ubuntu[2], ("", ""))
        if not first:
            yield f"no EKS image of {family} is known"
        elif version and (minor(version) < minor(first) or (last and minor(version) > minor(last))):
            yield f"{family} has EKS images for Kubernetes {first} to {last or 'the newest'}, none for {version}"
        if ubuntu[2] not in known.supported_ubuntu:
            yield f"NVIDIA's platform support page does not list {family} for chart {known.chart}"
    elif not values_of(family, ""):
        yield f"nothing is known of GPUs on {family or 'an image without a name'}"


def _type(family: str, kind: str, values: str, known: Facts) -> Iterator[str]:
    image = known.images.get(family.removesuffix("Fips"))
    if kind and kind not in GPUS:
        yield f"{kind} is none of the GPU families known here"
    elif kind and image and kind not in image.types:
        yield f"AWS does not list {kind} for the image {family} with NVIDIA's driver {image.driver}"
    elif kind and values.startswith("ubuntu") and GPUS[kind].virtual:
        yield f"{kind} has a part of a GPU, which takes NVIDIA's GRID driver: the operator's driver container has the other one"


def _kubernetes(version: str, known: Facts, today: dt.date) -> Iterator[str]:
    low, high = known.kubernetes
    if version and not minor(low) <= minor(version) <= minor(high):
        yield f"NVIDIA supports chart {known.chart} on Kubernetes {low} to {high}, not on {version}"
    life, day = known.life(version, today) if version else ("unknown", None)
    if life == "left":
        yield f"Kubernetes {version} is out of support on EKS{f' since {day}' if day else ''}: AWS refuses to create it"
    if known.line not in ("supported", "deprecated"):
        yield f"NVIDIA calls the line of chart {known.chart} {known.line}"


# What should be known besides

def _notes(family: str, kind: str, version: str, managed: bool, known: Facts, today: dt.date) -> Iterator[str]:
    ubuntu, gpu, image = UBUNTU.fullmatch(family), GPUS.get(kind), known.images.get(family.removesuffix("Fips"))
    life, day = known.life(version, today) if version else ("unknown", None)
    if not version:
        yield "no Kubernetes version is named, so eksctl would choose one"
    elif life == "unknown":
        yield f"Kubernetes {version} on EKS is not in the file of {known.dated}"
    elif life == "extended":
        yield f"Kubernetes {version} is in extended support on EKS: its control plane is billed at the extended rate"
    elif day and 0 <= (day - today).days <= SOON_DAYS:
        yield f"Kubernetes {version} leaves standard support on EKS on {day}, in {(day - today).days} days"
    if known.line == "deprecated":
        yield f"NVIDIA calls the line of chart {known.chart} deprecated: only critical faults are mended"
    if ubuntu and managed:
        yield "managed groups of Ubuntu with GPUs are reported broken (eksctl#6452, #6499): take a self-managed nodeGroup"
    if ubuntu and ubuntu[1]:
        yield "NVIDIA's page names Ubuntu LTS, and not Pro by name"
    if ubuntu and ubuntu[2] == "2604" and gpu and gpu.generation in known.last_for:
        yield f"whether there is a driver container {known.last_for[gpu.generation]} for Ubuntu 26.04 was not found out"
    if image and kind in image.since:
        yield f"{kind} needs the image's release {image.since[kind]} or later: do not pin an older one"
    if family.startswith("Bottlerocket"):
        yield ("pods of the operator that ask for all GPUs by an environment variable may be refused by the image "
               "(bottlerocket#3992): look at the validator's pod")
    if family.endswith("Fips"):
        yield f"whether {family} has an image with NVIDIA's driver was not found out"
    if gpu and gpu.arm:
        yield f"{kind} has an Arm CPU: the model's image must be built for arm64"


# What is chosen, and why

def _settings(values: str, known: Facts) -> dict[str, bool | str]:
    """The chart's settings that a values file stands for. The operator's device plug-in is on unless the image has one."""
    if not values:
        return {}
    ours = values.startswith("ubuntu")
    older = {"driver.version": known.last_for.get("Volta", known.driver)} if values == "ubuntu-volta" else {}
    return {"driver.enabled": ours, **older, "toolkit.enabled": ours, "devicePlugin.enabled": values != "bottlerocket",
            "validator.plugin.env WITH_WORKLOAD": "false", "operator.cleanupCRD": True}


def _choices(values: str, settings: Mapping[str, bool | str], known: Facts, version: str) -> Iterator[Choice]:
    ours, own_plugin = values.startswith("ubuntu"), values == "bottlerocket"
    dra = ("; AWS recommends the DRA driver for new clusters from 1.34 on, and this way stays valid"
           if minor(version) >= (1, 34) else "")
    why = {
        "driver.enabled": (f"Canonical's image has no driver: the operator's container brings {known.driver}" if ours
                           else "the image brings the driver, and there is no driver container for it"),
        "driver.version": f"driver {known.driver} ignores Volta; this is the last branch for it",
        "toolkit.enabled": ("Canonical's image has no container toolkit: the operator brings it" if ours
                            else "the image brings the toolkit; a second one would rewrite containerd's configuration"),
        "devicePlugin.enabled": ("the image runs a device plug-in of its own as a service of the host: two would report the same "
                                 "GPUs; nvidia.com/gpu comes from the image" if own_plugin
                                 else f"nothing else on the node reports nvidia.com/gpu{dra}"),
        "validator.plugin.env WITH_WORKLOAD": "the validator's own GPU pod never ends on a one-GPU node where a model's pod "
                                              "already waits (NVIDIA/gpu-operator#233)",
        "operator.cleanupCRD": "helm leaves CRDs behind otherwise, and teardown should leave nothing",
    }
    if ours:
        why["driver.enabled"] = why["driver.enabled"].replace(known.driver, str(settings.get("driver.version", known.driver)))
    yield Choice("eksctl", NO_PLUGIN, "the operator or the image brings the device plug-in: eksctl's would be a second one, on "
                                      "CPU nodes too (eksctl#8858)")
    yield Choice("chart", known.chart, f"pinned on {known.dated}; NVIDIA calls its line {known.line}")
    yield Choice("values", f"{values}.yaml", "the file in manifests/gpu-operator with the settings below")
    for name, value in settings.items():
        yield Choice(name, str(value).lower(), why[name])
    yield Choice("default runtime", "as it is" if ours else "nvidia, by the image",
                 "the toolkit puts NVIDIA's beside it, and CDI hands out the GPUs" if ours else
                 "NVIDIA requires it where the toolkit is not the operator's; the image sets it on GPU types by itself")
