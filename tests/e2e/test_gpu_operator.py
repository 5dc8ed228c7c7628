"""The simulated GPU operator on a real control plane: our stand-in chart, and NVIDIA's own where its path is given."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpurunbook.targets.rehearsal.api import Api
from gpurunbook.targets.rehearsal.gpu_operator import run

MANIFESTS = Path(__file__).parents[2] / "manifests"
STAND_IN = MANIFESTS / "rehearsal" / "gpu-operator"
PIN = yaml.safe_load((MANIFESTS / "gpu-operator" / "chart.yaml").read_text())
NVIDIAS = "GPURUNBOOK_NVIDIA_CHART"
STACKS = {
    "ubuntu": ["nvidia-driver-daemonset", "nvidia-container-toolkit-daemonset", "nvidia-operator-validator",
               "nvidia-device-plugin-daemonset", "nvidia-dcgm-exporter", "gpu-feature-discovery", "nvidia-mig-manager"],
    "al2023": ["nvidia-operator-validator", "nvidia-device-plugin-daemonset", "nvidia-dcgm-exporter",
               "gpu-feature-discovery", "nvidia-mig-manager"],
}
SECONDS = 20.0
"""How long anything here may take on a loaded machine; it takes one or two."""


@pytest.fixture(params=[
    pytest.param(str(STAND_IN), id="stand-in"),
    pytest.param(os.environ.get(NVIDIAS, ""), id="nvidia", marks=pytest.mark.skipif(
        NVIDIAS not in os.environ,
        reason=f"{NVIDIAS} is not set: NVIDIA's chart (deployments/gpu-operator in its repository) is not committed")),
])
def chart(request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path


@pytest.fixture
def gpu_cluster(cluster: Any) -> Iterator[Any]:
    """The session's cluster with GPU nodes that pods may use, and without the operator afterwards."""
    cluster.kubectl("taint", "nodes", "--all", "node.cloudprovider.kubernetes.io/uninitialized-", check=False)
    yield cluster
    if json.loads(cluster.helm("list", "-o", "json", "-n", PIN["namespace"]).stdout):
        uninstall(cluster)


def install(cluster: Any, chart: str, stack: str) -> None:
    cluster.helm("upgrade", "--install", PIN["release"], chart, "-n", PIN["namespace"], "--create-namespace",
                 "-f", str(MANIFESTS / "gpu-operator" / f"{stack}.yaml"), "--wait", "--timeout", "60s")


def uninstall(cluster: Any) -> None:
    cluster.helm("uninstall", PIN["release"], "-n", PIN["namespace"], "--wait", "--timeout", "60s")


def items(cluster: Any, *what: str) -> list[Any]:
    found: list[Any] = json.loads(cluster.kubectl("get", *what, "-o", "json").stdout)["items"]
    return found


def gpus(cluster: Any) -> list[str]:
    """Allocatable GPUs of the nodes whose hardware has some."""
    return [node["status"]["allocatable"].get("nvidia.com/gpu", "0") for node in items(cluster, "nodes")
            if node["metadata"]["annotations"].get("gpurunbook.dev/gpus", "0") != "0"]


def policy_state(cluster: Any) -> str:
    found = items(cluster, "clusterpolicies.nvidia.com")
    state: str = found[0].get("status", {}).get("state", "") if found else "absent"
    return state


def until(holds: Callable[[], bool], what: str) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < SECONDS, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


def versions(cluster: Any) -> dict[str, str]:
    """Resource versions of all that the operator writes: equal means that nothing was written."""
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for item in items(cluster, "daemonsets,nodes,clusterpolicies,runtimeclasses,events", "-A")
            if item["kind"] != "Event" or item["source"].get("component") == "gpu-operator"}


@pytest.mark.parametrize("stack", STACKS)
def test_helm_install_ends_in_allocatable_gpus_and_uninstall_in_none(gpu_cluster: Any, chart: str, stack: str) -> None:
    install(gpu_cluster, chart, stack)
    until(lambda: gpus(gpu_cluster) == ["1"] and policy_state(gpu_cluster) == "ready", "allocatable GPU, policy ready")

    daemonsets = items(gpu_cluster, "daemonsets", "-n", PIN["namespace"])
    operands = {d["metadata"]["name"]: d for d in daemonsets if d["metadata"]["name"].split("-")[0] in ("nvidia", "gpu")
                and "node-feature-discovery" not in d["metadata"]["name"]}
    assert set(operands) == set(STACKS[stack])
    assert operands["nvidia-device-plugin-daemonset"]["spec"]["template"]["spec"]["nodeSelector"] == {
        "nvidia.com/gpu.deploy.device-plugin": "true"}
    nodes = items(gpu_cluster, "nodes")
    assert all(node["metadata"]["labels"]["feature.node.kubernetes.io/pci-1d0f.present"] == "true" for node in nodes)
    marked = [node for node in nodes if "feature.node.kubernetes.io/pci-10de.present" in node["metadata"]["labels"]]
    assert [node["metadata"]["labels"]["nvidia.com/gpu.present"] for node in marked] == ["true"]
    events = [event["message"] for event in items(gpu_cluster, "events", "-n", "default")
              if event["source"].get("component") == "gpu-operator"]
    assert "All operands are ready (simulated)" in events

    uninstall(gpu_cluster)
    until(lambda: gpus(gpu_cluster) == ["0"], "no allocatable GPU")
    until(lambda: not items(gpu_cluster, "daemonsets,pods,deployments", "-n", PIN["namespace"]), "no object left")
    until(lambda: not items(gpu_cluster, "runtimeclasses"), "no RuntimeClass left")
    until(lambda: not [crd for crd in items(gpu_cluster, "customresourcedefinitions")
                       if crd["spec"]["names"]["kind"] == "ClusterPolicy"], "no ClusterPolicy left")
    left = [key for node in items(gpu_cluster, "nodes") for key in node["metadata"]["labels"]
            if key.startswith(("nvidia.com/", "feature.node.kubernetes.io/"))]
    assert left == []


def test_a_second_install_and_a_second_operator_change_nothing(gpu_cluster: Any, chart: str) -> None:
    install(gpu_cluster, chart, "ubuntu")
    until(lambda: gpus(gpu_cluster) == ["1"] and policy_state(gpu_cluster) == "ready", "allocatable GPU, policy ready")
    before = versions(gpu_cluster)

    async def play_again() -> None:
        async with Api(gpu_cluster.kubeconfig) as api:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run(api), 2)
        # aiohttp closes TLS connections a moment after its session ("Graceful shutdown" in its documentation).
        await asyncio.sleep(0.25)

    asyncio.run(play_again())
    assert versions(gpu_cluster) == before
    install(gpu_cluster, chart, "ubuntu")
    # Helm itself may touch the policy; what the operator wrote stays as it was.
    after = versions(gpu_cluster)
    written = [key for key in before if not key.startswith("ClusterPolicy/") and "node-feature-discovery" not in key]
    assert {key: after.get(key) for key in written} == {key: before[key] for key in written}


def test_from_one_stack_to_the_other(gpu_cluster: Any) -> None:
    install(gpu_cluster, str(STAND_IN), "ubuntu")
    until(lambda: policy_state(gpu_cluster) == "ready", "policy ready")
    install(gpu_cluster, str(STAND_IN), "al2023")
    until(lambda: not [d for d in items(gpu_cluster, "daemonsets", "-n", PIN["namespace"])
                       if d["metadata"]["name"] == "nvidia-driver-daemonset"], "driver DaemonSet gone")
    until(lambda: gpus(gpu_cluster) == ["1"] and policy_state(gpu_cluster) == "ready", "allocatable GPU, policy ready")
