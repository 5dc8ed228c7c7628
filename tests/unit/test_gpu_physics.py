"""What holds an operand whatever the chart says, and what a world makes go wrong: the plan's rules."""

from __future__ import annotations

from typing import Any

import pytest

from gpurunbook.targets.rehearsal import gpu_labels, sandbox
from gpurunbook.targets.rehearsal.gpu_health import ill
from gpurunbook.targets.rehearsal.gpu_operands import HELD_BY, HELD_ON, OPERANDS, TOOLKIT, daemonset, held, init_image
from gpurunbook.targets.rehearsal.gpu_plan import Cluster, plan
from gpurunbook.targets.rehearsal.world import World as Settings
from tests.unit.test_gpu_operator import LATER, NOW, World, node, policy

OFF: dict[str, Any] = {"enabled": False}
NEED_RUNTIME = {operand.name for operand in OPERANDS} - {"nvidia-driver-daemonset", TOOLKIT.name}
PLUGIN = "nvidia-device-plugin-daemonset"


def marked(name: str = "gpu-0", os: str = "Ubuntu 24.04 LTS") -> dict[str, Any]:
    found = node(name, os=os)
    found["metadata"]["labels"][gpu_labels.GPU_MARKS[0]] = "true"
    return found


def holds(spec: dict[str, Any], *nodes: dict[str, Any]) -> dict[str, str]:
    """Operand -> what holds it."""
    asked = policy(**spec)
    return {operand.name: notes[HELD_BY] for operand in OPERANDS if (notes := held(asked, operand, nodes))}


@pytest.mark.parametrize(("spec", "os", "expected"), [
    ({}, "Ubuntu 24.04 LTS", {}),
    ({"toolkit": OFF}, "Ubuntu 24.04 LTS", dict.fromkeys(NEED_RUNTIME, "runtime")),
    ({"driver": OFF}, "Ubuntu 24.04 LTS", {**dict.fromkeys(NEED_RUNTIME, "runtime"), TOOLKIT.name: "driver-validation"}),
    ({"driver": OFF, "toolkit": OFF}, "Amazon Linux 2023", {}),
    ({"driver": OFF, "toolkit": OFF}, "Bottlerocket OS", {}),
])
def test_what_has_no_runtime_or_no_driver_is_held(spec: dict[str, Any], os: str, expected: dict[str, str]) -> None:
    assert holds(spec, marked(os=os)) == expected


def test_only_the_nodes_that_lack_something_hold_their_pods() -> None:
    mixed = [marked("a", "Amazon Linux 2023"), marked("u"), node("cpu", gpus=0)]
    assert held(policy(toolkit=OFF), OPERANDS[3], mixed)[HELD_ON] == "u"


def test_without_the_toolkit_all_that_wait_for_it_are_made_and_mending_it_ends_the_hold() -> None:
    world = World(node(), policies=(policy(toolkit=OFF),))
    for _ in range(8):
        for change in plan(world.cluster, NOW):
            world.apply(change)
        world.run_pods()
        hold(world)
    assert set(world.operands()) == {operand.name for operand in OPERANDS} - {TOOLKIT.name}
    assert world.cluster.policies[0]["status"]["state"] == "notReady"
    assert world.node()["status"]["allocatable"].get("nvidia.com/gpu", "0") == "0"
    world.cluster.policies[0]["spec"]["toolkit"] = {"enabled": True}
    world.settle()
    assert world.cluster.policies[0]["status"]["state"] == "ready"
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "1"


def hold(world: World) -> None:
    """What KWOK does with held pods: nothing."""
    names = {made["metadata"]["name"] for made in world.cluster.daemonsets
             if HELD_ON in made["spec"]["template"]["metadata"].get("annotations", {})}
    for made in world.cluster.daemonsets:
        if made["metadata"]["name"] in names:
            made["status"]["numberReady"] = 0
    world.cluster.pods[:] = [pod for pod in world.cluster.pods if pod["metadata"]["labels"].get("app") not in names]


def test_the_pods_of_the_runtime_class_name_it_and_init_containers_have_their_own_images() -> None:
    asked = policy(validator={"repository": "r", "image": "v", "version": "1"},
                   driver={"manager": {"repository": "r", "image": "m", "version": "2"}}, operator={"runtimeClass": "mine"})
    pods = {operand.name: daemonset(asked, operand, {})["spec"]["template"]["spec"] for operand in OPERANDS}
    assert {name for name, pod in pods.items() if pod.get("runtimeClassName") == "mine"} == NEED_RUNTIME
    assert init_image(asked, "k8s-driver-manager") == "r/m:2"
    assert [c["image"] for c in pods["nvidia-operator-validator"]["initContainers"]] == ["r/v:1"] * 4


def test_a_pace_is_written_on_the_pods_and_at_none_nothing_is() -> None:
    paced = daemonset(policy(), OPERANDS[0], {}, (), Settings(pace=1, seed=4))["spec"]["template"]["metadata"]["annotations"]
    assert 110 <= float(paced["gpurunbook.dev/takes"].removesuffix("s")) <= 170
    assert 8 <= float(paced["gpurunbook.dev/starts"].removesuffix("s")) <= 15
    assert "annotations" not in daemonset(policy(), OPERANDS[0], {})["spec"]["template"]["metadata"]


def test_nfd_leaves_out_the_gpus_label_and_a_persons_stays() -> None:
    world, settings = World(node(), policies=(policy(),)), Settings(no_pci_label=True)

    def settle() -> None:
        for _ in range(20):
            for change in plan(world.cluster, NOW, settings):
                world.apply(change)
            world.run_pods()
        assert plan(world.cluster, NOW, settings) == []

    settle()
    assert gpu_labels.GPU_MARKS[0] not in world.labels()
    assert "feature.node.kubernetes.io/kernel-version.full" in world.labels()
    assert "feature.node.kubernetes.io/pci-1d0f.present" in world.labels()
    assert world.operands() == []
    world.labels()[gpu_labels.GPU_MARKS[0]] = "true"
    settle()
    assert world.labels()[gpu_labels.GPU_MARKS[0]] == "true"
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "1"


def test_an_unplaced_node_has_amazons_device_too() -> None:
    unplaced = node()
    del unplaced["spec"]["providerID"]
    assert gpu_labels.nfd(unplaced)["feature.node.kubernetes.io/pci-1d0f.present"] == "true"


def plugin(uid: str, name: str = "gpu-0", made: str = NOW) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "labels": {"app": PLUGIN}, "creationTimestamp": made}, "spec": {"nodeName": name},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def test_an_ill_plugin_leaves_capacity_and_no_allocatable_until_its_pod_is_made_anew() -> None:
    first: dict[str, str] = {}
    cluster = Cluster(nodes=[node(), node("gpu-1")], pods=[plugin("a"), plugin("b", "gpu-1")])
    assert ill(cluster, first, "") == {"a", "b"}
    changes = {change.path: change.body["status"] for change in plan(cluster, NOW, ill={"a", "b"})}
    assert changes["/api/v1/nodes/gpu-0/status"] == {"capacity": {"nvidia.com/gpu": "1"}, "allocatable": {"nvidia.com/gpu": "0"}}
    cluster = Cluster(nodes=cluster.nodes, pods=[plugin("c", made=LATER), plugin("b", "gpu-1")])
    assert ill(cluster, first, "") == {"b"}


@pytest.mark.parametrize(("allocatable", "expected"), [("0", {"a"}), ("1", set())])
def test_a_pod_host_that_starts_again_takes_a_mended_plugin_for_mended(allocatable: str, expected: set[str]) -> None:
    there = node()
    there["status"]["allocatable"]["nvidia.com/gpu"] = allocatable
    assert ill(Cluster(nodes=[there], pods=[plugin("a")]), {}, "") == expected


@pytest.mark.parametrize(("since", "expected"), [
    ("2026-11-22T12:00:30+00:00", {"a"}), ("2026-11-22T12:00:00+00:00", {"a"}), ("2026-11-22T11:00:00Z", set())])
def test_a_fault_in_a_running_cluster_strikes_the_pods_that_are_there(since: str, expected: set[str]) -> None:
    there = node()
    there["status"]["allocatable"]["nvidia.com/gpu"] = "1"
    assert ill(Cluster(nodes=[there], pods=[plugin("a")]), {}, since) == expected


def test_somebody_elses_device_plugin_is_left_alone() -> None:
    world = World(node(), policies=(policy(),))
    world.settle()
    world.cluster.daemonsets.append({
        "metadata": {"name": PLUGIN, "namespace": "kube-system", "labels": {}, "generation": 1},
        "spec": {"template": {"metadata": {"labels": {"name": "nvidia-device-plugin-ds"}}, "spec": {
            "tolerations": [{"operator": "Exists"}]}}}})
    world.run_pods()
    assert plan(world.cluster, NOW) == []
    world.cluster.policies.clear()
    deleted = [change.path for change in plan(world.cluster, NOW) if change.verb == "delete"]
    assert f"/apis/apps/v1/namespaces/gpus/daemonsets/{PLUGIN}" in deleted
    assert not [path for path in deleted if "kube-system" in path]


@pytest.mark.parametrize(("auto", "ready", "template", "expected"), [
    (True, "False", "1", ["/api/v1/namespaces/gpus/pods/driver-x"]), (True, "True", "1", []), (True, "False", "2", []),
    (False, "False", "1", [])])
def test_a_failing_driver_of_an_older_template_is_made_anew(auto: bool, ready: str, template: str, expected: list[str]) -> None:
    asked = policy(driver={"upgradePolicy": {"autoUpgrade": auto}})
    world = World(node(), policies=(asked,))
    world.settle()
    made = world.cluster.made("nvidia-driver-daemonset")
    assert made is not None
    made["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = "2"
    pods = [pod for pod in world.cluster.pods if pod["metadata"]["labels"].get("app") != "nvidia-driver-daemonset"]
    pods.append({"metadata": {"name": "driver-x", "namespace": "gpus", "labels": {
                    "app": "nvidia-driver-daemonset", "pod-template-generation": template}},
                 "spec": {"nodeName": "gpu-0"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    found = plan(Cluster(world.cluster.policies, world.cluster.nodes, world.cluster.daemonsets, pods,
                         world.cluster.runtime_classes), NOW)
    assert [change.path for change in found if change.verb == "delete"] == expected


def test_the_event_counts_its_tries() -> None:
    pod = {"metadata": {"name": "p", "namespace": "gpus", "uid": "0123456789", "annotations": {
               HELD_BY: "runtime", HELD_ON: "gpu-0,gpu-1"}}, "spec": {"nodeName": "gpu-1", "runtimeClassName": "nvidia"}}
    assert sandbox.is_held(pod)
    first = sandbox.event(pod, {}, NOW)
    again = sandbox.event(pod, first, LATER)
    assert first["message"].endswith('failed to get sandbox runtime: no runtime for "nvidia" is configured')
    assert (again["count"], again["firstTimestamp"], again["lastTimestamp"]) == (2, NOW, LATER)
    assert again["metadata"] == first["metadata"]
    assert not sandbox.is_held({**pod, "spec": {"nodeName": "gpu-11"}})
    assert not sandbox.is_held({**pod, "metadata": {"annotations": {HELD_BY: "driver-validation", HELD_ON: "gpu-1"}}})
