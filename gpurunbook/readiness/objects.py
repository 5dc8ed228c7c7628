"""What an object says of itself, and which of NVIDIA's pods it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from gpurunbook.readiness.snapshot import Object, condition, labels, ready, when

OVER = ("Succeeded", "Failed")
DRIVER, TOOLKIT, PLUGIN = "nvidia-driver-daemonset", "nvidia-container-toolkit-daemonset", "nvidia-device-plugin-daemonset"
PLUGIN_LABELS = (("app", PLUGIN), ("name", "nvidia-device-plugin-ds"), ("app.kubernetes.io/name", "nvidia-device-plugin"))
"""The operator's, NVIDIA's static manifest (eksctl's too), and its own chart's."""
PLUGIN_CONTAINER = "nvidia-device-plugin"
"""How its container's name begins in all three. Pods of feature discovery and of MPS have the chart's label too."""


def is_plugin(pod: Object) -> bool:
    """Whether a pod is one of NVIDIA's device plug-in, whoever made it."""
    found = labels(pod)
    return of_operator(pod) or (any(found.get(key) == value for key, value in PLUGIN_LABELS) and any(
        str(c.get("name", "")).startswith(PLUGIN_CONTAINER) for c in pod.get("spec", {}).get("containers") or []))


def of_operator(pod: Object) -> bool:
    """Whether a device plug-in's pod is the operator's own."""
    return labels(pod).get("app") == PLUGIN


def is_driver(pod: Object) -> bool:
    """By the ClusterPolicy's label (precompiled drivers append a kernel), or by the one that an NVIDIADriver's pods have."""
    found = labels(pod)
    return found.get("app", "").startswith(DRIVER) or found.get("app.kubernetes.io/component") == "nvidia-driver"


def living(pods: Iterable[Object]) -> list[Object]:
    """Pods that are not being deleted: those that run first, what has ended last; the newest first in both."""
    found = sorted((p for p in pods if not p["metadata"].get("deletionTimestamp")), reverse=True,
                   key=lambda p: str(p["metadata"].get("creationTimestamp")))
    return sorted(found, key=lambda p: phase(p) in OVER)


def containers(pod: Object) -> list[Object]:
    """Statuses of all containers, those that go first first."""
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def state(pod: Object) -> str:
    """What a pod waits for or does, in a few words."""
    for container in containers(pod):
        if (waits := (container.get("state") or {}).get("waiting")) and waits.get("reason"):
            return f"{name(pod)}: {waits['reason']}" + (f": {waits['message']}" if waits.get("message") else "")
    unplaced = condition(pod, "PodScheduled")
    if unplaced.get("status") == "False":
        return f"{name(pod)}: {unplaced.get('reason')}: {unplaced.get('message')}"
    return f"{name(pod)}: {phase(pod)}" + ("" if ready(pod) or phase(pod) in OVER else ", not Ready")


def name(item: Object) -> str:
    return str(item.get("metadata", {}).get("name", ""))


def namespace(item: Object) -> str:
    return str(item.get("metadata", {}).get("namespace", ""))


def phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def made(item: Object) -> datetime | None:
    return when(item.get("metadata", {}).get("creationTimestamp"))


def became(item: Object, kind: str) -> datetime | None:
    """When a condition last changed."""
    return when(condition(item, kind).get("lastTransitionTime"))


def when_seen(event: Object) -> datetime | None:
    """When an event was last seen, in either form of the API."""
    return (when(event.get("lastTimestamp")) or when((event.get("series") or {}).get("lastObservedTime"))
            or when(event.get("eventTime")))


def unready(pod: Object) -> datetime | None:
    """Since when a pod has not been Ready: since it was lost, or since it was made."""
    return latest(made(pod), became(pod, "Ready"))


def latest(*times: datetime | None) -> datetime | None:
    return max((t for t in times if t), default=None)


def owner(pod: Object) -> tuple[str, str, str]:
    """(UID, kind, name) of what made a pod; the pod's own when nothing did."""
    refs: Iterable[Mapping[str, Any]] = pod.get("metadata", {}).get("ownerReferences") or []
    own = (str(pod["metadata"].get("uid")), "Pod", name(pod))
    return next(((str(r.get("uid")), str(r.get("kind")), str(r.get("name"))) for r in refs), own)


def one_line(text: str) -> str:
    """At most 400 characters, on one line."""
    found = " ".join(str(text).split())
    return found if len(found) <= 400 else f"{found[:399]}…"
