"""The objects that NVIDIA's operator makes of a ClusterPolicy, as pure functions.

Sources, names and order only: NVIDIA/gpu-operator v26.7.0, assets/ and controllers/state_manager.go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.gpu_labels import DEPLOY, OS_ID, OS_VERSION, Object, is_gpu_node
from gpurunbook.targets.rehearsal.world import PLAIN, World

HASH = "nvidia.com/last-applied-hash"
HELD_BY, HELD_ON = "gpurunbook.dev/held-by", "gpurunbook.dev/held-on"
"""Annotations of a pod that KWOK leaves waiting (stages.yaml): for what, and on which nodes."""
RUNTIME, VALIDATION = "runtime", "driver-validation"
EFFECTS = ("NoSchedule", "NoExecute")
# The DaemonSet controller adds these to every pod it makes.
ALWAYS_TOLERATED = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists"} for key in (
    "not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")]


@dataclass(frozen=True)
class Operand:
    """One DaemonSet of the operator's.

    Attributes:
        name: of the DaemonSet, and value of its pods' label `app`.
        key: its part of ClusterPolicy.spec.
        deploy: the node label `nvidia.com/gpu.deploy.<deploy>=true` that selects its nodes.
        container: name of the container.
        init: names of the init containers; on a real node they hold the pod until what they name is done.
        wave: made when all operands of lower waves are Ready on their nodes.
        starts, takes: in pace.USUAL: until its containers run, and from there until it is Ready.
        runtime: its pods ask for the runtime class `nvidia`.
    """

    name: str
    key: str
    deploy: str
    container: str
    init: tuple[str, ...]
    wave: int
    starts: str
    takes: str
    runtime: bool = True


DRIVER = Operand("nvidia-driver-daemonset", "driver", "driver", "nvidia-driver-ctr", ("k8s-driver-manager",), 0,
                 "driver manager", "driver", runtime=False)
TOOLKIT = Operand("nvidia-container-toolkit-daemonset", "toolkit", "container-toolkit", "nvidia-container-toolkit-ctr",
                  (VALIDATION,), 1, "driver validation", "toolkit", runtime=False)
PLUGIN = Operand("nvidia-device-plugin-daemonset", "devicePlugin", "device-plugin", "nvidia-device-plugin",
                 ("toolkit-validation",), 3, "toolkit validation", "device plug-in")
GFD = Operand("gpu-feature-discovery", "gfd", "gpu-feature-discovery", "gpu-feature-discovery",
              ("toolkit-validation",), 3, "toolkit validation", "gfd")

OPERANDS = (
    DRIVER,
    TOOLKIT,
    Operand("nvidia-operator-validator", "validator", "operator-validator", "nvidia-operator-validator",
            (VALIDATION, "toolkit-validation", "cuda-validation", "plugin-validation"), 2, "validation", "validator"),
    PLUGIN,
    Operand("nvidia-dcgm-exporter", "dcgmExporter", "dcgm-exporter", "nvidia-dcgm-exporter",
            ("toolkit-validation",), 3, "toolkit validation", "dcgm exporter"),
    GFD,
    Operand("nvidia-mig-manager", "migManager", "mig-manager", "nvidia-mig-manager", ("toolkit-validation",), 3,
            "toolkit validation", "mig manager"),
)


def enabled(policy: Object) -> list[Operand]:
    """The operands that the policy asks for, in the operator's order. What it does not mention is on."""
    return [operand for operand in OPERANDS if is_enabled(policy, operand)]


def is_enabled(policy: Object, operand: Operand) -> bool:
    found: bool = policy["spec"].get(operand.key, {}).get("enabled", True)
    return found


def namespace(policy: Object) -> str:
    """The operator's namespace. A ClusterPolicy has none of its own; Helm notes the release's on every object."""
    found: str = policy["metadata"].get("annotations", {}).get("meta.helm.sh/release-namespace", "gpu-operator")
    return found


def owner(policy: Object) -> Object:
    """The owner reference that ties an object's life to the policy's."""
    return {"apiVersion": policy["apiVersion"], "kind": policy["kind"], "name": policy["metadata"]["name"],
            "uid": policy["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}


def is_owned(item: Object) -> bool:
    """Whether a ClusterPolicy, this one or an earlier one, made the object."""
    return any(ref["kind"] == "ClusterPolicy" for ref in item["metadata"].get("ownerReferences", []))


def image(policy: Object, operand: Operand, os_labels: dict[str, str]) -> str:
    """`repository/image:version` from the policy; a driver's version also names the nodes' operating system."""
    part = policy["spec"].get(operand.key, {})
    tag = part.get("version", "unknown")
    if operand is DRIVER:
        tag += f"-{os_labels.get(OS_ID, 'unknown')}{os_labels.get(OS_VERSION, '')}"
    return _image(part, operand.name, tag)


def init_image(policy: Object, name: str) -> str:
    """The image of an init container: the driver's manager has its own, all validations are the validator's."""
    spec = policy["spec"]
    part = spec.get("driver", {}).get("manager", {}) if name == "k8s-driver-manager" else spec.get("validator", {})
    return _image(part, name, part.get("version", "unknown"))


def _image(part: Object, name: str, tag: str) -> str:
    return f"{part.get('repository', 'nvidia')}/{part.get('image', name)}:{tag}"


def held(policy: Object, operand: Operand, nodes: Iterable[Object]) -> dict[str, str]:
    """Annotations of an operand whose pods cannot start on some nodes; empty where all can.

    Ubuntu's images bring neither driver nor toolkit, those of Amazon Linux and Bottlerocket for NVIDIA bring both. Where
    nobody installs the toolkit, containerd has no runtime `nvidia` and makes no sandbox for a pod that asks for it;
    where nobody installs the driver, the toolkit's init container waits for it, and so there is no runtime either.
    """
    no_driver, no_toolkit = (not is_enabled(policy, part) for part in (DRIVER, TOOLKIT))
    if operand is TOOLKIT and no_driver:
        why = VALIDATION
    elif operand.runtime and (no_driver or no_toolkit):
        why = RUNTIME
    else:
        return {}
    on = sorted(node["metadata"]["name"] for node in nodes if is_gpu_node(node["metadata"].get("labels", {}))
                and node["status"].get("nodeInfo", {}).get("osImage", "").startswith("Ubuntu"))
    return {HELD_BY: why, HELD_ON: ",".join(on)} if on else {}


def daemonset(policy: Object, operand: Operand, os_labels: dict[str, str], nodes: Iterable[Object] = (),
              world: World = PLAIN) -> Object:
    """The operand's DaemonSet. Its annotation `nvidia.com/last-applied-hash` changes with anything else in it."""
    settings = policy["spec"].get("daemonsets", {})
    labels = {"app": operand.name}
    pod: Object = {
        "nodeSelector": {DEPLOY + operand.deploy: "true"},
        "tolerations": settings.get("tolerations", []),
        "initContainers": [{"name": name, "image": init_image(policy, name)} for name in operand.init],
        "containers": [{"name": operand.container, "image": image(policy, operand, os_labels)}],
    }
    if operand is DRIVER:
        # Where a drill gives the pod host this image: a driver that ends at once was never Ready. The real one has this
        # as a startup probe, which the pod host does not know.
        pod["containers"][0]["readinessProbe"] = {"exec": {"command": ["nvidia-smi"]}, "periodSeconds": 10}
    if operand.runtime:
        pod["runtimeClassName"] = class_name(policy)
    notes = held(policy, operand, nodes)
    for key, what in ((pace.STARTS, operand.starts), (pace.TAKES, operand.takes)) if world.pace else ():
        notes |= {key: pace.duration(pace.seconds(what, world, operand.name))}
    if priority := settings.get("priorityClassName"):
        pod["priorityClassName"] = priority
    made: Object = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": operand.name,
            "namespace": namespace(policy),
            "labels": {**settings.get("labels", {}), **labels},
            "ownerReferences": [owner(policy)],
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "OnDelete" if operand is DRIVER else "RollingUpdate"},
            "template": {"metadata": {"labels": labels, **({"annotations": notes} if notes else {})}, "spec": pod},
        },
    }
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    made["metadata"]["annotations"] = {**settings.get("annotations", {}), HASH: digest}
    return made


def class_name(policy: Object) -> str:
    """The runtime class's name, `nvidia` unless the chart's values say otherwise."""
    name: str = policy["spec"].get("operator", {}).get("runtimeClass") or "nvidia"
    return name


def runtime_class(policy: Object) -> Object:
    """The RuntimeClass by which a pod asks for NVIDIA's container runtime."""
    name = class_name(policy)
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": name, "metadata": {
        "name": name, "labels": {"app.kubernetes.io/component": "gpu-operator"}, "ownerReferences": [owner(policy)]}}


def runs_on(made: Object, node: Object) -> bool:
    """Whether the DaemonSet controller puts a pod of `made` on the node: node selector, then taints."""
    pod = made["spec"]["template"]["spec"]
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in pod.get("nodeSelector", {}).items()):
        return False
    tolerations = [*pod.get("tolerations", []), *ALWAYS_TOLERATED]
    return all(any(_tolerates(toleration, taint) for toleration in tolerations)
               for taint in node["spec"].get("taints", []) if taint["effect"] in EFFECTS)


def is_ready(made: Object, nodes: list[Object]) -> bool:
    """Whether the DaemonSet's pods are Ready on every node it should be on.

    A DaemonSet with no such node is ready, as for the real operator. `nodes` guards against a status
    that is older than the nodes' labels.
    """
    status = made.get("status", {})
    wanted = sum(runs_on(made, node) for node in nodes)
    if status.get("observedGeneration") != made["metadata"].get("generation"):
        return False
    return bool(status["desiredNumberScheduled"] == status["numberReady"] == wanted)


def _tolerates(toleration: Object, taint: Object) -> bool:
    exists = toleration.get("operator", "Equal") == "Exists"
    return (toleration.get("key", "") in ({taint["key"], ""} if exists else {taint["key"]})
            and toleration.get("effect", "") in ("", taint["effect"])
            and (exists or toleration.get("value", "") == taint.get("value", "")))
