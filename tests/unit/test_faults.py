"""What a world breaks until it is made anew: streams, CUDA, nodes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gpurunbook.stages.taint import UNINITIALIZED
from gpurunbook.targets.rehearsal import flapping, registration
from gpurunbook.targets.rehearsal.events import Recorder
from gpurunbook.targets.rehearsal.faults import Faults, owner
from gpurunbook.targets.rehearsal.pod_status import ready
from gpurunbook.targets.rehearsal.world import World

DRIVER = {"app": "nvidia-driver-daemonset"}


def pod(uid: str, name: str = "p", *, made_by: tuple[str, str] | None = None, labels: dict[str, str] | None = None,
        phase: str = "Running", gpu: bool = False, node: str = "n") -> dict[str, Any]:
    owners = [{"kind": made_by[0], "name": made_by[1], "controller": True}] if made_by else []
    return {"metadata": {"uid": uid, "name": name, "namespace": "ns", "labels": labels or {}, "ownerReferences": owners},
            "spec": {"nodeName": node, "containers": [
                {"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}} if gpu else {"name": "c"}]},
            "status": {"phase": phase}}


def replica(uid: str, template: str) -> dict[str, Any]:
    return pod(uid, f"web-{template}-{uid}", made_by=("ReplicaSet", f"web-{template}"),
               labels={"pod-template-hash": template})


@pytest.mark.parametrize(("found", "expected"), [
    (pod("1", "bare"), ("ns", "Pod", "bare")),
    (replica("1", "6c5d8"), ("ns", "ReplicaSet", "web")),
    (pod("1", "d-x", made_by=("DaemonSet", "d")), ("ns", "DaemonSet", "d")),
])
def test_who_makes_a_pod_anew(found: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert owner(found) == expected


def test_the_streams_of_an_owners_first_pod_break() -> None:
    faults = Faults(World(cut_streams=True))
    first, second, rolled_out, bare, again = (replica("1", "a"), replica("2", "a"), replica("3", "b"), pod("4"), pod("5"))
    for one in (first, second, rolled_out, bare, again, first):
        faults.see("ADDED", one)
    assert [faults.cuts(one) for one in (first, second, rolled_out, bare, again)] == [True, False, False, True, False]


def test_without_a_fault_nothing_breaks() -> None:
    faults = Faults(World())
    faults.see("ADDED", pod("1", gpu=True))
    assert not faults.cuts(pod("1"))
    assert faults.environment(pod("1", gpu=True)) == {}


def test_cuda_is_broken_until_the_nodes_driver_pod_is_made_anew() -> None:
    faults, broken = Faults(World(cuda_error=999)), {"GPURUNBOOK_CUDA_ERROR": "999"}
    model, elsewhere = pod("m", gpu=True), pod("e", gpu=True, node="other")
    assert faults.environment(model) == broken
    faults.see("ADDED", pod("d1", labels=DRIVER))
    assert faults.environment(model) == broken
    assert faults.environment(pod("cpu")) == {}
    faults.see("DELETED", pod("d1", labels=DRIVER))
    faults.see("ADDED", pod("d2", labels=DRIVER, phase="Pending"))
    assert faults.environment(model) == broken
    faults.see("MODIFIED", pod("d2", labels=DRIVER))
    assert faults.environment(model) == {}
    assert faults.environment(elsewhere) == broken


def test_a_node_that_boots_anew_has_met_the_cloud_controller() -> None:
    other = {"key": "dedicated", "effect": "NoSchedule"}
    node = {"metadata": {"name": "n"}, "spec": {"taints": [{"key": UNINITIALIZED}, other], "providerID": "aws:///x"}}
    assert registration.without_taint(node) == node | {"spec": {"taints": [other], "providerID": "aws:///x"}}
    assert len(node["spec"]["taints"]) == 2, "the manifest's own stays as it is"


def node(name: str, uid: str, gpus: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "annotations": {"gpurunbook.dev/gpus": gpus}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


class Cluster:
    """Nodes that become Ready at once, as by KWOK's Stage; `fell` are those that were made not Ready."""

    def __init__(self, **nodes: dict[str, Any]) -> None:
        self.nodes = nodes
        self.fell: list[str] = []
        self.created: list[dict[str, Any]] = []

    async def get(self, path: str) -> dict[str, Any]:
        return {"items": list(self.nodes.values())} if path.endswith("nodes") else self.nodes[path.rpartition("/")[2]]

    async def patch(self, path: str, body: dict[str, Any], content_type: str) -> dict[str, Any]:
        assert not ready(body)
        self.fell.append(path.split("/")[4])
        return body

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.created.append(body)
        return body

    async def watch(self, path: str) -> Any:
        yield "ADDED", {"metadata": {"name": "gpu"}}
        yield "DELETED", {"metadata": {"name": "gpu"}}
        yield "DELETED", {"metadata": {"name": "a-node-of-others"}}
        await asyncio.Event().wait()


async def test_gpu_nodes_flap_until_they_are_made_anew() -> None:
    cluster = Cluster(gpu=node("gpu", "1", "1"), cpu=node("cpu", "2", "0"))
    task = asyncio.create_task(flapping.run(cluster, Recorder(), period=0.01))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while len(cluster.fell) < 3:
            await asyncio.sleep(0.01)
    assert set(cluster.fell) == {"gpu"}
    cluster.nodes["gpu"] = node("gpu", "1-anew", "1")
    await asyncio.sleep(0.05)
    cluster.fell.clear()
    await asyncio.sleep(0.1)
    assert cluster.fell == []
    task.cancel()


class Slow(Cluster):
    """Nodes that take 0.3 s to be Ready again, and what is said of them."""

    def __init__(self, **nodes: dict[str, Any]) -> None:
        super().__init__(**nodes)
        self.up: dict[str, float] = {}
        for one in nodes.values():
            one["metadata"]["annotations"] |= {"gpurunbook.dev/takes": "0.3s"}

    async def get(self, path: str) -> dict[str, Any]:
        found = await super().get(path)
        return {"items": [self.now(one) for one in found["items"]]} if "items" in found else self.now(found)

    def now(self, one: dict[str, Any]) -> dict[str, Any]:
        there = time.monotonic() >= self.up.get(one["metadata"]["name"], 0)
        return one | {"status": {"conditions": [{"type": "Ready", "status": str(there)}]}}

    async def patch(self, path: str, body: dict[str, Any], content_type: str) -> dict[str, Any]:
        await super().patch(path, body, content_type)
        self.up[self.fell[-1]] = time.monotonic() + 0.3
        return body


class Heard(Recorder):
    """Keeps what is said of nodes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, str]] = []

    def node(self, name: str, reason: str, message: str, *, warning: bool = False) -> None:
        self.said.append((name, reason))


async def test_nodes_that_take_their_time_flap_side_by_side_and_are_seen_to_come_back() -> None:
    cluster, heard = Slow(a=node("a", "1", "1"), b=node("b", "2", "1")), Heard()
    task = asyncio.create_task(flapping.run(cluster, heard, period=0.15))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while len(heard.said) < 4:
            await asyncio.sleep(0.01)
    task.cancel()
    assert heard.said[:4] == [("a", "NodeNotReady"), ("b", "NodeNotReady"), ("a", "NodeReady"), ("b", "NodeReady")]


async def test_a_deleted_node_of_the_manifest_is_registered_again(tmp_path: Path) -> None:
    manifest = tmp_path / "nodes.json"
    manifest.write_text(json.dumps({"items": [{"metadata": {"name": "gpu"}, "spec": {"taints": [{"key": UNINITIALIZED}]}}]}))
    cluster = Cluster()
    task = asyncio.create_task(registration.register_again(cluster, manifest, World()))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while not cluster.created:
            await asyncio.sleep(0.01)
    assert cluster.created == [{"metadata": {"name": "gpu"}, "spec": {"taints": []}}]
    task.cancel()
