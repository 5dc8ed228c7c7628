"""Registering nodes, as each kubelet registers its own: the pod host does it for all of them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import NoReturn

from gpurunbook.stages.taint import UNINITIALIZED
from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.api import UNREACHABLE, Api, ApiError, Object
from gpurunbook.targets.rehearsal.world import World

PAUSE = 0.1
"""Seconds between two tries while the API server starts."""
log = logging.getLogger(__name__)


async def register(api: Api, file: Path) -> None:
    """Make the Node objects of a manifest that are not there yet, as each kubelet registers its own node.

    Waits for the API server, however long it takes: the pod host may start before it.
    """
    for node in json.loads(file.read_text())["items"]:
        await _create(api, node)


async def register_again(api: Api, file: Path, world: World) -> NoReturn:
    """Register a node of the manifest that is deleted as an instance that boots anew; never returns.

    It comes without the cloud controller's taint: whoever deletes a node wants one that works.
    """
    known = {node["metadata"]["name"]: node for node in json.loads(file.read_text())["items"]}
    async with asyncio.TaskGroup() as tasks:
        async for kind, node in api.watch("/api/v1/nodes"):
            if kind == "DELETED" and (name := node["metadata"]["name"]) in known:
                tasks.create_task(_boot(api, without_taint(known[name]), pace.seconds("node join", world, name, "again")))
    raise AssertionError("a watch never ends")


def without_taint(node: Object) -> Object:
    """The node as it is when the cloud controller has come by. Pure."""
    taints = [taint for taint in node["spec"].get("taints", []) if taint["key"] != UNINITIALIZED]
    return node | {"spec": node["spec"] | {"taints": taints}}


async def _boot(api: Api, node: Object, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await _create(api, node)


async def _create(api: Api, node: Object) -> None:
    """Make it unless it is there, however long the API server is away."""
    said = ""
    while True:
        try:
            await api.create("/api/v1/nodes", node)
            return
        except UNREACHABLE as error:
            if isinstance(error, ApiError) and error.status == 409:
                return
            if str(error) != said:
                log.info("not registered yet: %s", error)
            said = str(error)
            await asyncio.sleep(PAUSE)
