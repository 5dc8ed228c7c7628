"""Readiness and liveness probes of kind exec: a command in the container, as `kubectl exec` runs one.

Probes by network count as passed: a pod of the rehearsal has none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gpurunbook.targets.rehearsal.api import Object
from gpurunbook.targets.rehearsal.process import Process, chunks

if TYPE_CHECKING:
    from gpurunbook.targets.rehearsal.container import Container

KINDS = ("readinessProbe", "livenessProbe")


def has(container: Object, kind: str) -> bool:
    """Whether the container has an exec probe of this kind."""
    return "exec" in container.get(kind, {})


async def watch(container: Container) -> None:
    """Probe a running container until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for kind in KINDS:
            if has(container.entry, kind):
                tasks.create_task(_repeat(container, kind, container.entry[kind]))


async def _repeat(container: Container, kind: str, probe: Object) -> None:
    needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
    last, count = None, 0
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    while True:
        passed = await _passes(container, probe)
        last, count = passed, count + 1 if passed == last else 1
        if count >= needed[passed]:
            if kind == "readinessProbe" and container.state.ready != passed:
                container.state.ready = passed
                container.changed()
            elif kind == "livenessProbe" and not passed:
                await container.end()
                return
        await asyncio.sleep(probe.get("periodSeconds", 10))


async def _passes(container: Container, probe: Object) -> bool:
    assert container.jail is not None
    process = Process.start(container.jail, probe["exec"]["command"])
    assert process.stdout is not None
    assert process.stderr is not None
    drains = [asyncio.create_task(_drop(descriptor)) for descriptor in (process.stdout, process.stderr)]
    try:
        async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
            return (await process.wait()).code == 0
    except TimeoutError:
        return False
    finally:
        process.kill()
        await asyncio.gather(process.wait(), *drains)
        process.close()


async def _drop(descriptor: int) -> None:
    async for _ in chunks(descriptor):
        pass


