"""The rungs of the GPU stack: PCI label, release, driver, toolkit, capacity, allocatable (plugins.py has the one between)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gpurunbook.readiness.objects import became, latest, living, made, name, namespace, state, unready
from gpurunbook.readiness.rungs import Step
from gpurunbook.readiness.snapshot import Object, condition, labels, parts, quantity, ready
from gpurunbook.readiness.trouble import of_pod, pod_trouble
from gpurunbook.readiness.view import Below, Here, View

PCI_LABELS = tuple(f"feature.node.kubernetes.io/pci-{found}.present" for found in ("10de", "0302_10de", "0300_10de"))
"""The spellings of "an NVIDIA device is here" that the operator knows (v26.7.0; gpu-operator#78, #114)."""
NFD = "feature.node.kubernetes.io/"
HELM_SECONDS, OTHERS_SECONDS = 60, 900
"""How long a revision may be pending before it counts as left behind: one of ours, that no helm of ours is at work on; and
one that may be anybody's, whose helm we cannot see: it may wait that long."""
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
    worker = next(iter(living(p for p in here.pods if _is_nfd(p))), None)
    theirs = sorted(key for key in found if key.startswith((f"{NFD}kernel-version", f"{NFD}system-os_release")))
    if worker and ready(worker) and theirs:
        return here.trouble("pci-label", "no-pci-label", f"{name(worker)} is Ready and wrote {len(theirs)} labels such as "
                            f"{theirs[0]}; none of {', '.join(PCI_LABELS)}", became(worker, "Ready"), worker)
    if worker:
        bad = pod_trouble(here, worker)
        return of_pod(here, "pci-label", bad) if bad else here.waiting(
            "pci-label", unready(worker), state(worker))
    if seen_to(here):
        return here.done("pci-label", None, "no feature discovery here: the device plug-in does without it")
    revision = newest(here.view)
    if revision is None and not here.view.policy:
        return here.waiting("pci-label", None, "no feature discovery yet: it comes with the operator", here.run_05)
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


def seen_to(here: Here) -> bool:
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
        if seen_to(here):
            return here.done("release", None, "none: the device plug-in alone")
        return here.waiting("release", None, f"release {names.release} is not installed", here.run_05)
    found = labels(revision)
    status, stamp = found.get("status", "unknown"), found.get("modifiedAt", "")
    since = datetime.fromtimestamp(int(stamp), UTC) if stamp.isdigit() and len(stamp) < 12 else made(revision)
    said = f"revision {found.get('version', '?')} is {status}"
    if status == "deployed":
        return _controller(here, since, said)
    ours = names.alone or bool(names.cut_short and since and since >= names.cut_short - timedelta(seconds=1))
    if status.startswith("pending"):
        if not names.helm_at_work and here.view.late("release", since, HELM_SECONDS if ours else OTHERS_SECONDS):
            whose = "no helm of this run is at work" + ("" if ours else "; it may be somebody else's")
            return here.trouble("release", "release-pending", f"{said}, and {whose}", since, name=names.release,
                                next="" if ours else "helm history {name} -n {namespace}")
        return here.waiting("release", since, said)
    if status == "failed":
        return here.trouble("release", "release-failed", said, since, name=names.release,
                            next="" if ours or names.ours else "helm status {name} -n {namespace}")
    return here.waiting("release", since, said, here.run_05)


def _controller(here: Here, since: datetime | None, said: str) -> Step:
    """The release is deployed when helm has written its objects; the operator's own pod has still to come up."""
    pod = next(iter(living(p for p in here.view.snapshot.pods if labels(p).get("app") == OPERATOR
                           and namespace(p) == here.view.names.namespace)), None)
    if pod is None:
        return here.done("release", since, said)
    if bad := pod_trouble(here, pod):
        return of_pod(here, "release", bad)
    if not ready(pod):
        return here.waiting("release", latest(since, unready(pod)), f"{said}; {state(pod)}")
    return here.done("release", latest(since, became(pod, "Ready")), f"{said}; {name(pod)} is Ready")


def driver(here: Here, below: Below) -> Step:
    view = here.view
    if unread := here.unknown("driver", "pods", "policies"):
        return unread
    pod = next(iter(here.drivers), None)
    if pod:
        if bad := pod_trouble(here, pod, crash="driver-crash-loop"):
            return of_pod(here, "driver", bad)
        if ready(pod):
            return here.done("driver", became(pod, "Ready"), f"{name(pod)} is Ready")
        return here.waiting("driver", unready(pod), state(pod))
    if view.policy and view.off("driver"):
        if here.ubuntu and not _works(here):
            return here.waiting("driver", None, "driver is off in the ClusterPolicy, and Ubuntu's image brings none")
        return here.done("driver", None, f"brought by the image ({here.system}): driver is off in the ClusterPolicy")
    if labels(here.node).get("nvidia.com/gpu.deploy.driver") == "pre-installed":
        return here.done("driver", None, "brought by the node: nvidia.com/gpu.deploy.driver=pre-installed")
    if seen_to(here):
        return here.done("driver", None, "not ours: GPUs are offered, without an operator")
    return here.waiting("driver", None, f"no driver pod on the node yet; {policy_says(view)}")


def toolkit(here: Here, below: Below) -> Step:
    view = here.view
    if unread := here.unknown("toolkit", "pods", "policies"):
        return unread
    pod = next(iter(here.toolkits), None)
    if pod:
        if bad := pod_trouble(here, pod):
            return of_pod(here, "toolkit", bad)
        if not ready(pod):
            return here.waiting("toolkit", unready(pod), state(pod))
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
    if seen_to(here):
        return here.done("toolkit", None, "not ours: GPUs are offered, without an operator")
    return here.waiting("toolkit", None, f"no toolkit pod on the node yet; {policy_says(view)}")


def _works(here: Here) -> bool:
    """A plug-in that is Ready has found the driver, through the runtime."""
    return any(ready(p) for p in here.plugins)


def capacity(here: Here, below: Below) -> Step:
    if count := _count(here, "capacity"):
        return here.done("capacity", None, f"{_named(here, 'capacity')} in capacity: {count}")
    return here.waiting("capacity", None, "no nvidia.com/gpu in the node's capacity")


def allocatable(here: Here, below: Below) -> Step:
    count, total = _count(here, "allocatable"), _count(here, "capacity")
    if count:
        short = f" of {total}: the plug-in calls the others unhealthy" if count < total else ""
        return here.done("allocatable", None, f"{_named(here, 'allocatable')} in allocatable: {count}{short}")
    evidence = f"{_named(here, 'capacity')}: {total} in capacity, 0 in allocatable"
    plugin = next((p for p in here.plugins if ready(p)), None)
    if total and plugin and here.view.late("allocatable", became(plugin, "Ready")):
        return here.trouble("allocatable", "gpu-not-allocatable", f"{evidence}; {name(plugin)} is Ready",
                            became(plugin, "Ready"), plugin)
    return here.waiting("allocatable", None, evidence)


def _count(here: Here, where: str) -> int:
    return quantity(here.node.get("status", {}).get(where) or {})


def _named(here: Here, where: str) -> str:
    """By which names the node counts its GPUs: whole ones, shares, MIG devices."""
    return ", ".join(sorted(parts(here.node.get("status", {}).get(where) or {}))) or "nvidia.com/gpu"


def policy_says(view: View) -> str:
    """What the operator says it waits for."""
    if view.policy is None:
        return "no ClusterPolicy"
    error = condition(view.policy, "Error")
    said = error.get("message") if error.get("status") == "True" else ""
    return f"ClusterPolicy {(view.policy.get('status') or {}).get('state', 'without a state')}" + (f": {said}" if said else "")
