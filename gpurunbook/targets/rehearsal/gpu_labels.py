"""What NFD, NVIDIA's operator and GPU feature discovery write on a node, as pure functions of the node.

The hardware of a rehearsal node is what `cluster.py` writes in its annotations: `gpurunbook.dev/gpus` (a count),
`gpurunbook.dev/gpu-product` (as GPU feature discovery spells it, `Tesla-T4`) and `gpurunbook.dev/gpu-memory-mib`.

Sources, names and values only: NVIDIA/gpu-operator v26.7.0 (controllers/state_manager.go, nodelabeling_controller.go,
NFD's settings in the chart's values.yaml: device labels carry the vendor alone) and NVIDIA's list of GFD labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
Labels = dict[str, str]

GPUS = "gpurunbook.dev/gpus"
PRODUCT = "gpurunbook.dev/gpu-product"
MEMORY = "gpurunbook.dev/gpu-memory-mib"
"""Annotations of a node: count per node, product name, MiB per GPU."""

NFD = "feature.node.kubernetes.io/"
OS_ID, OS_VERSION = f"{NFD}system-os_release.ID", f"{NFD}system-os_release.VERSION_ID"
RESOURCE = "nvidia.com/gpu"
PRESENT = "nvidia.com/gpu.present"
DEPLOY = "nvidia.com/gpu.deploy."
MIG_MANAGER = f"{DEPLOY}mig-manager"
DEPLOYED = tuple(DEPLOY + operand for operand in (
    "driver", "gpu-feature-discovery", "container-toolkit", "device-plugin", "dcgm", "dcgm-exporter",
    "node-status-exporter", "operator-validator", "client"))
OPERATORS = frozenset((PRESENT, MIG_MANAGER, *DEPLOYED))
"""The labels that the operator writes (`nvidia.com/gpu.deploy.operands` is a person's)."""
GPU_MARKS = tuple(f"{NFD}pci-{device}.present" for device in ("10de", "0302_10de", "0300_10de"))

# For a node that does not say what it runs; only the shape of the kernel's name matters here.
UBUNTU, UBUNTU_KERNEL = ("ubuntu", "24.04"), "6.14.0-1018-aws"
BOTTLEROCKET = "1.50.0"


class Architecture(NamedTuple):
    """What GPU feature discovery says of a product: family, compute capability, whether MIG can split it."""

    family: str
    compute: str
    mig: bool = False


PRODUCTS: Mapping[str, Architecture] = {
    "Tesla-T4": Architecture("turing", "7.5"),
    "NVIDIA-A10G": Architecture("ampere", "8.6"),
    "NVIDIA-L4": Architecture("ada-lovelace", "8.9"),
    "NVIDIA-L40S": Architecture("ada-lovelace", "8.9"),
    "Tesla-V100-SXM2-16GB": Architecture("volta", "7.0"),
    "NVIDIA-A100-SXM4-40GB": Architecture("ampere", "8.0", mig=True),
    "NVIDIA-H100-80GB-HBM3": Architecture("hopper", "9.0", mig=True),
}


def gpus(node: Object) -> int:
    """How many GPUs the node's hardware has."""
    return int(node["metadata"].get("annotations", {}).get(GPUS, "0"))


def has_plugin(node: Object) -> bool:
    """Whether the node's own image reports its GPUs to the kubelet: Bottlerocket's device plug-in is a service, not a pod."""
    image: str = node.get("status", {}).get("nodeInfo", {}).get("osImage", "")
    return image.startswith("Bottlerocket")


def is_gpu_node(labels: Labels) -> bool:
    """Whether the operator takes a node with these labels for one with a GPU of NVIDIA's (any of NFD's spellings)."""
    return any(labels.get(mark) == "true" for mark in GPU_MARKS)


def nfd(node: Object, *, pci: bool = True) -> Labels:
    """NFD's labels, with the settings of NVIDIA's chart: PCI vendors (`pci`: the GPU's too), kernel, operating system."""
    info = node.get("status", {}).get("nodeInfo", {})
    os_id, os_version = _os_release(info.get("osImage", ""))
    kernel = info.get("kernelVersion", "")
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", kernel) or re.match(r"(\d+)\.(\d+)\.(\d+)", kernel := UBUNTU_KERNEL)
    assert found is not None
    labels = {f"{NFD}kernel-version.full": kernel, OS_ID: os_id, OS_VERSION: os_version}
    labels |= {f"{NFD}kernel-version.{part}": value
               for part, value in zip(("major", "minor", "revision"), found.groups(), strict=True)}
    labels |= {f"{OS_VERSION}.{part}": value
               for part, value in zip(("major", "minor"), os_version.split("."), strict=False)}
    if GPUS in node["metadata"].get("annotations", {}):  # a node of cluster.yaml's, placed by a cloud controller or not
        labels[f"{NFD}pci-1d0f.present"] = "true"  # Amazon's own network adapter, on CPU nodes too
    if gpus(node) and pci:
        labels[GPU_MARKS[0]] = "true"
    return labels


def operator(labels: Labels) -> Labels:
    """The operator's labels for a node that has `labels`.

    As the real one does, a deploy label that a person has set to another value is kept, and
    `nvidia.com/gpu.deploy.operands=false` takes all of them off the node.
    """
    if not is_gpu_node(labels):
        return {PRESENT: "false"} if PRESENT in labels else {}
    if labels.get(f"{DEPLOY}operands") == "false":
        return {PRESENT: "true"}
    wanted = (*DEPLOYED, MIG_MANAGER) if labels.get("nvidia.com/mig.capable") == "true" else DEPLOYED
    return {PRESENT: "true", **{key: labels.get(key) or "true" for key in wanted}}


def gfd(node: Object, driver: str | None) -> Labels:
    """GPU feature discovery's labels.

    Args:
        driver: version of the driver that the operator installed; None when the image brought its own, which a
            rehearsal does not know: the version labels are then left out.

    An unknown product has no family and compute labels.
    """
    metadata = node["metadata"]
    hardware = metadata.get("annotations", {})
    product = hardware.get(PRODUCT, "unknown")
    labels = {"gpu.product": product, "gpu.count": str(gpus(node)), "gpu.replicas": "1", "gpu.mode": "compute",
              "gpu.sharing-strategy": "none", "mig.capable": "false", "mps.capable": "false", "vgpu.present": "false"}
    if MEMORY in hardware:
        labels["gpu.memory"] = hardware[MEMORY]
    if machine := metadata.get("labels", {}).get("node.kubernetes.io/instance-type"):
        labels["gpu.machine"] = machine
    if known := PRODUCTS.get(product):
        major, minor = known.compute.split(".")
        labels |= {"gpu.family": known.family, "gpu.compute.major": major, "gpu.compute.minor": minor,
                   "mig.capable": str(known.mig).lower()}
    if driver:
        labels["cuda.driver-version.full"] = driver
        labels |= {f"cuda.driver-version.{part}": value
                   for part, value in zip(("major", "minor", "revision"), driver.split("."), strict=False)}
    return {f"nvidia.com/{key}": value for key, value in labels.items()}


def _os_release(image: str) -> tuple[str, str]:
    if found := re.search(r"Ubuntu (\d+\.\d+)", image):
        return "ubuntu", found[1]
    if found := re.search(r"Amazon Linux (\d+)", image):
        return "amzn", found[1]
    if image.startswith("Bottlerocket"):
        return "bottlerocket", BOTTLEROCKET
    return UBUNTU
