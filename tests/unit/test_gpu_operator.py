"""The simulated GPU operator's plan: the cluster's state in, the writes out."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpurunbook.targets.rehearsal import gpu_labels
from gpurunbook.targets.rehearsal.gpu_operands import DRIVER, OPERANDS, daemonset, enabled, image, is_ready, runs_on
from gpurunbook.targets.rehearsal.gpu_plan import NFD_WORKER, Change, Cluster, plan

NOW, LATER = "2026-11-22T12:00:00Z", "2026-11-22T12:01:00Z"
UNINITIALIZED = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}


def node(name: str = "gpu-0", gpus: int = 1, taints: tuple[Any, ...] = (),
         os: str = "Ubuntu 24.04 LTS") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"node.kubernetes.io/instance-type": "g4dn.xlarge"}, "annotations": {
            "gpurunbook.dev/gpus": str(gpus), "gpurunbook.dev/gpu-product": "Tesla-T4" if gpus else "",
            "gpurunbook.dev/gpu-memory-mib": "15360" if gpus else "0"}},
        "spec": {"providerID": f"aws:///eu-central-1a/i-{name}", "taints": list(taints)},
        "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"},
                   "nodeInfo": {"osImage": os, "kernelVersion": "6.8.0-1030-aws"}},
    }


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy",
        "metadata": {"name": "cluster-policy", "uid": "0123456789abcdef", "creationTimestamp": NOW,
                     "annotations": {"meta.helm.sh/release-namespace": "gpus"}},
        "spec": {
            "driver": {"enabled": True, "repository": "nvidia", "image": "driver", "version": "595.91.07"},
            "daemonsets": {"tolerations": [{**GPU_TAINT, "operator": "Exists"}],
                           "priorityClassName": "system-node-critical"}, **spec},
    }


def nfd_worker() -> dict[str, Any]:
    pod = {"metadata": {"labels": NFD_WORKER}, "spec": {"tolerations": [{"operator": "Exists"}]}}
    return {"metadata": {"name": "nfd-worker", "namespace": "gpus", "labels": NFD_WORKER, "generation": 1},
            "spec": {"template": pod}}


def merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7396, as the API server does it."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


class World:
    """Just enough API server, DaemonSet controller and KWOK to let a plan be carried out."""

    def __init__(self, *nodes: dict[str, Any], policies: tuple[dict[str, Any], ...] = (), nfd: bool = True) -> None:
        self.cluster = Cluster(list(policies), list(nodes), [nfd_worker()] if nfd else [])
        self.events: list[dict[str, Any]] = []
        self.run_pods()

    def apply(self, change: Change) -> None:
        kind, name = change.path.removesuffix("/status").split("/")[-2:]
        lists = {"nodes": self.cluster.nodes, "daemonsets": self.cluster.daemonsets, "events": self.events,
                 "runtimeclasses": self.cluster.runtime_classes, "clusterpolicies": self.cluster.policies}
        items = lists[kind]
        found = next((item for item in items if item["metadata"]["name"] == name), None)
        if change.verb == "delete":
            assert found is not None
            items.remove(found)
        elif change.verb == "merge":
            assert found is not None, f"{change.path} does not exist"
            merge(found, change.body)
        else:
            if found is not None:
                items.remove(found)
            items.append(copy.deepcopy(change.body))
            items[-1]["metadata"]["generation"] = 1

    def run_pods(self) -> None:
        self.cluster.pods.clear()
        for made in self.cluster.daemonsets:
            on = [n["metadata"]["name"] for n in self.cluster.nodes if runs_on(made, n)]
            made["status"] = {"observedGeneration": 1, "desiredNumberScheduled": len(on), "numberReady": len(on)}
            self.cluster.pods.extend(
                {"metadata": {"labels": made["spec"]["template"]["metadata"]["labels"]}, "spec": {"nodeName": name},
                 "status": {"conditions": [{"type": "Ready", "status": "True"}]}} for name in on)

    def settle(self) -> list[Change]:
        """Carry plans out until one is empty; all changes made."""
        made: list[Change] = []
        for _ in range(20):
            changes = plan(self.cluster, NOW)
            if not changes:
                return made
            for change in changes:
                self.apply(change)
            made += changes
            self.run_pods()
        raise AssertionError(f"never at rest; still {[c.path for c in changes]}")

    def labels(self, name: str = "gpu-0") -> dict[str, str]:
        found: dict[str, str] = self.node(name)["metadata"]["labels"]
        return found

    def node(self, name: str = "gpu-0") -> dict[str, Any]:
        return next(n for n in self.cluster.nodes if n["metadata"]["name"] == name)

    def operands(self) -> list[str]:
        return [d["metadata"]["name"] for d in self.cluster.daemonsets if d["metadata"]["name"] != "nfd-worker"]


def ready(world: World) -> dict[str, Any]:
    return next(c for c in world.cluster.policies[0]["status"]["conditions"] if c["type"] == "Ready")


def test_a_cluster_without_an_operator_is_left_alone() -> None:
    assert plan(Cluster(nodes=[node(), node("cpu-0", gpus=0)]), NOW) == []


def test_from_a_policy_to_an_allocatable_gpu_in_the_real_order() -> None:
    world = World(node(), node("cpu-0", gpus=0), policies=(policy(),))
    made = world.settle()
    paths = [change.path for change in made]
    assert world.operands() == [operand.name for operand in OPERANDS]
    assert world.node()["status"]["allocatable"] == {"cpu": "4", "nvidia.com/gpu": "1"}
    assert "nvidia.com/gpu" not in world.node("cpu-0")["status"]["allocatable"]
    assert world.cluster.policies[0]["status"]["state"] == "ready"
    assert paths.index("/apis/apps/v1/namespaces/gpus/daemonsets/nvidia-device-plugin-daemonset") < paths.index(
        "/api/v1/nodes/gpu-0/status") < len(paths) - 1 - paths[::-1].index(
        "/apis/nvidia.com/v1/clusterpolicies/cluster-policy/status")
    assert [event["reason"] for event in world.events] == ["Created"] * len(OPERANDS) + ["Ready"]


def test_an_operand_waits_for_those_before_it() -> None:
    world = World(node(), policies=(policy(),))
    for _ in range(6):
        for change in plan(world.cluster, NOW):
            world.apply(change)  # and no pod runs: nothing may follow the driver
    assert world.operands() == ["nvidia-driver-daemonset"]
    assert ready(world)["status"] == "False"


def test_every_node_gets_nfds_labels_and_only_gpu_nodes_the_operators() -> None:
    world = World(node(), node("cpu-0", gpus=0), policies=(policy(),))
    world.settle()
    common = {"feature.node.kubernetes.io/pci-1d0f.present": "true",
              "feature.node.kubernetes.io/system-os_release.ID": "ubuntu",
              "feature.node.kubernetes.io/system-os_release.VERSION_ID": "24.04",
              "feature.node.kubernetes.io/kernel-version.full": "6.8.0-1030-aws"}
    assert common.items() <= world.labels().items()
    assert common.items() <= world.labels("cpu-0").items()
    assert {"feature.node.kubernetes.io/pci-10de.present": "true", "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.deploy.driver": "true", "nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.count": "1",
            "nvidia.com/gpu.memory": "15360", "nvidia.com/gpu.family": "turing", "nvidia.com/mig.capable": "false",
            "nvidia.com/cuda.driver-version.full": "595.91.07",
            "nvidia.com/cuda.driver-version.revision": "07"}.items() <= world.labels().items()
    assert not [key for key in world.labels("cpu-0") if key.startswith("nvidia.com/") or "10de" in key]


def test_an_image_with_its_own_driver_gets_no_driver_toolkit_or_driver_version() -> None:
    spec = {"driver": {"enabled": False, "version": "595.91.07"}, "toolkit": {"enabled": False}}
    world = World(node(os="Amazon Linux 2023"), policies=(policy(**spec),))
    world.settle()
    assert world.operands()[0] == "nvidia-operator-validator"
    assert len(world.operands()) == len(OPERANDS) - 2
    assert world.labels()["feature.node.kubernetes.io/system-os_release.ID"] == "amzn"
    assert not [key for key in world.labels() if "cuda" in key]
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("nfd_stays", [True, False])
def test_when_the_policy_goes_so_does_all_it_made(nfd_stays: bool) -> None:
    world = World(node(), node("cpu-0", gpus=0), policies=(policy(),))
    before = dict(world.labels())
    world.settle()
    assert world.labels() != before
    world.cluster.policies.clear()
    if not nfd_stays:
        del world.cluster.daemonsets[0]
    world.run_pods()
    world.settle()
    assert world.operands() == []
    assert world.cluster.runtime_classes == []
    assert not [key for key in world.labels() if key.startswith("nvidia.com/")]
    assert world.node()["status"]["capacity"]["nvidia.com/gpu"] == "0"
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "0"
    if not nfd_stays:
        assert world.labels() == before


def test_a_device_plugin_that_is_gone_takes_the_gpu_with_it() -> None:
    world = World(node(), policies=(policy(),))
    world.settle()
    world.cluster.policies[0]["spec"]["devicePlugin"] = {"enabled": False}
    world.settle()
    assert "nvidia-device-plugin-daemonset" not in world.operands()
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "0"


def test_a_changed_policy_changes_its_daemonset_and_nothing_else() -> None:
    world = World(node(), policies=(policy(),))
    world.settle()
    world.cluster.policies[0]["spec"]["driver"]["version"] = "600.0.0"
    applied = [change.path for change in plan(world.cluster, LATER) if change.verb == "apply"]
    assert applied == ["/apis/apps/v1/namespaces/gpus/daemonsets/nvidia-driver-daemonset"]


def test_the_taint_of_the_tutorial_keeps_everything_off_the_gpu_node() -> None:
    world = World(node(taints=(UNINITIALIZED,)), node("cpu-0", gpus=0), policies=(policy(),))
    world.cluster.daemonsets[0]["spec"]["template"]["spec"]["tolerations"] = []
    world.run_pods()
    world.settle()
    assert world.operands() == []
    assert "nvidia.com/gpu.present" not in world.labels()
    assert ready(world)["reason"] == "NoGPUNodes"
    world.node()["spec"]["taints"] = [GPU_TAINT]
    world.cluster.daemonsets[0]["spec"]["template"]["spec"]["tolerations"] = [{**GPU_TAINT, "operator": "Exists"}]
    world.run_pods()
    world.settle()
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "1"


def test_without_nfd_nothing_is_found_and_the_policy_says_so() -> None:
    world = World(node(), policies=(policy(),), nfd=False)
    world.settle()
    assert world.operands() == []
    assert ready(world)["reason"] == "NFDLabelsMissing"


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    world = World(node(), policies=(policy(),))
    world.settle()
    world.cluster.daemonsets[1]["status"]["numberReady"] = 0
    for change in plan(world.cluster, LATER):
        world.apply(change)
    assert ready(world)["lastTransitionTime"] == LATER
    world.cluster.policies[0]["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = "moved"
    changes = [c.body for c in plan(world.cluster, NOW) if c.path.endswith("cluster-policy/status")]
    assert changes[0]["status"]["conditions"][0]["lastTransitionTime"] == LATER


def test_a_persons_labels_are_respected() -> None:
    labels = gpu_labels.operator({gpu_labels.GPU_MARKS[1]: "true", "nvidia.com/gpu.deploy.driver": "paused"})
    assert labels["nvidia.com/gpu.deploy.driver"] == "paused"
    assert labels["nvidia.com/gpu.present"] == "true"
    off = gpu_labels.operator({gpu_labels.GPU_MARKS[0]: "true", "nvidia.com/gpu.deploy.operands": "false"})
    assert off == {"nvidia.com/gpu.present": "true"}
    assert gpu_labels.operator({"nvidia.com/gpu.present": "true"}) == {"nvidia.com/gpu.present": "false"}
    assert gpu_labels.operator({}) == {}
    world = World(node(), policies=(policy(),))
    world.labels()["feature.node.kubernetes.io/custom-mine"] = "1"
    world.settle()
    assert world.labels()["feature.node.kubernetes.io/custom-mine"] == "1"


def test_mig_manager_goes_where_mig_can() -> None:
    able = node()
    able["metadata"]["annotations"]["gpurunbook.dev/gpu-product"] = "NVIDIA-H100-80GB-HBM3"
    world = World(able, node("gpu-1"), policies=(policy(),))
    world.settle()
    assert world.labels()["nvidia.com/gpu.deploy.mig-manager"] == "true"
    assert "nvidia.com/gpu.deploy.mig-manager" not in world.labels("gpu-1")
    assert world.cluster.policies[0]["status"]["state"] == "ready"


def test_the_oldest_policy_counts() -> None:
    young = policy()
    young["metadata"] |= {"name": "another", "creationTimestamp": LATER}
    assert Cluster(policies=[young, policy()]).policy == policy()
    going = policy()
    going["metadata"]["deletionTimestamp"] = LATER
    assert Cluster(policies=[going]).policy is None


def test_a_daemonset_goes_with_its_policy_and_carries_its_settings() -> None:
    made = daemonset(policy(), DRIVER, {gpu_labels.OS_ID: "ubuntu", gpu_labels.OS_VERSION: "24.04"})
    assert made["metadata"]["ownerReferences"][0]["uid"] == "0123456789abcdef"
    assert made["metadata"]["namespace"] == "gpus"
    pod = made["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.deploy.driver": "true"}
    (container,) = pod["containers"]
    assert (container["name"], container["image"]) == ("nvidia-driver-ctr", "nvidia/driver:595.91.07-ubuntu24.04")
    assert container["readinessProbe"]["exec"]["command"] == ["nvidia-smi"], "a driver that ends at once was never Ready"
    assert "runtimeClassName" not in pod
    assert "annotations" not in made["spec"]["template"]["metadata"], "at pace 0 nothing waits"
    assert pod["priorityClassName"] == "system-node-critical"


def test_a_policy_that_says_nothing_gets_every_operand() -> None:
    assert enabled({"spec": {}}) == list(OPERANDS)
    assert image({"spec": {}}, OPERANDS[1], {}) == "nvidia/nvidia-container-toolkit-daemonset:unknown"


@pytest.mark.parametrize(("toleration", "fits"), [
    ({"operator": "Exists"}, True),
    ({"key": "k", "operator": "Exists"}, True),
    ({"key": "k", "value": "v"}, True),
    ({"key": "k", "value": "v", "effect": "NoSchedule"}, True),
    ({"key": "k", "value": "w"}, False),
    ({"key": "k", "value": "v", "effect": "NoExecute"}, False),
    ({"key": "other", "operator": "Exists"}, False),
    ({}, False),
])
def test_tolerations(toleration: dict[str, str], fits: bool) -> None:
    made = {"spec": {"template": {"spec": {"tolerations": [toleration]}}}}
    assert runs_on(made, node(taints=({"key": "k", "value": "v", "effect": "NoSchedule"},))) is fits
    assert runs_on(made, node(taints=({"key": "k", "value": "v", "effect": "PreferNoSchedule"},)))
    assert runs_on(made, node(taints=({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},)))


def test_a_status_older_than_the_labels_is_not_ready() -> None:
    made = {"metadata": {"generation": 1}, "spec": {"template": {"spec": {}}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 0, "numberReady": 0}}
    assert is_ready(made, [])
    assert not is_ready(made, [node()])
    assert not is_ready({**made, "status": {}}, [])


def test_bottlerockets_own_plug_in_reports_the_gpus_without_a_pod_of_the_operators() -> None:
    off = {"enabled": False}
    world = World(node(os="Bottlerocket OS"), node("cpu-0", gpus=0, os="Bottlerocket OS"),
                  policies=(policy(driver=off, toolkit=off, devicePlugin=off),))
    world.settle()
    assert "nvidia-device-plugin-daemonset" not in world.operands()
    assert [world.node()["status"][part]["nvidia.com/gpu"] for part in ("capacity", "allocatable")] == ["1", "1"]
    assert "nvidia.com/gpu" not in world.node("cpu-0")["status"]["capacity"]
    world.cluster.policies.clear()
    world.settle()
    assert world.node()["status"]["allocatable"]["nvidia.com/gpu"] == "1", "it is the image's, not the operator's"
