"""One container: its jail, its program, its logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from gpurunbook.targets.rehearsal import limits, memory, probes, rootfs, spec
from gpurunbook.targets.rehearsal.api import Object
from gpurunbook.targets.rehearsal.images import Image
from gpurunbook.targets.rehearsal.jail import Bind, Jail, interpreter, search_path, uid_for, without
from gpurunbook.targets.rehearsal.logs import LogFile, rotated
from gpurunbook.targets.rehearsal.mounts import Mounts
from gpurunbook.targets.rehearsal.pod_status import ContainerState, lost, now, running, terminated, waiting
from gpurunbook.targets.rehearsal.process import Exit, Process
from gpurunbook.targets.rehearsal.world import World

log = logging.getLogger(__name__)
IDLE = ["/bin/sleep", "infinity"]
KEPT_LOGS = 2  # the newest, and the one before for `kubectl logs --previous`


@dataclass(frozen=True)
class Machine:
    """What all containers of this pod host share."""

    bwrap: str
    mounts: Mounts
    pods: Path
    model: Path
    images: Mapping[str, Image]
    world: World = field(default_factory=World)


class Record(Protocol):
    """Says something about the container as a v1 Event."""

    def __call__(self, reason: str, message: str, *, warning: bool = False) -> None: ...


class Container:
    """A container of a pod whose image runs for real. Its `state` is what the pod's status says.

    Args:
        field: its path in the pod, as events name it.
        cut: exec streams into it break.
    """

    def __init__(self, machine: Machine, pod: Object, entry: Object, field: str, changed: Callable[[], None],
                 record: Record, *, cut: bool = False) -> None:
        self.entry, self.image = entry, machine.images.get(entry["image"])
        self.field, self.record, self.cut = field, record, cut
        self.name: str = entry["name"]
        self.state = ContainerState(self.name, entry["image"])
        self.uid = uid_for(pod["metadata"]["uid"])
        self.jail: Jail | None = None
        self.running = asyncio.Event()  # cleared: its log has its last line
        self.changed = changed
        self._machine, self._pod = machine, pod
        self._folder: Path = machine.pods / pod["metadata"]["uid"] / self.name
        self._root = self._folder / "root"
        self._process: Process | None = None
        self._oom = False

    def log(self, *, previous: bool = False) -> Path:
        """The log of the newest start, or of the one before."""
        return self._log(self.state.restarts - previous)

    def _log(self, start: int) -> Path:
        return self._folder / f"{start}.log"

    def adopt(self, status: Object) -> None:
        """Go on from what an earlier pod host reported; what it had running ended with it."""
        self.state.restarts = status.get("restartCount", 0)
        self.state.last = status.get("lastState", {})
        self.state.state = status.get("state") or self.state.state
        if "running" in self.state.state:
            self.state.state = lost(now())
        elif self.state.state.get("waiting", {}).get("reason") == "CrashLoopBackOff":
            self.state.state = self.state.last

    async def run(self, volumes: Mapping[str, spec.Volume], maps: Mapping[str, Object],
                  more: Mapping[str, str]) -> None:
        """Start it with fresh files, and wait for its end, which is then its `state`.

        Args:
            more: variables that win over the pod's own.

        Raises:
            NotNow: it cannot be made as things are.
        """
        if self.image is None:
            raise spec.NotNow("ErrImagePull", f"{self.entry['image']} is not in the rehearsal's image map; a pod is "
                                              "simulated as a whole or runs for real as a whole")
        variables = {**spec.environment(self._pod, self.entry, self.image, maps), **more}
        words = spec.command(self.entry, self.image, variables) or IDLE
        self.jail = self._jail(self.image, volumes, variables)
        lines = LogFile(self.log())
        old = self._log(self.state.restarts - KEPT_LOGS)
        for path in (old, rotated(old)):
            path.unlink(missing_ok=True)
        try:
            process = self._process = Process.start(self.jail, words)
        except OSError as error:
            lines.close()
            raise spec.NotNow("RunContainerError", str(error)) from error
        self.state.container_id = f"rehearsal://{self._pod['metadata']['uid']}/{self.name}/{self.state.restarts}"
        started = now()
        self.state.state, self.state.ready = running(started), not probes.has(self.entry, "readinessProbe")
        self.running.set()
        self.changed()
        self._oom = False
        self.record("Created", "Container created")
        self.record("Started", "Container started")
        watching = [asyncio.create_task(probes.watch(self)), asyncio.create_task(self._hold())]
        for task in watching:
            task.add_done_callback(self._watched)
        try:
            end = await self._drain(process, lines)
            self.state.state = terminated(end, started, now(), self.state.container_id, oom=self._oom)
        finally:
            for task in watching:
                task.cancel()
            # What was started by exec goes with the container, as with its process table.
            for one in self._processes():
                one.kill()
            await process.wait()
            process.close()
            lines.close()
            self._process, self.state.ready = None, False
            self.running.clear()
            self.changed()

    def _processes(self) -> list[Process]:
        """Its program, and all that exec and probes have started in it."""
        return [process for process in Process.alive if process.jail is self.jail]

    def _watched(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod %s, container %s: its probes or its memory limit are watched no more",
                      self._pod["metadata"]["name"], self.name, exc_info=error)

    async def clean(self) -> None:
        """Remove the files of its start before. In a thread: on a disk they may be many."""
        self._machine.mounts.drop(self._root)
        await asyncio.to_thread(rootfs.remove, self._root)

    async def _hold(self) -> None:
        """Kill all of it when it uses more memory than it gets."""
        most = limits.memory(memory.limit(self.entry))
        await memory.exceeded(lambda: [one.init for one in self._processes() if one.init is not None], most)
        self._oom = True
        for process in self._processes():
            process.kill()

    @staticmethod
    async def _drain(process: Process, lines: LogFile) -> Exit:
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lines.take(process.stdout, "stdout"))
            tasks.create_task(lines.take(process.stderr, "stderr"))
        return await process.wait()

    def _jail(self, image: Image, volumes: Mapping[str, spec.Volume], variables: Mapping[str, str]) -> Jail:
        metadata, machine = self._pod["metadata"], self._machine
        pod = machine.pods / metadata["uid"]
        workdir = os.path.normpath(PurePosixPath("/", self.entry.get("workingDir") or image.workdir))
        binds = [Bind(str(path), dest) for dest, path in rootfs.make_etc(pod / "etc", metadata["name"]).items()]
        binds += [Bind(path, path) for path in interpreter()]
        binds += without(image.lacks)
        if image.model is not None:
            binds.append(Bind(str(machine.model), image.model))
        for volume, below, dest, writable in spec.mounts(self.entry, volumes):
            binds.append(Bind(str(pod / "volumes" / volume.name / below), dest.rstrip("/") or "/", writable))
        _refuse_files_below_volumes(binds)
        if "/dev/shm" not in (bind.dest for bind in binds):  # noqa: S108
            binds.append(Bind(str(pod / "shm"), "/dev/shm", True))  # noqa: S108
            rootfs.give(machine.mounts.make(pod / "shm", limits.SHM), None, 0o1777)
        self._folder.mkdir(mode=0o711, exist_ok=True)
        own = rootfs.own_folders([bind.dest for bind in binds if not bind.dest.startswith("/etc/")], workdir)
        binds += [Bind(str(path), dest, True)
                  for dest, path in rootfs.make_own(machine.mounts.make(self._root, limits.FOLDER), own, self.uid).items()]
        return Jail(
            bwrap=machine.mounts.source(machine.bwrap),
            binds=tuple(Bind(machine.mounts.source(bind.source), bind.dest, bind.writable) for bind in binds),
            environment={"PATH": search_path(), "HOME": "/root", "LANG": "C.UTF-8", **variables},
            workdir=workdir, hostname=metadata["name"][:63], uid=self.uid,
        )

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Signal its program; SIGKILL ends everything in it."""
        if self._process is None:
            return
        if number == signal.SIGKILL:
            self._process.kill()
        else:
            self._process.terminate(number)

    async def end(self) -> None:
        """SIGTERM, the pod's grace period, SIGKILL: what a failed liveness probe asks for."""
        self.record("Killing", f"Container {self.name} failed liveness probe, will be restarted")
        self.signal()
        if self._process is not None:
            grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._process.wait()
            self.signal(signal.SIGKILL)

    def wait_for(self, reason: str, message: str = "") -> None:
        """Report that it waits, keeping how it last ended."""
        if "terminated" in self.state.state:
            self.state.last = self.state.state
        self.state.state = waiting(reason, message)
        self.changed()


def _refuse_files_below_volumes(binds: Sequence[Bind]) -> None:
    """Raises NotNow for a file mounted where a pod can write: bubblewrap would follow a link that an earlier container planted
    there, and make the file outside of the jail."""
    folders = [PurePosixPath(bind.dest) for bind in binds if bind.writable]
    for bind in binds:
        if not os.path.isdir(bind.source) and any(PurePosixPath(bind.dest).is_relative_to(folder) for folder in folders):
            raise spec.NotNow(spec.CONFIG_ERROR, f"a rehearsal mounts no file below a volume that can be written: {bind.dest}")
