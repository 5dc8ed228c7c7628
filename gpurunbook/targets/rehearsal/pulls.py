"""Image pulls: how long they take, what they need on the node's disk, and how they fail.

A node pulls an image once, whoever asks for it first; others wait (a kubelet of EKS pulls different images at the same
time). What a node has is in its status.images, so it outlives the pod host and goes with the Node object.

The GPU operator's toolkit restarts containerd when it has written its configuration (NVIDIA/gpu-operator#991), which ends
the pulls that run on its node. The kubelet backs off and asks again; what was there by then stays, so the next try takes
what was left.

Not here: layers that images share, eviction and garbage collection, pull secrets, and imagePullPolicy (all are
IfNotPresent).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Mapping

from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.api import STRATEGIC, UNREACHABLE, Api, ApiError, Object
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.gpu_operands import TOOLKIT
from gpurunbook.targets.rehearsal.images import Image
from gpurunbook.targets.rehearsal.memory import quantity
from gpurunbook.targets.rehearsal.pod_status import ready
from gpurunbook.targets.rehearsal.world import World

log = logging.getLogger(__name__)
RETRY = 1.0  # seconds between two tries to reach the API server
UNPACKED = 2.5  # what an image needs on disk, packed and unpacked, per byte of its size
BACKOFF, BACKOFF_MOST = 10.0, 300.0  # seconds, a kubelet's
QUICKEST = 0.05  # of the kubelet's back-off, at pace 0
RESTARTED = "rpc error: code = Unavailable desc = error reading from server: EOF"
"""What a kubelet reads when containerd is restarted while it waits for an answer."""


class PullFailed(Exception):
    """The text is what containerd says."""


class Pulls:
    """The pulls of all nodes."""

    def __init__(self, api: Api, world: World, images: Mapping[str, Image], events: Recorder) -> None:
        self._api, self._world, self._images, self._events = api, world, images, events
        self._running: dict[tuple[str, str], asyncio.Task[float]] = {}  # by the node's uid and the image
        self._patching: dict[str, asyncio.Lock] = {}
        self._restarts: dict[str, asyncio.Event] = {}  # by the node's name: containerd's next one
        self._left: dict[tuple[str, str], float] = {}  # seconds of a pull that a restart has ended
        self._toolkits: dict[str, bool] = {}  # the toolkit's pods by uid: Ready?

    def see(self, kind: str, pod: Object) -> None:
        """Take an event of the watch on all pods. A toolkit that is Ready when first seen has restarted containerd before."""
        metadata = pod["metadata"]
        if metadata.get("labels", {}).get("app") != TOOLKIT.name:
            return
        before = self._toolkits.pop(metadata["uid"], None)
        if kind != "DELETED":
            self._toolkits[metadata["uid"]] = ready(pod) or bool(before)
            if before is False and ready(pod) and (restart := self._restarts.pop(pod["spec"].get("nodeName", ""), None)):
                restart.set()

    async def ensure(self, pod: Object, field: str, image: str) -> None:
        """Return when the pod's node has the image. Cancelled, the pull goes on for whoever asks next.

        Raises:
            PullFailed: it cannot be pulled.
        """
        def say(reason: str, message: str, *, warning: bool = False) -> None:
            self._events.pod(pod, reason, message, field=field, warning=warning)

        node = await self._node(pod["spec"]["nodeName"])
        if image in present(node):
            say("Pulled", f'Container image "{image}" already present on machine and can be accessed by the pod')
            return
        say("Pulling", f'Pulling image "{image}"')
        began, key = time.monotonic(), (node["metadata"]["uid"], image)
        mine = key not in self._running
        if mine:
            self._running[key] = asyncio.create_task(self._pull(node, image))
            self._running[key].add_done_callback(lambda task: self._done(key, task))
        try:
            seconds = await asyncio.shield(self._running[key])
        except PullFailed as error:
            say("Failed", f'Failed to pull image "{image}": {error}', warning=True)
            say("Failed", "Error: ErrImagePull", warning=True)
            raise
        whole = time.monotonic() - began
        took = duration(min(seconds, whole) if mine else 0.0)
        say("Pulled", f'Successfully pulled image "{image}" in {took} ({duration(whole)} including waiting). '
                      f"Image size: {size(self._images[image])} bytes.")

    def back_off(self, pod: Object, field: str, image: str) -> str:
        """Say that the next try waits. Returns the message of the container's waiting state."""
        message = f'Back-off pulling image "{image}"'
        self._events.pod(pod, "BackOff", message, field=field)
        self._events.pod(pod, "Failed", "Error: ImagePullBackOff", field=field, warning=True)
        return message

    def _done(self, key: tuple[str, str], task: asyncio.Task[float]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, also when the pods that waited are gone

    async def close(self) -> None:
        """End what still runs."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _pull(self, node: Object, name: str) -> float:
        """Pull it onto the node. Returns the seconds that it took."""
        image, node_name = self._images[name], node["metadata"]["name"]
        with contextlib.suppress(*UNREACHABLE):
            if name in present(await self._api.get(f"/api/v1/nodes/{node_name}")):
                return 0.0  # by a pull that ended after the node had been read
        seconds = pull_seconds(image.gigabytes, self._world, node_name, name)
        if image.pull_error:
            await asyncio.sleep(min(seconds, self._world.pace))
            raise PullFailed(image.pull_error)
        needed = UNPACKED * size(image)
        disk = quantity(node["status"]["capacity"]["ephemeral-storage"])
        if needed > disk:
            await self._take(node, name, seconds * disk / needed)
            self._events.node(node_name, "FreeDiskSpaceFailed", "Failed to garbage collect required amount of images. "
                              f"Attempted to free {needed - 0.8 * disk:.0f} bytes, but only found 0 bytes eligible to "
                              "free.", warning=True)
            layer = hashlib.sha256(name.encode()).hexdigest()
            raise PullFailed(f'failed to pull and unpack image "{name}": failed to extract layer sha256:{layer}: '
                             "write /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/"
                             f"{int(layer[:2], 16)}/fs{image.model or image.workdir}: no space left on device")
        took = await self._take(node, name, seconds)
        await self._add(node, name, size(image))
        return took

    async def _take(self, node: Object, image: str, seconds: float) -> float:
        """Let a pull's time pass, or what an earlier try left of it. Returns it. Raises PullFailed at containerd's restart."""
        key = node["metadata"]["uid"], image
        seconds, began = self._left.pop(key, seconds), time.monotonic()
        restart = self._restarts.setdefault(node["metadata"]["name"], asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await restart.wait()
        except TimeoutError:
            return seconds
        self._left[key] = max(seconds - (time.monotonic() - began), 0.0)
        raise PullFailed(RESTARTED)

    async def _node(self, name: str) -> Object:
        while True:
            try:
                return await self._api.get(f"/api/v1/nodes/{name}")
            except UNREACHABLE as error:
                log.info("node %s: asked again: %s", name, error)  # of a deleted node too: its pods are deleted next
                await asyncio.sleep(RETRY)

    async def _add(self, node: Object, image: str, count: int) -> None:
        """Write the image into the node's status.images, unless that Node is no more."""
        name, uid = node["metadata"]["name"], node["metadata"]["uid"]
        async with self._patching.setdefault(uid, asyncio.Lock()):
            while True:
                try:
                    known = await self._api.get(f"/api/v1/nodes/{name}")
                    if image in present(known):
                        return
                    images = [*known["status"].get("images", []), {"names": [image], "sizeBytes": count}]
                    images.sort(key=lambda entry: -entry.get("sizeBytes", 0))  # a kubelet's order; the server leaves out a 0
                    await self._api.patch(f"/api/v1/nodes/{name}/status",
                                          {"metadata": {"uid": uid}, "status": {"images": images}}, STRATEGIC)
                    return
                except UNREACHABLE as error:
                    if isinstance(error, ApiError) and error.status in (404, 409):
                        return
                    log.info("node %s: images not written, will be: %s", name, error)
                    await asyncio.sleep(RETRY)


def present(node: Object) -> set[str]:
    """The names of the images that a node has."""
    return {name for image in node.get("status", {}).get("images", []) for name in image.get("names", [])}


def size(image: Image) -> int:
    """Bytes."""
    return round(image.gigabytes * 1e9)


def pull_seconds(gigabytes: float, world: World, node: str, image: str) -> float:
    """How long a node takes for an image: the same each time for the same world."""
    return gigabytes * pace.seconds("image pull per GB", world, node, image)


def back_off_seconds(failures: int, world: World) -> float:
    """Seconds before the next try after so many in a row: 10, 20, ... 300, at the world's pace."""
    return min(BACKOFF * (1 << min(failures, 10)), BACKOFF_MOST) * max(world.pace, QUICKEST)


def duration(seconds: float) -> str:
    """As Go writes it, to the millisecond: 2m18.204s, 312ms."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60}m{text}"
    return f"{minutes}m{text}" if minutes else text
