"""The API server for asyncio code: JSON in, JSON out, and watches that never end.

The `kubernetes` client is synchronous; the pod host and the simulated operator live on an event loop.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from gpurunbook import yaml_file

Object = dict[str, Any]
"""A Kubernetes object as the API server sends it."""

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
WATCH_SECONDS = 300


class ApiError(Exception):
    """The API server refused: `status` is the HTTP code, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


UNREACHABLE = (aiohttp.ClientError, TimeoutError, ApiError)
"""What a call raises that the API server did not answer, or refused: it may be starting, stopping or busy."""


class Api:
    """A session with one API server, from a kubeconfig with client certificate files.

    Args:
        kubeconfig: path; its current context is used.
    """

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml_file.load(kubeconfig)
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
        user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
        self._session = aiohttp.ClientSession(
            cluster["server"],
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=30),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, body: Object | None = None, *,
                      content_type: str = "application/json", **query: str) -> Object:
        """One call. Raises ApiError for any status of 400 and above."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, params=query, data=data,
                                         headers={"Content-Type": content_type}) as answer:
            text = await answer.text()
            if answer.status >= 400:
                try:
                    message = json.loads(text)["message"]
                except (ValueError, KeyError, TypeError):
                    message = text[:300]
                raise ApiError(answer.status, message)
            return json.loads(text) if text else {}

    async def get(self, path: str, **query: str) -> Object:
        return await self.request("GET", path, None, **query)

    async def create(self, path: str, body: Object) -> Object:
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Object, content_type: str = MERGE) -> Object:
        return await self.request("PATCH", path, body, content_type=content_type)

    async def delete(self, path: str, body: Object | None = None) -> Object:
        return await self.request("DELETE", path, body)

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """List, then watch, for ever: yields (ADDED | MODIFIED | DELETED, object).

        After a broken or expired watch it lists again, so every object is seen again as ADDED and a
        consumer must be idempotent; an object deleted meanwhile comes as DELETED.
        """
        known: dict[str, Object] = {}
        while True:
            try:
                listed = await self.get(path, **query)
                now = {item["metadata"]["uid"]: item for item in listed.get("items", [])}
                for uid in known.keys() - now.keys():
                    yield "DELETED", known[uid]
                known = now
                for item in list(now.values()):
                    yield "ADDED", item
                version = listed["metadata"]["resourceVersion"]
                async for kind, item in self._events(path, version, query):
                    if kind == "ERROR":
                        break
                    if kind == "DELETED":
                        known.pop(item["metadata"]["uid"], None)
                    else:
                        known[item["metadata"]["uid"]] = item
                    yield kind, item
            except UNREACHABLE:
                # The API server is restarting or the kind is not served yet: ask again.
                await asyncio.sleep(0.5)

    async def _events(self, path: str, version: str, query: dict[str, str]) -> AsyncIterator[tuple[str, Object]]:
        params = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=WATCH_SECONDS + 10)
        # Objects may be larger than aiohttp's line limit, so lines are cut here.
        async with self._session.get(path, params=params, timeout=timeout) as stream:
            if stream.status >= 400:
                raise ApiError(stream.status, (await stream.text())[:300])
            rest = b""
            async for chunk in stream.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        event = json.loads(line)
                        yield event["type"], event["object"]
