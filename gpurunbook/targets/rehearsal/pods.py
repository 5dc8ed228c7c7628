"""The pods that run for real: which of the cluster's are ours, and one task for each.

A pod is ours when it is bound to a node and one of its images is in the image map (all must be). pod.py is its life.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from gpurunbook.targets.rehearsal import rootfs
from gpurunbook.targets.rehearsal.api import UNREACHABLE, Api, Object
from gpurunbook.targets.rehearsal.container import Machine
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.faults import Faults
from gpurunbook.targets.rehearsal.pod import RETRY, Host, Pod
from gpurunbook.targets.rehearsal.pulls import Pulls

log = logging.getLogger(__name__)


class Pods:
    """All pods that run for real, by namespace and name."""

    def __init__(self, machine: Machine, events: Recorder) -> None:
        self._machine, self._events = machine, events
        self._faults = Faults(machine.world)
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
        pulls = Pulls(api, self._machine.world, self._machine.images, self._events)
        host = Host(self._machine, api, self._events, pulls, self._faults)
        try:
            await self._forget(api)
            async for kind, pod in api.watch("/api/v1/pods"):
                self._faults.see(kind, pod)
                pulls.see(kind, pod)
                uid = pod["metadata"]["uid"]
                if uid in self._tasks:
                    self._tasks[uid][0].see(pod)
                    if kind == "DELETED":
                        self._tasks[uid][0].gone()
                elif kind != "DELETED" and self._ours(pod):
                    self._start(host, pod)
        finally:
            tasks = [task for _, task in self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, pulls.close(), return_exceptions=True)

    def _ours(self, pod: Object) -> bool:
        """As KWOK's Stages see it too: cluster.py keeps them off these."""
        return "nodeName" in pod["spec"] and any(one["image"] in self._machine.images
                                                 for one in pod["spec"]["containers"])

    def _start(self, host: Host, found: Object) -> None:
        uid = found["metadata"]["uid"]
        pod = Pod(host, found)
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
        await asyncio.to_thread(_remove_others, self._machine.pods, known)


def _remove_others(pods: Path, known: Collection[str]) -> None:
    for folder in pods.iterdir():
        if folder.name not in known:
            rootfs.remove(folder)
