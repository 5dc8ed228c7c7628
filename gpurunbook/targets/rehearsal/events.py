"""v1 Events as kubelets write them about their pods and their node, for `kubectl describe` and `kubectl get events`.

One Event for each object, reason and message, counted while it repeats, as client-go's recorder does (tools/record).
An object gets at most 25 of them and one more every five minutes, as by the recorder's spam filter (which counts repeated
ones too). What cannot be written is logged and lost: no pod waits for an event.
Wording: Kubernetes 1.36 (pkg/kubelet).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from gpurunbook.targets.rehearsal.api import STRATEGIC, UNREACHABLE, Api, ApiError, Object
from gpurunbook.targets.rehearsal.pod_status import now

log = logging.getLogger(__name__)
BURST, REFILL = 25, 300.0  # Events of one object, and the seconds until it may have one more: a recorder's spam filter
REMEMBERED = 4096  # Events that are counted on, a recorder's cache
QUEUED = 2000  # events that wait to be written
NODE_EVENTS = "default"  # the namespace of what is said about nodes


@dataclass(frozen=True)
class Event:
    """What is said, about which object, by which node's kubelet. `time` is RFC 3339."""

    involved: tuple[tuple[str, str], ...]
    reason: str
    message: str
    warning: bool
    host: str
    time: str

    @property
    def key(self) -> tuple[object, ...]:
        return self.involved, self.reason, self.message, self.warning


class Recorder:
    """Takes events at any time and writes them in their order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUED)
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()  # an object's, and when that was so
        self._written: OrderedDict[tuple[object, ...], tuple[str, int]] = OrderedDict()  # path, count

    def pod(self, pod: Object, reason: str, message: str, *, field: str = "", warning: bool = False) -> None:
        """About a pod, or with `field` (spec.containers{name}) about one of its containers."""
        metadata = pod["metadata"]
        involved = {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"],
                    "apiVersion": "v1"} | ({"fieldPath": field} if field else {})
        self._take(Event(tuple(involved.items()), reason, message, warning, pod["spec"]["nodeName"], now()))

    def node(self, name: str, reason: str, message: str, *, warning: bool = False) -> None:
        """About a node. A kubelet does not know its Node's uid and says the name instead."""
        involved = {"kind": "Node", "name": name, "uid": name, "apiVersion": "v1"}
        self._take(Event(tuple(involved.items()), reason, message, warning, name, now()))

    def _take(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event lost, %d wait already: %s %s", QUEUED, event.reason, event.message)

    async def run(self, api: Api) -> NoReturn:
        """Write what arrives; never returns."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(api, event)
            except UNREACHABLE as error:
                log.warning("event not written: %s %s: %s", event.reason, event.message, error)

    async def _write(self, api: Api, event: Event) -> None:
        path, count = self._written.get(event.key, ("", 0))
        if path:
            try:
                await api.patch(path, {"count": count + 1, "lastTimestamp": event.time}, STRATEGIC)
            except ApiError as error:
                if error.status != 404:  # the API server forgets events after an hour
                    raise
                path, count = "", 0
        if not path:
            if not self._allowed(event):
                log.warning("event left out, the object has had its %d: %s %s", BURST, event.reason, event.message)
                return
            body = manifest(event, f"{time.time_ns():x}")
            folder = f"/api/v1/namespaces/{body['metadata']['namespace']}/events"
            await api.create(folder, body)
            path = f"{folder}/{body['metadata']['name']}"
        self._written[event.key] = path, count + 1
        self._written.move_to_end(event.key)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def _allowed(self, event: Event) -> bool:
        """Take one of those that the object may still have."""
        now = self._clock()
        left, then = self._left.pop(event.involved, (float(BURST), now))
        left = min(left + (now - then) / REFILL, BURST)
        self._left[event.involved] = (left - 1 if left >= 1 else left), now
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return left >= 1


def manifest(event: Event, suffix: str) -> Object:
    """The v1 Event's object, as it is when it happens for the first time. Pure."""
    involved = dict(event.involved)
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": f"{involved['name']}.{suffix}", "namespace": involved.get("namespace", NODE_EVENTS)},
        "involvedObject": involved, "reason": event.reason, "message": event.message[:1024],
        "type": "Warning" if event.warning else "Normal", "count": 1,
        "firstTimestamp": event.time, "lastTimestamp": event.time,
        "source": {"component": "kubelet", "host": event.host},
        "reportingComponent": "kubelet", "reportingInstance": event.host,
    }
