"""Events as a kubelet writes them: once each, then counted; bounded; and lost without harm."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gpurunbook.targets.rehearsal import events
from gpurunbook.targets.rehearsal.api import ApiError
from gpurunbook.targets.rehearsal.events import Recorder

POD = {"metadata": {"namespace": "ns", "name": "p", "uid": "u"}, "spec": {"nodeName": "node-1"}}


class Server:
    """An API server that keeps Events, and refuses while it is told to."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.refuses = 0

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.refuses:
            raise ApiError(self.refuses, "no")
        self.stored[f"{path}/{body['metadata']['name']}"] = body
        return body

    async def patch(self, path: str, body: dict[str, Any], content_type: str) -> dict[str, Any]:
        if path not in self.stored:
            raise ApiError(404, "not found")
        self.stored[path] |= body
        return self.stored[path]


async def written(recorder: Recorder, server: Server) -> list[dict[str, Any]]:
    """What the server has when all has been written."""
    writer = asyncio.create_task(recorder.run(server))  # type: ignore[arg-type]
    while not recorder._queue.empty():
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    writer.cancel()
    return list(server.stored.values())


async def test_the_same_again_is_counted() -> None:
    recorder, server = Recorder(), Server()
    for _ in range(3):
        recorder.pod(POD, "BackOff", "Back-off", field="spec.containers{main}", warning=True)
    recorder.pod(POD, "BackOff", "Back-off", field="spec.containers{other}", warning=True)
    one, other = await written(recorder, server)
    assert (one["count"], other["count"]) == (3, 1)
    assert one["involvedObject"] == {"kind": "Pod", "namespace": "ns", "name": "p", "uid": "u", "apiVersion": "v1",
                                     "fieldPath": "spec.containers{main}"}
    assert (one["type"], one["source"]) == ("Warning", {"component": "kubelet", "host": "node-1"})
    assert one["metadata"]["namespace"] == "ns"


async def test_what_is_said_of_a_node_lies_in_the_default_namespace() -> None:
    recorder, server = Recorder(), Server()
    recorder.node("node-1", "NodeReady", "Node node-1 status is now: NodeReady")
    (event,) = await written(recorder, server)
    assert event["involvedObject"] == {"kind": "Node", "name": "node-1", "uid": "node-1", "apiVersion": "v1"}
    assert (event["metadata"]["namespace"], event["type"]) == ("default", "Normal")


async def test_one_that_the_server_forgot_begins_anew() -> None:
    recorder, server = Recorder(), Server()
    recorder.pod(POD, "Started", "Container started")
    await written(recorder, server)
    server.stored.clear()
    recorder.pod(POD, "Started", "Container started")
    (event,) = await written(recorder, server)
    assert event["count"] == 1


async def test_an_object_gets_so_many_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    recorder, server = Recorder(), Server()
    for number in range(events.BURST + 5):
        recorder.pod(POD, "Failed", f"the {number}th")
    recorder.node("node-1", "NodeReady", "another object")
    assert len(await written(recorder, server)) == events.BURST + 1
    assert "left out" in caplog.text


async def test_one_more_every_five_minutes(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    recorder, server = Recorder(lambda: now[0]), Server()
    for number in range(events.BURST + 2):
        recorder.pod(POD, "Failed", f"the {number}th")
    await written(recorder, server)
    now[0] += events.REFILL
    for number in range(3):
        recorder.pod(POD, "Failed", f"later, the {number}th")
        recorder.pod(POD, "Failed", "the 0th")
    found = await written(recorder, server)
    assert [event["message"] for event in found[events.BURST:]] == ["later, the 0th"]
    assert found[0]["count"] == 4, "what repeats is counted all the while"


async def test_a_refused_event_is_logged_and_the_next_is_written(caplog: pytest.LogCaptureFixture) -> None:
    recorder, server = Recorder(), Server()
    server.refuses = 403
    recorder.pod(POD, "Killing", "Stopping container main")
    assert await written(recorder, server) == []
    assert "Stopping container main" in caplog.text
    server.refuses = 0
    recorder.pod(POD, "Killing", "Stopping container main")
    assert len(await written(recorder, server)) == 1


async def test_a_full_queue_loses_events_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    with caplog.at_level(logging.WARNING):
        for number in range(events.QUEUED + 1):
            recorder.pod(POD, "Started", str(number))
    assert caplog.text.count("event lost") == 1
