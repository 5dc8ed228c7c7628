"""The simulated GPU operator on a real control plane: our stand-in chart, and NVIDIA's own where its path is given."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.api import Api
from gpurunbook.targets.rehearsal.gpu_operator import run
from gpurunbook.targets.rehearsal.world import World, load
from tests.e2e.conftest import Checkout, Cluster

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
IMAGES = {"ubuntu": "Ubuntu 24.04 LTS", "al2023": "Amazon Linux 2023"}
"""What the nodes' image must be for the stack: Amazon's brings driver and toolkit, Ubuntu's does not."""
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
    image(cluster, "ubuntu")


def image(cluster: Any, stack: str) -> None:
    """Give all nodes the image that the stack is for."""
    body = json.dumps({"status": {"nodeInfo": {"osImage": IMAGES[stack]}}})
    for node in items(cluster, "nodes"):
        cluster.kubectl("patch", "node", node["metadata"]["name"], "--subresource=status", "--type=merge", "-p", body)


def install(cluster: Any, chart: str, stack: str, *more: str, wait: bool = True) -> None:
    cluster.helm("upgrade", "--install", PIN["release"], chart, "-n", PIN["namespace"], "--create-namespace",
                 "-f", str(MANIFESTS / "gpu-operator" / f"{stack}.yaml"), *more,
                 *(("--wait", "--timeout", "60s") if wait else ()))


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
    image(gpu_cluster, stack)
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
    image(gpu_cluster, "al2023")
    install(gpu_cluster, str(STAND_IN), "al2023")
    until(lambda: not [d for d in items(gpu_cluster, "daemonsets", "-n", PIN["namespace"])
                       if d["metadata"]["name"] == "nvidia-driver-daemonset"], "driver DaemonSet gone")
    until(lambda: gpus(gpu_cluster) == ["1"] and policy_state(gpu_cluster) == "ready", "allocatable GPU, policy ready")


def pods(cluster: Any, app: str) -> list[Any]:
    return items(cluster, "pods", "-n", PIN["namespace"], "-l", f"app={app}")


def container_ready_at(pod: Any) -> datetime:
    found = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True")
    return datetime.fromisoformat(found["lastTransitionTime"])


def test_without_the_toolkit_ubuntu_has_no_runtime_until_helm_mends_it(gpu_cluster: Any, chart: str) -> None:
    install(gpu_cluster, chart, "ubuntu", "--set", "toolkit.enabled=false", wait=False)

    def sandboxes() -> list[Any]:
        return [event for event in items(gpu_cluster, "events", "-n", PIN["namespace"])
                if event["reason"] == "FailedCreatePodSandBox" and event["involvedObject"]["name"] == name]

    until(lambda: len(pods(gpu_cluster, "nvidia-device-plugin-daemonset")) == 1, "a device plug-in that waits")
    (pod,) = pods(gpu_cluster, "nvidia-device-plugin-daemonset")
    name = pod["metadata"]["name"]
    until(lambda: len(sandboxes()) == 1, "the kubelet's event")
    assert 'no runtime for "nvidia" is configured' in sandboxes()[0]["message"]
    shown = gpu_cluster.kubectl("get", "pod", name, "-n", PIN["namespace"], "--no-headers").stdout.decode().split()
    assert shown[1:3] == ["0/1", "Init:0/1"]
    assert not pods(gpu_cluster, "nvidia-container-toolkit-daemonset")
    assert (gpus(gpu_cluster), policy_state(gpu_cluster)) == (["0"], "notReady")
    until(lambda: sandboxes()[0]["count"] > 1, "another try")
    install(gpu_cluster, chart, "ubuntu")
    until(lambda: gpus(gpu_cluster) == ["1"] and policy_state(gpu_cluster) == "ready", "allocatable GPU, policy ready")


def test_a_world_with_a_pace_and_faults(checkout: Checkout) -> None:
    """One cluster, one story: no PCI label, mended; a driver that takes its time; a GPU that is ill, mended; a lease."""
    run_id = "faulty"
    World(no_pci_label=True, unhealthy=True, controller=True).save(checkout.folder(run_id) / "rehearsal" / "world.json")
    checkout("run", "--run-id", run_id, "--until", "taint", "-p", "pace=0.02")
    cluster, world = Cluster(checkout, run_id), load(checkout.folder(run_id) / "rehearsal" / "world.json")
    assert (world.pace, world.unhealthy) == (0.02, True)
    assert world.seed

    install(cluster, str(STAND_IN), "ubuntu", wait=False)
    (node,) = [n for n in items(cluster, "nodes") if n["metadata"]["annotations"]["gpurunbook.dev/gpus"] == "1"]
    name = node["metadata"]["name"]
    until(lambda: any("system-os_release" in key for n in items(cluster, "nodes", "--field-selector", f"metadata.name={name}")
                      for key in n["metadata"]["labels"]), "NFD's labels")
    assert not pods(cluster, "nvidia-driver-daemonset")
    cluster.kubectl("label", "node", name, "feature.node.kubernetes.io/pci-10de.present=true")

    until(lambda: [p["status"]["phase"] for p in pods(cluster, "nvidia-driver-daemonset")] == ["Running"], "a driver at work")
    assert policy_state(cluster) == "notReady"
    until(lambda: bool(pods(cluster, "nvidia-container-toolkit-daemonset")), "the driver Ready")
    (driver,) = pods(cluster, "nvidia-driver-daemonset")
    took = (container_ready_at(driver) - datetime.fromisoformat(driver["metadata"]["creationTimestamp"])).total_seconds()
    expected = sum(pace.seconds(what, world, "nvidia-driver-daemonset") for what in ("driver manager", "driver"))
    assert 0.02 * 118 <= expected <= 0.02 * 185
    assert expected - 1 <= took <= expected + 3, "whole seconds in the API, and a busy machine"

    def capacities() -> list[str]:
        (found,) = items(cluster, "nodes", "--field-selector", f"metadata.name={name}")
        return [found["status"][part].get("nvidia.com/gpu", "0") for part in ("capacity", "allocatable")]

    until(lambda: capacities() == ["1", "0"], "a GPU that is there and ill")
    until(lambda: policy_state(cluster) == "ready", "a policy that sees nothing of it")
    cluster.kubectl("delete", "pods", "-n", PIN["namespace"], "-l", "app=nvidia-device-plugin-daemonset")
    until(lambda: capacities() == ["1", "1"], "a GPU that is well")

    lease = json.loads(cluster.kubectl("get", "lease", "-n", "kube-system", "cloud-controller-manager", "-o", "json").stdout)
    age = (datetime.now().astimezone() - datetime.fromisoformat(lease["spec"]["renewTime"])).total_seconds()
    assert age < lease["spec"]["leaseDurationSeconds"]
    done = checkout("run", "--run-id", run_id, "--from", "provision", "--until", "provision", "-p", "pace=0.02")
    assert done.returncode == 0
    plans = [r["commands"] for r in checkout.records(run_id) if r["kind"] == "plan" and r["stage"] == "provision"]
    assert plans[-1] == []
    checkout("teardown", "--run-id", run_id)


FAMILIES = {"ubuntu": ("cluster.yaml", ""), "al2023": ("cluster.al2023.yaml", ""),
            "bottlerocket": ("cluster.al2023.yaml", "Bottlerocket")}
"""Stack -> cluster file, and the image family to put into it."""


@pytest.mark.parametrize("stack", FAMILIES)
def test_the_whole_ladder_is_climbed_with_each_charts_values(checkout: Checkout, chart: str, stack: str) -> None:
    """05 itself: the operator with the values of the image family, and the smoke pod; the model then takes the GPU."""
    run_id, (file, family) = f"ladder-{stack}-{'nvidia' if chart != str(STAND_IN) else 'ours'}", FAMILIES[stack]
    text = (MANIFESTS.parent / file).read_text()
    assert "amiFamily: AmazonLinux2023" in text or not family
    own = checkout.root / f"cluster.ladder-{stack}.yaml"
    own.write_text(text.replace("amiFamily: AmazonLinux2023", f"amiFamily: {family}") if family else text)
    cluster_file = ("-f", str(own))
    try:
        checkout("run", "--run-id", run_id, *cluster_file, "--until", "gpu_operator", "-p", f"chart={chart}")
        found = json.loads(checkout("gpu", "--run-id", run_id, "--json").stdout)
        assert (found["findings"], found["goal"], found["standing"]) == ([], "smoke", "done")
        (node,) = found["nodes"]
        states = {step["rung"]: step["state"] for step in node["steps"]}
        reached = list(states)[:list(states).index("smoke") + 1]
        assert {name: states[name] for name in reached} == dict.fromkeys(reached, "done")
        said = {step["rung"]: step["evidence"] for step in node["steps"]}
        assert ("brought by the image" in said["driver"]) is (stack != "ubuntu")
        assert ("is off in the ClusterPolicy" in said["device-plugin"]) is (stack == "bottlerocket")
        assert "the sum is right" in said["smoke"]
    finally:
        checkout("teardown", "--run-id", run_id)
