"""Image pulls: how long, how often, and how they fail."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gpurunbook.targets.rehearsal import pulls
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.gpu_operands import TOOLKIT as OPERAND
from gpurunbook.targets.rehearsal.images import Image
from gpurunbook.targets.rehearsal.pulls import PullFailed, Pulls
from gpurunbook.targets.rehearsal.world import World

TOOLKIT = OPERAND.name
IMAGES = {"a:1": Image("/", gigabytes=10.8), "b:1": Image("/", gigabytes=3), "no:1": Image("/", pull_error="not found")}


class Recorded(Recorder):
    """Keeps what is said, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, str, str]] = []

    def pod(self, pod: dict[str, Any], reason: str, message: str, *, field: str = "", warning: bool = False) -> None:
        self.said.append((pod["metadata"]["name"], reason, message))

    def node(self, name: str, reason: str, message: str, *, warning: bool = False) -> None:
        self.said.append((name, reason, message))


class Once:
    """Answers the first call with another status, as a server that was asked a moment ago."""

    def __init__(self, server: Server, status: dict[str, Any]) -> None:
        self.server, self.status, self.asked = server, status, 0

    async def __call__(self, path: str) -> dict[str, Any]:
        self.asked += 1
        return self.server.node | {"status": self.status} if self.asked == 1 else self.server.node


class Server:
    """One node."""

    patches = 0

    def __init__(self, gib: int = 100) -> None:
        self.node: dict[str, Any] = {"metadata": {"name": "n", "uid": "n-1"}, "status": {
            "capacity": {"ephemeral-storage": f"{gib}Gi"}}}

    async def get(self, path: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self.node

    async def patch(self, path: str, body: dict[str, Any], content_type: str) -> dict[str, Any]:
        assert (path, body["metadata"]) == ("/api/v1/nodes/n/status", {"uid": "n-1"})
        self.node = self.node | {"status": self.node["status"] | body["status"]}
        self.patches += 1
        return self.node


def made(server: Server, world: World | None = None) -> tuple[Pulls, Recorded]:
    said = Recorded()
    return Pulls(server, world or World(), IMAGES, said), said  # type: ignore[arg-type]


def pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"nodeName": "n"}}


async def test_a_pulled_image_is_the_nodes() -> None:
    server = Server()
    puller, said = made(server)
    for image in ("b:1", "a:1", "b:1"):
        await puller.ensure(pod("p"), "f", image)
    assert server.node["status"]["images"] == [{"names": ["a:1"], "sizeBytes": 10_800_000_000},
                                               {"names": ["b:1"], "sizeBytes": 3_000_000_000}], "the largest first"
    assert [reason for _, reason, _ in said.said] == ["Pulling", "Pulled", "Pulling", "Pulled", "Pulled"]
    assert said.said[-1][2] == 'Container image "b:1" already present on machine and can be accessed by the pod'
    again, said = made(server)
    await again.ensure(pod("p"), "f", "a:1")
    assert [reason for _, reason, _ in said.said] == ["Pulled"], "another pod host finds it there"


async def test_a_second_pod_waits_for_the_first_ones_pull() -> None:
    puller, said = made(Server(), World(pace=0.002))
    await asyncio.gather(puller.ensure(pod("one"), "f", "a:1"), puller.ensure(pod("two"), "f", "a:1"))
    messages = {name: message for name, reason, message in said.said if reason == "Pulled"}
    assert " in 0s (" in messages["two"]
    assert " in 0s (" not in messages["one"]
    assert messages["one"].endswith("including waiting). Image size: 10800000000 bytes.")


async def test_a_pull_outlives_the_pod_that_asked() -> None:
    server = Server()
    puller, _ = made(server, World(pace=0.001))
    asking = asyncio.create_task(puller.ensure(pod("p"), "f", "b:1"))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await puller.ensure(pod("q"), "f", "b:1")
    assert pulls.present(server.node) == {"b:1"}


async def test_close_ends_what_still_runs() -> None:
    server = Server()
    puller, _ = made(server, World(pace=1))
    asking = asyncio.create_task(puller.ensure(pod("p"), "f", "a:1"))
    await asyncio.sleep(0.01)
    await puller.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert pulls.present(server.node) == set()


async def test_a_node_that_was_read_before_a_pull_ended_is_not_pulled_to_again() -> None:
    server = Server()
    puller, _ = made(server, World(pace=0.001))
    await asyncio.gather(*(puller.ensure(pod(name), "f", "b:1") for name in ("one", "two")))
    stale = {key: value for key, value in server.node["status"].items() if key != "images"}
    current, server.get = server.get, Once(server, stale)  # type: ignore[method-assign]
    await puller.ensure(pod("late"), "f", "b:1")
    server.get = current  # type: ignore[method-assign]
    assert server.patches == 1
    assert server.node["status"]["images"] == [{"names": ["b:1"], "sizeBytes": 3_000_000_000}]


def toolkit(uid: str, *, ready: bool, node: str = "n") -> dict[str, Any]:
    return {"metadata": {"name": uid, "namespace": "gpus", "uid": uid, "labels": {"app": TOOLKIT}}, "spec": {"nodeName": node},
            "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


async def test_the_toolkits_restart_of_containerd_ends_a_pull_and_the_next_try_goes_on() -> None:
    server, world = Server(), World(pace=0.002)  # 0.3 to 0.9 s
    puller, said = made(server, world)
    whole = pulls.pull_seconds(10.8, world, "n", "a:1")
    puller.see("ADDED", toolkit("there before", ready=True))
    puller.see("ADDED", toolkit("t", ready=False))
    asking = [asyncio.create_task(puller.ensure(pod(name), "f", "a:1")) for name in ("one", "two")]
    await asyncio.sleep(0.7 * whole)
    puller.see("MODIFIED", toolkit("elsewhere", ready=False, node="m"))
    puller.see("MODIFIED", toolkit("elsewhere", ready=True, node="m"))
    puller.see("MODIFIED", toolkit("there before", ready=True))
    await asyncio.sleep(0)
    assert not any(task.done() for task in asking)
    puller.see("MODIFIED", toolkit("t", ready=True))
    for found in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(found, PullFailed)
        assert str(found) == "rpc error: code = Unavailable desc = error reading from server: EOF"
    assert ("one", "Failed", f'Failed to pull image "a:1": {pulls.RESTARTED}') in said.said
    puller.see("MODIFIED", toolkit("t", ready=True))
    began = time.monotonic()
    await puller.ensure(pod("one"), "f", "a:1")
    assert time.monotonic() - began < 0.6 * whole, "what was there stayed"
    assert pulls.present(server.node) == {"a:1"}


async def test_the_registrys_refusal_is_told_and_raised() -> None:
    puller, said = made(Server())
    with pytest.raises(PullFailed, match=r"^not found$"):
        await puller.ensure(pod("p"), "f", "no:1")
    assert said.said[1:] == [("p", "Failed", 'Failed to pull image "no:1": not found'), ("p", "Failed", "Error: ErrImagePull")]
    assert puller.back_off(pod("p"), "f", "no:1") == 'Back-off pulling image "no:1"'
    assert [message for *_, message in said.said[3:]] == ['Back-off pulling image "no:1"', "Error: ImagePullBackOff"]


@pytest.mark.parametrize(("gib", "fits"), [(26, True), (25, False), (50, True), (100, True)])
async def test_an_image_needs_two_and_a_half_times_its_size(gib: int, fits: bool) -> None:
    server = Server(gib)
    puller, said = made(server)
    if fits:
        await puller.ensure(pod("p"), "f", "a:1")
        return
    with pytest.raises(PullFailed, match=r"failed to extract layer sha256:.* no space left on device"):
        await puller.ensure(pod("p"), "f", "a:1")
    assert ("n", "FreeDiskSpaceFailed") in [(name, reason) for name, reason, _ in said.said]
    assert pulls.present(server.node) == set()


def test_how_long_it_takes() -> None:
    def seconds(seed: int, node: str = "n") -> float:
        return pulls.pull_seconds(10.8, World(pace=1, seed=seed), node, "a:1")

    times = [seconds(seed) for seed in range(200)]
    assert 130 < min(times) < 200
    assert 400 < max(times) < 480
    assert seconds(1) == seconds(1) != seconds(1, "m")
    assert pulls.pull_seconds(10.8, World(), "n", "a:1") == 0
    assert pulls.pull_seconds(10.8, World(pace=0.1, seed=3), "n", "a:1") == pytest.approx(seconds(3) / 10, abs=0.01)


def test_the_back_off_is_a_kubelets_at_the_worlds_pace() -> None:
    assert [pulls.back_off_seconds(n, World(pace=1)) for n in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    assert pulls.back_off_seconds(0, World()) == 0.5
    assert pulls.back_off_seconds(10_000, World()) == 15


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0s"), (0.312, "312ms"), (1, "1s"), (1.5, "1.5s"), (138.2044, "2m18.204s"), (3600, "1h0m0s"), (59.9999, "1m0s")])
def test_durations_read_as_gos(seconds: float, text: str) -> None:
    assert pulls.duration(seconds) == text
