"""Registering nodes, as each kubelet registers its own: the pod host does it for all of them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import aiohttp

from gpurunbook.targets.rehearsal.api import Api, ApiError

PAUSE = 0.1
"""Seconds between two tries while the API server starts."""
log = logging.getLogger(__name__)


async def register(api: Api, file: Path) -> None:
    """Make the Node objects of a manifest that are not there yet, as each kubelet registers its own node.

    Waits for the API server, however long it takes: the pod host may start before it.
    """
    items, said = json.loads(file.read_text())["items"], ""
    while items:
        try:
            await api.create("/api/v1/nodes", items[0])
        except (aiohttp.ClientError, TimeoutError, ApiError) as error:
            if not isinstance(error, ApiError) or error.status != 409:
                if str(error) != said:
                    log.info("not registered yet: %s", error)
                said = str(error)
                await asyncio.sleep(PAUSE)
                continue
        items.pop(0)
