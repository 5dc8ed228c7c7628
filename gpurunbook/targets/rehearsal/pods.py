"""The pods that run for real: from the API server's objects to jailed programs, and their status back.

A pod is ours when it is bound to a node and one of its images is in the image map (all must be). Life is a kubelet's:
init containers in order, restart policy with back-off (1, 2, 4, ... 60 s, anew after 60 s of running), SIGTERM, the
grace period and SIGKILL on deletion, run to completion. Not here: probes other than exec (a pod has no network; they
count as passed), startup probes, lifecycle hooks, activeDeadlineSeconds, resource limits, ephemeral containers, and
restartable init containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time

import aiohttp

from gpurunbook.targets.rehearsal import pod_status, rootfs, spec
from gpurunbook.targets.rehearsal.api import STRATEGIC, Api, ApiError, Object
from gpurunbook.targets.rehearsal.container import Container, Machine
from gpurunbook.targets.rehearsal.jail import uid_for

log = logging.getLogger(__name__)
RETRY = 1.0  # seconds between two looks at something that a pod waits for
UNREACHABLE = (aiohttp.ClientError, TimeoutError, ApiError)


class Pod:
    """One pod's whole life, as a task."""

    def __init__(self, machine: Machine, api: Api, pod: Object) -> None:
        self.object = pod
        self._machine, self._api = machine, api
        self._folder = machine.pods / pod["metadata"]["uid"]
        self._changed, self._ending, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._init_failed = False
        self._maps: dict[str, Object] = {}
        self._volumes: dict[str, spec.Volume] = {}
        self._init = [Container(machine, pod, one, self._changed.set) for one in pod["spec"].get("initContainers", [])]
        self._containers = [Container(machine, pod, one, self._changed.set) for one in pod["spec"]["containers"]]
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

    def gone(self) -> None:
        """The object is no more: end at once."""
        self._gone.set()
        self._ending.set()

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
                    rootfs.make_volume(self._folder / "volumes" / volume.name, volume.files, uid)
                    self._volumes[volume.name] = volume
                return
            except spec.NotNow as reason:
                for container in (*self._init, *self._containers):
                    container.wait_for(reason.reason, reason.message)
            await self._pause(RETRY)

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
        failures = 0
        while True:
            ended = container.state.state.get("terminated")
            if ended is not None:
                if not pod_status.restarts(policy, ended["exitCode"]):
                    return bool(ended["exitCode"] == 0)
                if ended["reason"] != pod_status.LOST:
                    delay = pod_status.backoff(failures)
                    failures += 1
                    container.wait_for("CrashLoopBackOff", f"back-off {delay}s restarting failed container="
                                                           f"{container.name} pod={self.object['metadata']['name']}")
                    await self._pause(delay)
                container.wait_for("ContainerCreating")
                container.state.restarts += 1
            if self._ending.is_set():
                return False
            began = time.monotonic()
            try:
                await container.run(self._volumes, self._maps)
            except spec.NotNow as reason:
                container.wait_for(reason.reason, reason.message)
                await self._pause(RETRY)
                await self._prepare()  # what was missing may have come
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
            container.signal()
        await asyncio.wait({life, gone}, timeout=self.object["metadata"].get("deletionGracePeriodSeconds", 30),
                           return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        for container in (*self._init, *self._containers):
            container.signal(signal.SIGKILL)
        await life

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


class Pods:
    """All pods that run for real, by namespace and name."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._tasks: dict[str, tuple[Pod, asyncio.Task[None]]] = {}

    def find(self, namespace: str, name: str) -> Pod | None:
        """A pod that is ours; the newest of this name, since an older one may still be on its way out."""
        for pod, _ in reversed(self._tasks.values()):
            metadata = pod.object["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return pod
        return None

    async def run(self, api: Api) -> None:
        """Watch the cluster's pods; never returns. Cancelled, it ends all their processes."""
        try:
            await self._forget(api)
            async for kind, pod in api.watch("/api/v1/pods"):
                uid = pod["metadata"]["uid"]
                if uid in self._tasks:
                    self._tasks[uid][0].see(pod)
                    if kind == "DELETED":
                        self._tasks[uid][0].gone()
                elif kind != "DELETED" and self._ours(pod):
                    self._start(api, pod)
        finally:
            tasks = [task for _, task in self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ours(self, pod: Object) -> bool:
        """As KWOK's Stages see it too: cluster.py keeps them off these."""
        return "nodeName" in pod["spec"] and any(one["image"] in self._machine.images
                                                 for one in pod["spec"]["containers"])

    def _start(self, api: Api, found: Object) -> None:
        uid = found["metadata"]["uid"]
        pod = Pod(self._machine, api, found)
        task = asyncio.create_task(pod.run())
        self._tasks[uid] = pod, task

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[uid]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("pod %s: given up until it changes", found["metadata"]["name"], exc_info=error)

        task.add_done_callback(ended)

    async def _forget(self, api: Api) -> None:
        """Remove the folders of pods that went while no pod host ran."""
        while True:
            try:
                known = {pod["metadata"]["uid"] for pod in (await api.get("/api/v1/pods"))["items"]}
                break
            except UNREACHABLE as error:
                log.info("waiting for the API server: %s", error)
                await asyncio.sleep(RETRY)
        for folder in self._machine.pods.iterdir():
            if folder.name not in known:
                rootfs.remove(folder)
