"""The cluster as it is and as it changes: lists in parallel, then a watch for each kind, each on a thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gpurunbook.readiness.diagnose import troubled
from gpurunbook.readiness.kinds import Kind, kinds, matters, on_node, pods
from gpurunbook.readiness.reading import Reader, Refused
from gpurunbook.readiness.snapshot import KINDS, Names, Object, Snapshot, labels

THREADS = 6
SILENT_SECONDS = 10.0
"""How long a cluster that is followed may be silent, or refuse us, before it counts as lost: an API server may restart. After
so long a silence of all watches it is asked whether it is there, and has half as long to answer."""
LOST = {"lost": "wrong-kubeconfig", "signed-out": "signed-out"}
"""What keeps us out altogether, and the cause that it has."""
PAUSES = {"gone": 0.0, "missing": 2.0, "denied": 30.0}
"""Seconds until a kind is asked for again; 1 for any other refusal."""
LOG_LINES = 5
FEW = 12
"""So many lists of one kind are asked for one after the other: where requests share a single seat, the second would be turned
away because of the first, and told to come back in half a minute (Kubernetes raises Retry-After with each that is)."""


class Cluster:
    """What is known of the objects that matter. `read` once, or `following` for as long as it is needed."""

    def __init__(self, reader: Reader, names: Names, silence: float = SILENT_SECONDS) -> None:
        self.names, self.silence = names, silence
        self._reader, self._kinds = reader, kinds(names)
        self._items: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._versions: dict[str, str] = {}
        self._refused: dict[str, tuple[float, Refused]] = {}
        self._logs: dict[tuple[str, str, int], str] = {}
        self._changed, self._news, self._follows = threading.Condition(), 0, False
        self._stop, self._open = threading.Event(), set[Any]()
        self._heard, self._error = time.monotonic(), list[Exception]()

    # Reading

    def read(self) -> Snapshot:
        """List everything that matters. What cannot be read is said in the snapshot, nothing is raised."""
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(self._try, kind) for kind in self._kinds]
            jobs[0].result()  # the nodes: which pods matter depends on them
            jobs.append(pool.submit(self._try, self._pods(), pool))
            for job in jobs:
                job.result()
        return self.snapshot()

    def _pods(self) -> Kind:
        return pods(self.names, ())[0]

    def _try(self, kind: Kind, pool: ThreadPoolExecutor | None = None) -> bool:
        try:
            self._list(kind, pool)
        except Refused as refused:
            with self._changed:
                since, _ = self._refused.get(kind.name, (time.monotonic(), None))
                self._refused[kind.name] = since, refused
                self._versions.pop(kind.name, None)
                if refused.why in ("missing", "denied"):
                    self._items[kind.name] = {}
                self._tell()
            return False
        return True

    def _list(self, kind: Kind, pool: ThreadPoolExecutor | None) -> None:
        lists = pods(self.names, self._gpu_nodes())[1] if kind.name == "pods" else [(kind.path, q) for q in kind.lists]
        done = (pool.map if pool and len(lists) > FEW else map)(lambda one: self._pages(kind, *one), lists)
        found: dict[str, Object] = {}
        versions = []
        for version, items in done:
            versions.append(version)
            found |= {uid: item for uid, item in items.items() if uid not in found or _version(item) > _version(found[uid])}
        with self._changed:
            self._items[kind.name] = found
            self._versions[kind.name] = min(versions, key=lambda v: int(v) if v.isdigit() else 0)
            self._refused.pop(kind.name, None)
            self._tell()

    def _pages(self, kind: Kind, path: str, query: Mapping[str, str]) -> tuple[str, dict[str, Object]]:
        for last in (False, True):
            found: dict[str, Object] = {}
            versions = []
            try:
                for version, items in self._reader.list(path, kind.accept, **query):
                    versions.append(version)
                    found.update((item["metadata"]["uid"], kind.trim(item)) for item in items)
                return versions[0], found
            except Refused as refused:  # the pages took longer than the server keeps a version: from the start
                if last or refused.why != "gone":
                    raise
        raise AssertionError("unreachable")

    def _gpu_nodes(self) -> list[str]:
        with self._changed:
            return [n["metadata"]["name"] for n in self._items["nodes"].values() if self.names.is_gpu_node(labels(n))]

    # Following

    @contextmanager
    def following(self) -> Iterator[Cluster]:
        """Everything is read; until the end of the block, watches keep it so."""
        self.read()
        self._follows = True
        works = [partial(self._follow, kind) for kind in (*self._kinds, self._pods())]
        threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in (*works, self._pulse)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            with self._changed:
                streams = list(self._open)
            for stream in streams:
                with suppress(ValueError, RuntimeError, OSError):  # it has ended by itself meanwhile
                    stream.shutdown()
            for thread in threads:
                thread.join(timeout=2)

    @property
    def now(self) -> datetime:
        """The time by the server's clock: its objects have their times by that."""
        return datetime.now(UTC) + self._reader.ahead

    def wait(self, timeout: float) -> None:
        """Return when something has changed since the last call, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._news, timeout)
            self._news = 0

    def _guarded(self, work: Callable[[], None]) -> None:
        """An error that nobody expected ends the thread, and is raised by `snapshot`."""
        try:
            work()
        except Exception as error:
            with self._changed:
                self._error.append(error)
                self._tell()

    def _pulse(self) -> None:
        """A server that is dead and holds its connections looks like one where nothing happens: it is asked."""
        while not self._stop.wait(self.silence / 4):
            silent = None
            if time.monotonic() - self._heard >= self.silence:
                try:
                    self._reader.get("/version", limit=self.silence / 2)
                except Refused as refused:
                    silent = refused if refused.why == "lost" else None  # whatever else it said, it said something
                if not silent:
                    self._heard = time.monotonic()
            with self._changed:
                if silent:
                    self._refused["the server"] = self._heard, silent
                    self._tell()
                else:
                    self._refused.pop("the server", None)

    def _follow(self, kind: Kind) -> None:
        while not self._stop.is_set():
            if kind.name not in self._versions and not self._try(kind):
                self._stop.wait(PAUSES.get(self._refused[kind.name][1].why, 1.0))
                continue
            try:
                self._watch(kind)
            except Refused as refused:
                self._versions.pop(kind.name, None)  # list again: that tells what is the matter
                self._stop.wait(PAUSES["gone"] if refused.why == "gone" else 1.0)

    def _watch(self, kind: Kind) -> None:
        from urllib3.exceptions import HTTPError
        stream = self._reader.watch(kind.path, kind.watched_as, **kind.query, resourceVersion=self._versions[kind.name])
        with self._changed:
            self._open.add(stream)
        try:
            if self._stop.is_set():  # it was opened while the others were being ended
                return
            for line in stream:
                if self._stop.is_set():
                    return
                self._heard = time.monotonic()
                if line.strip():
                    self._apply(kind, json.loads(line))
        except (HTTPError, ValueError, OSError) as error:
            raise Refused("failed", f"the watch of {kind.name} broke off: {error}") from error
        finally:
            with self._changed:
                self._open.discard(stream)
            stream.close()

    def _apply(self, kind: Kind, change: Object) -> None:
        item = change.get("object") or {}
        if change.get("type") == "ERROR":
            raise Refused("gone" if item.get("code") == 410 else "failed", str(item.get("message")))
        metadata = item.get("metadata") or {}
        new = False
        with self._changed:
            self._versions[kind.name] = str(metadata.get("resourceVersion", self._versions.get(kind.name, "0")))
            if change.get("type") == "BOOKMARK":
                return
            held, uid = self._items[kind.name], str(metadata.get("uid"))
            if change.get("type") == "DELETED" or not matters(kind.name, item, self.names, self._cpu_nodes()):
                told = held.pop(uid, None) is not None
            else:
                trimmed, before = kind.trim(item), held.get(uid)
                if before and _version(before) > _version(trimmed):
                    return
                held[uid] = trimmed
                new = kind.name == "nodes" and before is None and self.names.is_gpu_node(labels(trimmed))
                told = kind.name != "leases" and _same(before) != _same(trimmed)
            if told:
                self._tell()
        if new:  # pods that were bound to it before we knew of it
            _, found = self._pages(self._pods(), "/api/v1/pods", on_node(metadata["name"]))
            with self._changed:
                self._items["pods"] = found | self._items["pods"]

    def _cpu_nodes(self) -> set[str]:
        return {n["metadata"]["name"] for n in self._items["nodes"].values() if not self.names.is_gpu_node(labels(n))}

    def _tell(self) -> None:
        self._news += 1
        self._changed.notify_all()

    # The snapshot

    def snapshot(self) -> Snapshot:
        """What is known now, with the last lines of a few troubled containers' logs."""
        with self._changed:
            if self._error:
                raise self._error[0]
            held = {kind: dict(items) for kind, items in self._items.items()}
            refused = dict(self._refused)
        now = time.monotonic()
        lost = [r for t, r in refused.values() if r.why in LOST and (not self._follows or now - t > self.silence)]
        throttled = [r.said for _, r in refused.values() if r.why == "throttled"]
        denied = {kind: f"{kind} cannot be read: {r.said}" for kind, (_, r) in refused.items()
                  if r.why in ("denied", "throttled", "failed")}
        objects: dict[str, Any] = {kind: tuple(items.values()) for kind, items in held.items()}
        found = Snapshot(**objects, denied=denied, throttled=next(iter(throttled), ""))
        if lost:
            found = replace(found, lost=lost[0].said, lost_to=LOST[lost[0].why])
        return found if found.lost else replace(found, logs=self._last_lines(found))

    def _last_lines(self, found: Snapshot) -> dict[str, str]:
        lines = {}
        for pod, container, previous in troubled(found, self.names):
            uid = pod["metadata"]["uid"]
            restarts = sum(int(c.get("restartCount") or 0) for c in pod["status"].get("containerStatuses") or [])
            key = (uid, container, restarts)
            if key not in self._logs:
                self._logs[key] = self._log(pod, container, previous) or (self._log(pod, container, False) if previous else "")
            lines[uid] = self._logs[key]
        return lines

    def _log(self, pod: Object, container: str, previous: bool) -> str:
        """The last line that is not empty; nothing where the log cannot be had: it only adds to the evidence."""
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/log"
        try:
            text = self._reader.text(path, container=container, tailLines=str(LOG_LINES), limitBytes="20000",
                                     **({"previous": "true"} if previous else {}))
        except Refused:
            return ""
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _version(item: Object) -> int:
    text = str(item.get("metadata", {}).get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


def _same(item: Object | None) -> Object | None:
    """An object without its version, which changes with every heartbeat."""
    return item and {**item, "metadata": {k: v for k, v in item["metadata"].items() if k != "resourceVersion"}}
