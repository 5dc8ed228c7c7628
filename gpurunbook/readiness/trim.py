"""What is kept of each object while a list is read: a thousand nodes with all their fields would take hundreds of megabytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpurunbook.readiness.snapshot import Object

METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")
CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


def _pick(item: Mapping[str, Any] | None, *keys: str) -> Object:
    return {key: item[key] for key in keys if key in item} if item else {}


def _metadata(item: Object) -> Object:
    found = item.get("metadata") or {}
    kept = _pick(found, *METADATA)
    if refs := found.get("ownerReferences"):
        kept["ownerReferences"] = [_pick(ref, "kind", "name", "uid") for ref in refs]
    return kept


def _conditions(status: Object) -> list[Object]:
    return [_pick(c, *CONDITION) for c in status.get("conditions") or []]


def node(item: Object) -> Object:
    """Labels, taints, providerID, GPUs, conditions, what it runs."""
    status = item.get("status") or {}
    gpus = {key: {k: v for k, v in (status.get(key) or {}).items() if k.startswith("nvidia.com/")}
            for key in ("capacity", "allocatable")}
    return {"metadata": _metadata(item), "spec": _pick(item.get("spec"), "providerID", "taints", "unschedulable"),
            "status": {**gpus, "conditions": _conditions(status),
                       "nodeInfo": _pick(status.get("nodeInfo"), "osImage", "bootID", "kernelVersion")}}


def other_node(item: Object) -> Object:
    """A node without a GPU: its name and labels tell that."""
    capacity = (item.get("status") or {}).get("capacity") or {}
    return {"metadata": _pick(item.get("metadata"), "name", "uid", "resourceVersion", "labels"), "spec": {},
            "status": {"capacity": {k: v for k, v in capacity.items() if k.startswith("nvidia.com/")}}}


def pod(item: Object) -> Object:
    """Where it is, the GPUs it asks for, conditions, and the containers' states."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return {
        "metadata": _metadata(item),
        "spec": {**_pick(spec, "nodeName", "nodeSelector", "runtimeClassName"),
                 "containers": [_pick(c, "name", "resources") for c in spec.get("containers") or []]},
        "status": {**_pick(status, "phase", "reason", "message"), "conditions": _conditions(status),
                   **{key: [_pick(c, "name", "image", "imageID", "containerID", "ready", "restartCount", "state", "lastState")
                            for c in status[key]] for key in ("initContainerStatuses", "containerStatuses") if status.get(key)}}}


def event(item: Object) -> Object:
    return {"metadata": _pick(item.get("metadata"), "name", "namespace", "uid", "resourceVersion"),
            **_pick(item, "reason", "message", "type", "count", "firstTimestamp", "lastTimestamp", "eventTime", "series"),
            "involvedObject": _pick(item.get("involvedObject"), "kind", "name", "namespace", "uid")}


def whole(item: Object) -> Object:
    """All but the metadata's bulk."""
    return {"metadata": _metadata(item), **{key: value for key, value in item.items() if key != "metadata"}}


def policy(item: Object) -> Object:
    """The operands' switches and the state."""
    parts = (item.get("spec") or {}).items()
    return {"metadata": _metadata(item), "status": item.get("status") or {},
            "spec": {key: _pick(value, "enabled") for key, value in parts if isinstance(value, Mapping)}}
