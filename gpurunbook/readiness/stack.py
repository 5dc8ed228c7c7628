"""The rungs of the GPU stack: PCI label, release, driver, toolkit, device plug-in, capacity, allocatable. Pure rules."""

from __future__ import annotations

from datetime import UTC, datetime

from gpurunbook.readiness.rungs import Finding, Step
from gpurunbook.readiness.snapshot import Object, condition, labels, quantity, ready
from gpurunbook.readiness.view import (
    DRIVER,
    RUN_05,
    TOOLKIT,
    Below,
    Here,
    View,
    became,
    is_plugin,
    latest,
    made,
    name,
    namespace,
    owner,
    pod_trouble,
    state,
)

PCI_LABELS = ("feature.node.kubernetes.io/pci-10de.present", "feature.node.kubernetes.io/pci-0302_10de.present")
"""Both spellings of "an NVIDIA device is here" that Node Feature Discovery writes (gpu-operator#78, #114)."""
NFD = "feature.node.kubernetes.io/"
HELM_SECONDS = 60
"""How long a pending revision may lack a helm of ours before it counts as left behind."""
NO_RUNTIME = "no runtime for"
OPERATOR = "gpu-operator"
"""Label `app` of the operator's own pod."""


def pci_label(here: Here, below: Below) -> Step:
    found = labels(here.node)
    for label in PCI_LABELS:
        if found.get(label) == "true":
            return here.done("pci-label", None, f"{label}=true")
    if unread := here.unknown("pci-label", "pods"):
        return unread
    worker = next((p for p in here.pods if _is_nfd(p)), None)
    theirs = sorted(key for key in found if key.startswith((f"{NFD}kernel-version", f"{NFD}system-os_release")))
    if worker and ready(worker) and theirs:
        return here.trouble("pci-label", "no-pci-label", f"{name(worker)} is Ready and wrote {len(theirs)} labels such as "
                            f"{theirs[0]}; neither {PCI_LABELS[0]} nor {PCI_LABELS[1]}", became(worker, "Ready"), worker)
    if worker:
        bad = pod_trouble(here, worker)
        return here.of_pod("pci-label", bad) if bad else here.waiting(
            "pci-label", latest(made(worker), became(worker, "Ready")), state(worker))
    if _seen_to(here):
        return here.done("pci-label", None, "no feature discovery here: the device plug-in does without it")
    revision = newest(here.view)
    if revision is None and not here.view.policy:
        return here.waiting("pci-label", None, "no feature discovery yet: it comes with the operator", RUN_05)
    return here.waiting("pci-label", made(revision) if revision else None, "no pod of feature discovery on the node yet")


def _is_nfd(pod: Object) -> bool:
    """NFD's worker, from its own chart or from the operator's."""
    found = labels(pod)
    return ((found.get("app.kubernetes.io/name") == "node-feature-discovery" and found.get("role") == "worker")
            or found.get("app") == "nfd-worker")


def newest(view: View) -> Object | None:
    """The newest revision of the operator's release: the metadata of its Secret."""
    return max(view.snapshot.releases, key=lambda item: _number(labels(item).get("version", "0")), default=None)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _seen_to(here: Here) -> bool:
    """Whether somebody's device plug-in offers GPUs on the node, without any operator."""
    plain = newest(here.view) is None and not here.view.policy and here.unknown("release", "releases", "policies") is None
    return plain and (any(ready(p) for p in here.plugins) or _count(here, "capacity") > 0)


def release(here: Here, below: Below) -> Step:
    names, revision = here.view.names, newest(here.view)
    if revision is None:
        if unread := here.unknown("release", "releases"):
            return unread
        if policy := here.view.policy:
            return here.done("release", made(policy), f"not ours: ClusterPolicy {name(policy)} is there, "
                                                      f"{(policy.get('status') or {}).get('state', 'without a state yet')}")
        if _seen_to(here):
            return here.done("release", None, "none: the device plug-in alone")
        return here.waiting("release", None, f"release {names.release} is not installed", RUN_05)
    found = labels(revision)
    status, stamp = found.get("status", "unknown"), found.get("modifiedAt", "")
    since = datetime.fromtimestamp(int(stamp), UTC) if stamp.isdigit() and len(stamp) < 12 else made(revision)
    said = f"revision {found.get('version', '?')} is {status}"
    if status == "deployed":
        return _controller(here, since, said)
    if status.startswith("pending"):
        if not names.helm_at_work and here.view.late("release", since, HELM_SECONDS):
            return here.trouble("release", "release-pending", f"{said}, and no helm is at work", since, name=names.release)
        return here.waiting("release", since, said)
    if status == "failed":
        return here.trouble("release", "release-failed", said, since, name=names.release)
    return here.waiting("release", since, said, RUN_05)


def _controller(here: Here, since: datetime | None, said: str) -> Step:
    """The release is deployed when helm has written its objects; the operator's own pod has still to come up."""
    found = [p for p in here.view.snapshot.pods if labels(p).get("app") == OPERATOR
             and namespace(p) == here.view.names.namespace and not p["metadata"].get("deletionTimestamp")]
    pod = max(found, key=lambda p: str(p["metadata"].get("creationTimestamp")), default=None)
    if pod is None:
        return here.done("release", since, said)
    if bad := pod_trouble(here, pod):
        return here.of_pod("release", bad)
    if not ready(pod):
        return here.waiting("release", made(pod), f"{said}; {state(pod)}")
    return here.done("release", latest(since, became(pod, "Ready")), f"{said}; {name(pod)} is Ready")


def driver(here: Here, below: Below) -> Step:
    view = here.view
    if unread := here.unknown("driver", "pods", "policies"):
        return unread
    pod = next(iter(here.app(DRIVER)), None)
    if pod:
        if bad := pod_trouble(here, pod, crash="driver-crash-loop"):
            return here.of_pod("driver", bad)
        if ready(pod):
            return here.done("driver", became(pod, "Ready"), f"{name(pod)} is Ready")
        return here.waiting("driver", made(pod), state(pod))
    if view.policy and view.off("driver"):
        if here.ubuntu and not _works(here):
            return here.waiting("driver", None, "driver is off in the ClusterPolicy, and Ubuntu's image brings none")
        return here.done("driver", None, f"brought by the image ({here.system}): driver is off in the ClusterPolicy")
    if labels(here.node).get("nvidia.com/gpu.deploy.driver") == "pre-installed":
        return here.done("driver", None, "brought by the node: nvidia.com/gpu.deploy.driver=pre-installed")
    if _seen_to(here):
        return here.done("driver", None, "not ours: GPUs are offered, without an operator")
    return here.waiting("driver", None, f"no driver pod on the node yet; {_policy(view)}")


def toolkit(here: Here, below: Below) -> Step:
    view = here.view
    if unread := here.unknown("toolkit", "pods", "policies"):
        return unread
    pod = next(iter(here.app(TOOLKIT)), None)
    if pod:
        if bad := pod_trouble(here, pod):
            return here.of_pod("toolkit", bad)
        if not ready(pod):
            return here.waiting("toolkit", made(pod), state(pod))
        if unread := here.unknown("toolkit", "runtime_classes"):
            return unread
        if not any(name(item) == "nvidia" for item in view.snapshot.runtime_classes):
            return here.waiting("toolkit", became(pod, "Ready"), f"{name(pod)} is Ready; RuntimeClass nvidia is absent")
        return here.done("toolkit", became(pod, "Ready"), f"{name(pod)} is Ready; RuntimeClass nvidia is there")
    if view.policy and view.off("toolkit"):
        if not here.ubuntu or _works(here):
            return here.done("toolkit", None, f"brought by the image ({here.system}): toolkit is off in the ClusterPolicy")
        said = next((str(e["message"]) for p in here.pods for e in view.events("Pod", p, "FailedCreatePodSandBox")
                     if NO_RUNTIME in str(e.get("message"))), "")
        evidence = f"toolkit is off in the ClusterPolicy, and {here.system} brings none"
        if said or (below.clear and view.late("toolkit", below.began)):
            return here.trouble("toolkit", "toolkit-missing", f"{evidence}; {said}" if said else evidence, below.began,
                                name=name(view.policy))
        return here.waiting("toolkit", None, evidence)
    if _seen_to(here):
        return here.done("toolkit", None, "not ours: GPUs are offered, without an operator")
    return here.waiting("toolkit", None, f"no toolkit pod on the node yet; {_policy(view)}")


def _works(here: Here) -> bool:
    """A plug-in that is Ready has found the driver, through the runtime."""
    return any(ready(p) for p in here.plugins)


def device_plugin(here: Here, below: Below) -> Step:
    if unread := here.unknown("device-plugin", "pods"):
        return unread
    by_owner = {owner(p)[0]: p for p in here.plugins if ready(p)}
    if len(by_owner) > 1:
        pods = sorted(by_owner.values(), key=lambda p: (namespace(p) == here.view.names.namespace, name(p)))
        other = pods[0]
        told = " and ".join(f"{namespace(p)}/{name(p)}" for p in pods)
        return here.trouble("device-plugin", "two-device-plugins", f"{len(by_owner)} device plug-ins are Ready: {told}",
                            latest(*(became(p, "Ready") for p in pods)), other, name=owner(other)[1])
    if by_owner:
        [pod] = by_owner.values()
        return here.done("device-plugin", became(pod, "Ready"), f"{namespace(pod)}/{name(pod)} is Ready")
    for pod in here.plugins:
        bad = pod_trouble(here, pod)
        return here.of_pod("device-plugin", bad) if bad else here.waiting("device-plugin", made(pod), state(pod))
    if _seen_to(here):
        return here.done("device-plugin", None, "GPUs are offered, and no pod of a plug-in is to be seen")
    return here.waiting("device-plugin", None, f"no device plug-in on the node yet; {_policy(here.view)}")


def capacity(here: Here, below: Below) -> Step:
    if count := _count(here, "capacity"):
        return here.done("capacity", None, f"nvidia.com/gpu in capacity: {count}")
    return here.waiting("capacity", None, "no nvidia.com/gpu in the node's capacity")


def allocatable(here: Here, below: Below) -> Step:
    count, total = _count(here, "allocatable"), _count(here, "capacity")
    if count:
        short = f" of {total}: the plug-in calls the others unhealthy" if count < total else ""
        return here.done("allocatable", None, f"nvidia.com/gpu in allocatable: {count}{short}")
    evidence = f"nvidia.com/gpu: {total} in capacity, 0 in allocatable"
    plugin = next((p for p in here.plugins if ready(p)), None)
    if total and plugin and here.view.late("allocatable", became(plugin, "Ready")):
        return here.trouble("allocatable", "gpu-not-allocatable", f"{evidence}; {name(plugin)} is Ready",
                            became(plugin, "Ready"), plugin)
    return here.waiting("allocatable", None, evidence)


def _count(here: Here, where: str) -> int:
    return quantity(here.node.get("status", {}).get(where) or {})


def _policy(view: View) -> str:
    """What the operator says it waits for."""
    if view.policy is None:
        return "no ClusterPolicy"
    error = condition(view.policy, "Error")
    said = error.get("message") if error.get("status") == "True" else ""
    return f"ClusterPolicy {(view.policy.get('status') or {}).get('state', 'without a state')}" + (f": {said}" if said else "")


def on_cpu_nodes(view: View) -> Finding | None:
    """Device plug-ins that crash on nodes without a GPU: one finding, however many nodes there are."""
    without = {name(n) for n in view.snapshot.nodes if not view.names.is_gpu_node(labels(n))
               and not any(labels(n).get(label) == "true" for label in PCI_LABELS)
               and not quantity(n.get("status", {}).get("capacity") or {})}
    nodes = {name(n): n for n in view.snapshot.nodes}
    bad = [(p, found) for p in view.snapshot.pods if is_plugin(p) and (on := p.get("spec", {}).get("nodeName")) in without
           and (found := pod_trouble(Here(view, nodes[on]), p)) and "CrashLoopBackOff" in found.evidence]
    if not bad:
        return None
    pod, found = min(bad, key=lambda pair: str(pair[0]["spec"]["nodeName"]))
    on = sorted({str(p["spec"]["nodeName"]) for p, _ in bad})
    step = Here(view, nodes[on[0]]).trouble("device-plugin", "plugin-on-cpu-nodes", f"on {len(on)} node(s) without a GPU, such "
                                            f"as {on[0]}: {found.evidence}", made(pod), pod, name=owner(pod)[1])
    return Finding(step.cause, step.rung, on[0], step.evidence, step.next)
