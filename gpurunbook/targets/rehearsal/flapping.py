"""Nodes whose kubelet falls silent now and then: Ready goes False and comes back, until the Node is made anew."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.api import STRATEGIC, UNREACHABLE, Api, Object
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.pod_status import now, ready

log = logging.getLogger(__name__)
PERIOD = 5.0  # seconds between two falls of a node
WHY = "PLEG is not healthy: pleg was last seen active 3m12s ago; threshold is 3m0s"
NODES = "/api/v1/nodes"


async def run(api: Api, events: Recorder, period: float = PERIOD) -> NoReturn:
    """Let the GPU nodes flap; never returns. A Node with another uid than the first of its name is well."""
    first: dict[str, str] = {}
    down: dict[str, asyncio.Task[None]] = {}  # by the node's name
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                sick = {node["metadata"]["name"]: node for node in (await api.get(NODES))["items"] if has_gpus(node) and
                        first.setdefault(node["metadata"]["name"], node["metadata"]["uid"]) == node["metadata"]["uid"]}
                for name, node in sick.items():
                    if ready(node) and (name not in down or down[name].done()):
                        down[name] = tasks.create_task(_flap(api, events, node, period))
            except UNREACHABLE as error:
                log.info("no node flaps now: %s", error)
            await asyncio.sleep(period)


def has_gpus(node: Object) -> bool:
    """Whether it is an instance with GPUs, whatever its labels and capacity say."""
    return node["metadata"].get("annotations", {}).get("gpurunbook.dev/gpus", "0") not in ("", "0")


def takes(node: Object) -> float:
    """Seconds that KWOK waits before it makes a node Ready that is not (its Stage `node-ready`)."""
    return float(node["metadata"].get("annotations", {}).get(pace.TAKES, "0s").removesuffix("s"))


async def _flap(api: Api, events: Recorder, node: Object, patience: float) -> None:
    """Once down, and up again by KWOK; `patience`: seconds that it may take besides its own."""
    name, time = node["metadata"]["name"], now()
    condition = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": WHY,
                 "lastHeartbeatTime": time, "lastTransitionTime": time}
    try:
        await api.patch(f"{NODES}/{name}/status", {"metadata": {"uid": node["metadata"]["uid"]},
                                                   "status": {"conditions": [condition]}}, STRATEGIC)
        events.node(name, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        async with asyncio.timeout(patience + takes(node)):
            while not ready(await api.get(f"{NODES}/{name}")):
                await asyncio.sleep(0.1)
    except UNREACHABLE as error:
        log.info("node %s is not seen to come back: %s", name, error)
        return
    events.node(name, "NodeReady", f"Node {name} status is now: NodeReady")
