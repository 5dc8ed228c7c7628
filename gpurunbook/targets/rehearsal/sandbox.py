"""What a kubelet says of operands that get no sandbox, since containerd has no runtime `nvidia` (gpu_operands.held)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from gpurunbook.targets.rehearsal.api import UNREACHABLE, Api, ApiError, Object
from gpurunbook.targets.rehearsal.gpu_operands import HELD_BY, HELD_ON, OPERANDS, RUNTIME
from gpurunbook.targets.rehearsal.pod_status import now

PODS = "/api/v1/pods"
SELECTED = f"app in ({','.join(operand.name for operand in OPERANDS if operand.runtime)})"
RETRY = 11.0
"""Seconds between two tries of a kubelet to make a sandbox: 10 to 15."""
REASON = "FailedCreatePodSandBox"
log = logging.getLogger(__name__)


async def report(api: Api) -> None:
    """Write the event of every held pod when it appears and at every try after it, until cancelled."""
    pods: dict[str, Object] = {}
    async with asyncio.TaskGroup() as group:
        group.create_task(_try_again(api, pods))
        async for kind, pod in api.watch(PODS, labelSelector=SELECTED):
            uid = pod["metadata"]["uid"]
            if kind == "DELETED" or not is_held(pod):
                pods.pop(uid, None)
            elif uid not in pods:
                pods[uid] = pod
                await _tell(api, [pod])
            else:
                pods[uid] = pod


def is_held(pod: Object) -> bool:
    """Whether the pod is on a node that has no runtime for it."""
    notes = pod["metadata"].get("annotations", {})
    return (notes.get(HELD_BY) == RUNTIME and pod["spec"].get("nodeName", "") in notes.get(HELD_ON, "").split(",")
            and "deletionTimestamp" not in pod["metadata"])


def event(pod: Object, before: Object, now: str) -> Object:
    """The event of one more try. `before`: the event so far, or {}."""
    metadata, runtime = pod["metadata"], pod["spec"].get("runtimeClassName", "nvidia")
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": _name(pod), "namespace": metadata["namespace"]},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"],
                           "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "type": "Warning", "reason": REASON,
        "message": "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
                   f'no runtime for "{runtime}" is configured',
        "count": before.get("count", 0) + 1, "firstTimestamp": before.get("firstTimestamp", now), "lastTimestamp": now,
        "source": {"component": "kubelet", "host": pod["spec"]["nodeName"]}, "reportingComponent": "kubelet",
        "reportingInstance": pod["spec"]["nodeName"]}


async def _try_again(api: Api, pods: dict[str, Object]) -> None:
    while True:
        await asyncio.sleep(RETRY)
        await _tell(api, list(pods.values()))


async def _tell(api: Api, pods: Iterable[Object]) -> None:
    time = now()
    for pod in pods:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/events/{_name(pod)}"
        try:
            body = event(pod, await _get(api, path), time)
            await api.request("PATCH", path, body, content_type="application/apply-patch+yaml", fieldManager="kubelet",
                              force="true")
        except UNREACHABLE as error:
            # As a kubelet's: an event that cannot be written is lost, and the next try has its own.
            log.info("the event of %s is lost: %s", pod["metadata"]["name"], error)


async def _get(api: Api, path: str) -> Object:
    try:
        return await api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return {}


def _name(pod: Object) -> str:
    return f"{pod['metadata']['name']}.{pod['metadata']['uid'][:8]}sandbox"
