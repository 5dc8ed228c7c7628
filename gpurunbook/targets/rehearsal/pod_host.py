"""The pod host: the kubelet API of every node of a rehearsal, on loopback, for the API server only.

    /exec/{namespace}/{pod}/{container}            exec.py
    /containerLogs/{namespace}/{pod}/{container}   logs.py
    /attach, /portForward                          refused (501), with what to use instead

The server asks for a client certificate of the CA that `pki.py` makes for nothing else, so whoever gets in is the API
server, which has checked the user's rights. Pods that are not ours are KWOK's: they are simulated, and it says so.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.targets.rehearsal import cloud, flapping, jail, limits, logs, pki, world
from gpurunbook.targets.rehearsal import exec as execution
from gpurunbook.targets.rehearsal.api import Api
from gpurunbook.targets.rehearsal.container import Container, Machine
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.images import load
from gpurunbook.targets.rehearsal.mounts import Mounts
from gpurunbook.targets.rehearsal.pods import Pods
from gpurunbook.targets.rehearsal.process import Process
from gpurunbook.targets.rehearsal.registration import register, register_again

log = logging.getLogger(__name__)
KUBECONFIG_PAUSE = 0.1  # seconds between two looks for the kubeconfig
OPERATOR_PAUSE = 5.0  # seconds before a crashed operator is started again
END_LIMIT = 5.0  # seconds in which all pods end once their host is told to
REFUSED = {
    "attach": "attach is not part of the rehearsal: use `kubectl exec` or `kubectl logs -f`",
    "portForward": "port-forward is not part of the rehearsal, its pods have no network: use `kubectl exec`",
}


@dataclass(frozen=True)
class Settings:
    """What the pod host is started with; paths are absolute."""

    kubeconfig: Path
    port: int
    pki: Path
    pods: Path
    images: Path
    model: Path
    nodes: Path | None = None
    world: Path | None = None


def machine(settings: Settings) -> Machine:
    """Set the limits and the mounts of all jails. Changes this process, so call it once and before there are threads.

    Raises:
        RunbookError: no jail can be made here, the pods could not read the model, or the images or the world are wrong.
    """
    bwrap = jail.find_bwrap()
    if not (settings.pki / f"{pki.CA}.crt").exists():
        pki.make(settings.pki)
    settings.pods.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.pods.chmod(0o711)  # pods' uids pass through; what is above keeps others out
    unreadable = [path for path in (settings.model, *settings.model.glob("*")) if not path.stat().st_mode & 0o004]
    if unreadable and jail.uid_for("0") is not None:
        raise RunbookError("Pods could not read the model: they run as other users", where=str(unreadable[0]),
                           next=f"chmod -R a+rX {settings.model}")
    limits.inherit(shared=jail.uid_for("0") is None)
    mounts = Mounts.set([*jail.interpreter(), bwrap, str(settings.model), str(settings.pods)])
    there = world.load(settings.world) if settings.world else world.World()
    return Machine(bwrap, mounts, settings.pods, settings.model, load(settings.images, there.images), there)


class PodHost:
    """The server, the pods and the simulated operator on one event loop."""

    def __init__(self, settings: Settings, shared: Machine, *, end_limit: float = END_LIMIT) -> None:
        self._settings, self._world, self._end_limit = settings, shared.world, end_limit
        self._events = Recorder()
        self._pods = Pods(shared, self._events)

    async def run(self, listening: asyncio.Event) -> None:
        """Serve until SIGTERM or SIGINT, then end every process. `listening` is set when connections are accepted.

        Raises:
            OSError: the port is taken.
        """
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.1,
                               max_line_size=1 << 20)  # a command to run comes in the URL, a prompt in it
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._settings.port, ssl_context=tls(self._settings.pki)).start()
            listening.set()
            work = asyncio.create_task(self._work())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, stopped):
                task.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            if not work.cancelled() and work.done():
                work.result()
            # One that does not end keeps nobody waiting: the processes below are killed, and the loop cancels it again.
            if not (await asyncio.wait({work}, timeout=self._end_limit))[0]:
                log.error("not all of the pod host's work ended within %g s", self._end_limit)
        finally:
            await runner.cleanup()
            for process in list(Process.alive):
                process.kill()
                await process.wait()

    async def _work(self) -> None:
        while (api := connect(self._settings.kubeconfig)) is None:
            await asyncio.sleep(KUBECONFIG_PAUSE)
        async with api, asyncio.TaskGroup() as tasks:
            if self._settings.nodes:
                tasks.create_task(register(api, self._settings.nodes))
            if self._settings.nodes and self._world.flapping:
                tasks.create_task(register_again(api, self._settings.nodes, self._world))
                tasks.create_task(flapping.run(api, self._events))
            tasks.create_task(self._events.run(api))
            tasks.create_task(self._pods.run(api))
            tasks.create_task(self._operate(api))
            if self._world.controller:
                tasks.create_task(cloud.run(api, self._world))

    async def _operate(self, api: Api) -> NoReturn:
        """Keep the simulated GPU operator running; its crashes are its own."""
        while True:
            try:
                from gpurunbook.targets.rehearsal import gpu_operator

                await gpu_operator.run(api, self._world)
            except Exception:
                # What fails in the moment of the cancellation comes instead of it, in the group's error.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                log.exception("the simulated GPU operator crashed; starting it again")
            await asyncio.sleep(OPERATOR_PAUSE)

    def _application(self) -> web.Application:
        application = web.Application()
        target = "{namespace}/{pod}/{container}"
        application.router.add_route("*", f"/exec/{target}", self._exec)
        application.router.add_get(f"/containerLogs/{target}", self._logs)
        application.router.add_get("/healthz", self._healthz)
        for name, text in REFUSED.items():
            application.router.add_route("*", f"/{name}/{{rest:.*}}", refuse(text))
        return application

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    def _find(self, request: web.Request) -> Container | str:
        """The container that the path names, or why there is none."""
        where = request.match_info
        pod = self._pods.find(where["namespace"], where["pod"])
        if pod is None:
            return (f"pod {where['pod']} is simulated: its image is not in the rehearsal's image map, so nothing runs "
                    "in it and it has no logs")
        container = pod.find(where["container"])
        return container or f"container {where['container']} not found in pod {where['pod']}"

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        found = self._find(request)
        socket = await execution.open_channels(request)
        if isinstance(found, str):
            await execution.send_status(socket, execution.failure(found))
        elif found.jail is None or not found.running.is_set():
            await execution.send_status(socket, execution.failure(f'container "{found.name}" is not running'))
        else:
            await execution.run(request, socket, found.jail, cut=found.cut)
        return socket

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request)
        if isinstance(found, str):
            raise web.HTTPBadRequest(text=found)
        try:
            options = logs.LogOptions.parse(request.query, datetime.datetime.now(datetime.UTC))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        path = found.log(previous=options.previous)
        if not path.exists():
            which = "previous terminated " if options.previous else ""
            raise web.HTTPBadRequest(text=f'{which}container "{found.name}" has no log (yet)')
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        over = asyncio.Event() if options.previous else found.running
        async for data in logs.read(path, options, over):
            if request.transport is None or request.transport.is_closing():
                break  # the client has gone
            if data:
                await response.write(data)
        return response


def connect(kubeconfig: Path) -> Api | None:
    """The API server that a kubeconfig names, or None while the file is not there or half written."""
    try:
        return Api(kubeconfig)
    except (OSError, ConfigError, KeyError, TypeError, StopIteration):
        return None


def refuse(text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that says why not."""
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=501, text=text)

    return handler


def tls(folder: Path) -> ssl.SSLContext:
    """A server context that accepts the API server's client certificate and no other."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / f"{pki.CA}.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{pki.SERVER}.crt", folder / f"{pki.SERVER}.key")
    return context


