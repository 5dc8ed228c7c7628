"""The rehearsal's nodes: what cluster.yaml asks for, as EKS would show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurunbook.config import ClusterConfig, load_cluster
from gpurunbook.errors import ConfigError
from gpurunbook.targets.rehearsal.instance_types import lookup
from gpurunbook.targets.rehearsal.nodes import UNINITIALIZED, manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> ClusterConfig:
    return load_cluster(ROOT / "cluster.yaml")


@pytest.mark.parametrize(("name", "cpus", "gib", "gpus"), [
    ("g4dn.xlarge", 4, 16, 1), ("g4dn.12xlarge", 48, 192, 4), ("g5.2xlarge", 8, 32, 1), ("g5.48xlarge", 192, 768, 8),
    ("p3.8xlarge", 32, 244, 4), ("p5.48xlarge", 192, 2048, 8), ("m5.xlarge", 4, 16, 0), ("c5.large", 2, 4, 0),
    ("r5.4xlarge", 16, 128, 0),
])
def test_instance_types_are_as_aws_lists_them(name: str, cpus: int, gib: int, gpus: int) -> None:
    kind = lookup(name)
    assert (kind.cpus, kind.memory_mib, kind.gpus) == (cpus, gib * 1024, gpus)
    assert bool(kind.gpu_product) == bool(gpus)


def test_eks_keeps_a_part_of_each_node() -> None:
    kind = lookup("g4dn.xlarge")
    assert kind.allocatable_cpu_m == 3920
    assert kind.allocatable_memory_mib == 16384 - (255 + 11 * 29) - 100


@pytest.mark.parametrize("name", ["", "x1.large", "g4dn", "g4dn.", "m5.huge", "g4ad.xlarge", "m5.0.5xlarge"])
def test_an_unknown_type_is_said(name: str) -> None:
    with pytest.raises(ConfigError, match="does not know the instance type"):
        lookup(name)


def test_groups_counts_labels_and_places(cluster: ClusterConfig) -> None:
    nodes = manifest(cluster, 1234)["items"]
    groups = [n["metadata"]["labels"]["alpha.eksctl.io/nodegroup-name"] for n in nodes]
    assert groups == ["gpu-workers", "cpu-workers", "cpu-workers"]
    assert len({n["metadata"]["name"] for n in nodes}) == 3
    for node in nodes:
        labels, zone = node["metadata"]["labels"], node["metadata"]["labels"]["topology.kubernetes.io/zone"]
        assert zone in {"eu-central-1a", "eu-central-1b", "eu-central-1c"}
        assert node["spec"]["providerID"].startswith(f"aws:///{zone}/i-0")
        assert labels["kubernetes.io/hostname"] == node["metadata"]["name"]
        assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 1234
        assert "nvidia.com/gpu" not in node["status"]["capacity"], "the device plug-in reports it, not the kubelet"
    gpu, cpu, _ = nodes
    assert gpu["metadata"]["annotations"]["gpurunbook.dev/gpus"] == "1"
    assert gpu["metadata"]["labels"]["node-lifecycle"] == "on-demand"
    assert cpu["metadata"]["labels"]["eks.amazonaws.com/nodegroup"] == "cpu-workers"
    assert gpu["status"]["nodeInfo"]["osImage"] == "Ubuntu 24.04 LTS"


@pytest.mark.parametrize("family", ["Bottlerocket", "BottlerocketFips"])
def test_bottlerockets_gpus_are_reported_by_the_image_itself(cluster: ClusterConfig, family: str) -> None:
    groups = tuple(group.model_copy(update={"ami_family": family}) for group in cluster.groups)
    gpu, *cpus = manifest(cluster.model_copy(update={"groups": groups}), 1)["items"]
    assert gpu["status"]["nodeInfo"]["osImage"].startswith("Bottlerocket OS")
    assert [gpu["status"][part]["nvidia.com/gpu"] for part in ("capacity", "allocatable")] == ["1", "1"]
    assert not [node for node in cpus if "nvidia.com/gpu" in node["status"]["capacity"]]


@pytest.mark.parametrize("stuck", [True, False])
def test_only_gpu_nodes_carry_the_stuck_taint_and_a_parameter_turns_it_off(cluster: ClusterConfig, stuck: bool) -> None:
    gpu, *cpus = manifest(cluster, 1, uninitialized_taint=stuck)["items"]
    assert [t["key"] for t in gpu["spec"]["taints"]] == ([UNINITIALIZED] if stuck else [])
    assert not any(n["spec"]["taints"] for n in cpus)


def test_the_same_file_gives_the_same_nodes(cluster: ClusterConfig) -> None:
    assert manifest(cluster, 1) == manifest(cluster, 1)


def test_a_hundred_million_nodes_are_refused(cluster: ClusterConfig) -> None:
    group = cluster.groups[1].model_copy(update={"desired": 100_000_000})
    with pytest.raises(ConfigError, match="at most 1,000"):
        manifest(cluster.model_copy(update={"groups": (cluster.groups[0], group)}), 1)
