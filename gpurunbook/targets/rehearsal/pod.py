"""One pod that runs for real: from the API server's object to jailed programs, and their status back.

Life is a kubelet's: the image's pull, init containers in order, restart policy with back-off (1, 2, 4, ... 60 s, anew
after 60 s of running), SIGTERM, the grace period and SIGKILL on deletion, run to completion, and events about it. Not
here: probes other than exec (a pod has no network; they count as passed), startup probes, lifecycle hooks,
activeDeadlineSeconds, limits other than memory's, eviction, ephemeral containers, and restartable init containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass
from functools import partial

from gpurunbook.targets.rehearsal import pace, pod_status, rootfs, spec
from gpurunbook.targets.rehearsal.api import STRATEGIC, UNREACHABLE, Api, ApiError, Object
from gpurunbook.targets.rehearsal.container import Container, Machine
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.faults import Faults
from gpurunbook.targets.rehearsal.jail import uid_for
from gpurunbook.targets.rehearsal.pulls import PullFailed, Pulls, back_off_seconds

log = logging.getLogger(__name__)
RETRY = 1.0  # seconds between two looks at something that a pod waits for
SAY_AGAIN = 10.0  # seconds between two events about the same wait, a kubelet's sync


@dataclass(frozen=True)
class Host:
    """What all pods of a pod host share."""

    machine: Machine
    api: Api
    events: Recorder
    pulls: Pulls
    faults: Faults


class Pod:
    """One pod's whole life, as a task."""

    def __init__(self, host: Host, pod: Object) -> None:
        self.object = pod
        self._host, self._api = host, host.api
        self._folder = host.machine.pods / pod["metadata"]["uid"]
        self._changed, self._ending, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._init_failed = self._reported = False
        self._said: dict[str, float] = {}  # what it waits for, and when that was an event
        self._maps: dict[str, Object] = {}
        self._volumes: dict[str, spec.Volume] = {}
        self._init = [self._container(one, "initContainers") for one in pod["spec"].get("initContainers", [])]
        self._containers = [self._container(one, "containers") for one in pod["spec"]["containers"]]
        self._policy: str = pod["spec"].get("restartPolicy", "Always")
        self.see(pod)

    @property
    def _path(self) -> str:
        metadata = self.object["metadata"]
        return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"

    def see(self, pod: Object) -> None:
        """Take the newest state of the object."""
        self.object = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._ending.set()
        elif self._reported and pod_status.ready(pod) != all(one.state.ready for one in self._containers):
            self._changed.set()  # a node that was not ready: the node controller has changed it, and we know better

    def gone(self) -> None:
        """The object is no more: end at once."""
        self._gone.set()
        self._ending.set()

    def _container(self, entry: Object, where: str) -> Container:
        field = f"spec.{where}{{{entry['name']}}}"
        record = partial(self._host.events.pod, self.object, field=field)
        return Container(self._host.machine, self.object, entry, field, self._changed.set, record,
                         cut=self._host.faults.cuts(self.object))

    def find(self, name: str) -> Container | None:
        """A container by name."""
        return next((one for one in (*self._containers, *self._init) if one.name == name), None)

    async def run(self) -> None:
        """Until the object is deleted."""
        publisher = asyncio.create_task(self._publish())
        life = asyncio.create_task(self._live())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({life, ending}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
                await ending
            await self._end(life)
            publisher.cancel()
            await asyncio.gather(publisher, return_exceptions=True)
            await self._delete()
            self._host.machine.mounts.drop(self._folder)
            await asyncio.to_thread(rootfs.remove, self._folder)
        finally:
            for task in (publisher, life, ending):
                task.cancel()
            await asyncio.gather(publisher, life, ending, return_exceptions=True)

    async def _live(self) -> None:
        """Until no container is to be started again, or the pod is being deleted."""
        status = self.object.get("status", {})
        reported = {one["name"]: one for key in ("initContainerStatuses", "containerStatuses")
                    for one in status.get(key, [])}
        for container in (*self._init, *self._containers):
            if container.name in reported:
                container.adopt(reported[container.name])
        if status.get("phase") in ("Succeeded", "Failed"):
            return
        self._changed.set()  # a pull may take minutes, and the pod says that it is being made
        for folder in (self._folder, self._folder / "volumes"):
            folder.mkdir(mode=0o711, exist_ok=True)
        await self._prepare()
        for container in self._init:
            policy = "OnFailure" if self._policy == "Always" else self._policy
            if not await self._supervise(container, policy):
                self._init_failed = not self._ending.is_set()
                self._changed.set()
                return
        async with asyncio.TaskGroup() as tasks:
            for container in self._containers:
                tasks.create_task(self._supervise(container, self._policy))

    async def _prepare(self) -> None:
        """Make the volumes, waiting for ConfigMaps that are not there yet."""
        uid = uid_for(self.object["metadata"]["uid"])
        while not self._ending.is_set():
            try:
                self._maps = await self._config_maps()
                for volume in spec.volumes(self.object, self._maps):
                    self._make_volume(volume, uid)
                    self._volumes[volume.name] = volume
                return
            except spec.NotNow as reason:
                self._say("FailedMount", f"MountVolume.SetUp failed: {reason.message}")
                for container in (*self._init, *self._containers):
                    container.wait_for(reason.reason, reason.message)
            await self._pause(RETRY)

    def _make_volume(self, volume: spec.Volume, uid: int | None) -> None:
        folder = self._folder / "volumes" / volume.name
        if volume.files is None:
            rootfs.give(self._host.machine.mounts.make(folder, volume.size), uid, 0o777)
        else:
            rootfs.make_files(folder, volume.files)

    async def _config_maps(self) -> dict[str, Object]:
        found, namespace = {}, self.object["metadata"]["namespace"]
        for name in spec.config_maps(self.object):
            try:
                found[name] = await self._api.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
            except UNREACHABLE as error:
                if not isinstance(error, ApiError) or error.status != 404:
                    raise spec.NotNow("ContainerCreating", f"configmap {name}: {error}") from error
        return found

    async def _supervise(self, container: Container, policy: str) -> bool:
        """Run a container as often as the policy says. True when it has ended well."""
        failures, pulled = 0, False
        while True:
            ended = container.state.state.get("terminated")
            if ended is not None:
                if not pod_status.restarts(policy, ended["exitCode"]):
                    return bool(ended["exitCode"] == 0)
                if ended["reason"] != pod_status.LOST:
                    delay = pod_status.backoff(failures)
                    failures += 1
                    metadata = self.object["metadata"]
                    container.record("BackOff", f"Back-off restarting failed container {container.name} in pod "
                                     f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})", warning=True)
                    container.wait_for("CrashLoopBackOff", f"back-off {delay}s restarting failed container="
                                                           f"{container.name} pod={metadata['name']}")
                    await self._pause(delay)
                container.wait_for("ContainerCreating")
                container.state.restarts += 1
            if not pulled:
                await self._pull(container)
            await container.clean()
            if self._ending.is_set():
                return False
            pulled, began = True, time.monotonic()
            try:
                await container.run(self._volumes, self._maps, self._host.faults.environment(self.object))
            except spec.NotNow as reason:
                self._say("Failed", f"Error: {reason.message}", container.field)
                container.wait_for(reason.reason, reason.message)
                await self._pause(RETRY)
                await self._prepare()  # what was missing may have come
            else:
                pulled = False
            if self._ending.is_set():
                return False
            if time.monotonic() - began > pod_status.BACKOFF_MOST:
                failures = 0

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _end(self, life: asyncio.Task[None]) -> None:
        """SIGTERM, the grace period unless the object goes before, SIGKILL."""
        gone = asyncio.create_task(self._gone.wait())
        for container in (*self._init, *self._containers):
            if container.running.is_set():
                container.record("Killing", f"Stopping container {container.name}")
            container.signal()
        await asyncio.wait({life, gone}, timeout=self.object["metadata"].get("deletionGracePeriodSeconds", 30),
                           return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        for container in (*self._init, *self._containers):
            container.signal(signal.SIGKILL)
        await life

    def _say(self, reason: str, message: str, field: str = "") -> None:
        if time.monotonic() - self._said.get(field + message, -SAY_AGAIN) >= SAY_AGAIN:
            self._said[field + message] = time.monotonic()
            self._host.events.pod(self.object, reason, message, field=field, warning=True)

    async def _pull(self, container: Container) -> None:
        """Until the node has the container's image and starts it, or the pod is being deleted."""
        if container.image is None:  # which `run` explains
            return
        world, name, failures = self._host.machine.world, container.entry["image"], 0
        while not self._ending.is_set():
            pull = asyncio.create_task(self._host.pulls.ensure(self.object, container.field, name))
            ending = asyncio.create_task(self._ending.wait())
            try:
                await asyncio.wait({pull, ending}, return_when=asyncio.FIRST_COMPLETED)
                if pull.done():
                    pull.result()
                    await self._pause(pace.seconds("container start", world, self.object["spec"]["nodeName"], name))
                return
            except PullFailed as error:
                delay = back_off_seconds(failures, world)
                failures += 1
                container.wait_for("ErrImagePull", str(error))
                await self._pause(min(RETRY, delay / 2))
                message = self._host.pulls.back_off(self.object, container.field, name)
                container.wait_for("ImagePullBackOff", f"{message}: ErrImagePull: {error}")
                await self._pause(delay - min(RETRY, delay / 2))
            finally:
                for task in (pull, ending):
                    task.cancel()
                await asyncio.gather(pull, ending, return_exceptions=True)

    async def _publish(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._patch()
            except UNREACHABLE as error:
                if isinstance(error, ApiError) and error.status in (404, 409):
                    continue  # the object went; the watch will say so
                log.warning("%s: status not written, will be: %s", self._path, error)
                await asyncio.sleep(RETRY)
                self._changed.set()

    async def _patch(self, *, ending: bool = False) -> None:
        init, containers = [one.state for one in self._init], [one.state for one in self._containers]
        patch = pod_status.report(self.object, init, containers, init_failed=self._init_failed, ending=ending)
        self._reported = True
        self.see(await self._api.patch(f"{self._path}/status", patch, STRATEGIC))

    async def _delete(self) -> None:
        """Report the last state and remove the object, as a kubelet does when all has ended."""
        uid = self.object["metadata"]["uid"]
        while not self._gone.is_set():
            try:
                await self._patch(ending=True)
                await self._api.delete(self._path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
                return
            except UNREACHABLE as error:
                if isinstance(error, ApiError) and error.status in (404, 409):
                    return
                log.warning("%s: not deleted yet: %s", self._path, error)
                await asyncio.sleep(RETRY)
