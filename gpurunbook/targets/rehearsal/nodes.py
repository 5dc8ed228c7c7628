"""Nodes as EKS would show them, from cluster.yaml: names, labels, providerID, capacity, and the stuck taint.

Label keys from eksctl and the AWS cloud provider; the same file gives the same nodes every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from gpurunbook.config import ClusterConfig, NodeGroup
from gpurunbook.errors import ConfigError
from gpurunbook.stages.taint import UNINITIALIZED
from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.gpu_labels import RESOURCE, has_plugin
from gpurunbook.targets.rehearsal.instance_types import InstanceType, lookup
from gpurunbook.targets.rehearsal.pace import TAKES, duration
from gpurunbook.targets.rehearsal.world import PLAIN, World

ZONES = "abc"
KUBERNETES = "v1.36.3"
MOST = 1000
TOPOLOGY = "topology.kubernetes.io/"


def manifest(cluster: ClusterConfig, port: int, *, uninitialized_taint: bool = True,
             world: World = PLAIN) -> dict[str, Any]:
    """A v1 List of Node objects.

    Args:
        port: where the pod host serves the kubelet API, on 127.0.0.1.
        uninitialized_taint: leave the cloud controller's taint on the GPU nodes, as the tutorial met it.
        world: its pace, its GPU nodes' disks, and whether a cloud controller has placed them.

    Raises:
        ConfigError: an instance type the rehearsal does not know.
    """
    if (wanted := sum(group.desired for group in cluster.groups)) > MOST:
        raise ConfigError(f"cluster.yaml asks for {wanted:,} nodes; a rehearsal makes at most {MOST:,}",
                          where=str(cluster.path), next="lower desiredCapacity")
    return {"apiVersion": "v1", "kind": "List", "items": [
        _node(cluster, group, lookup(group.instance_type), number, port, uninitialized_taint and group.gpu, world)
        for number, group in _numbered(cluster)]}


def names(cluster: ClusterConfig) -> list[str]:
    """The names that the nodes of cluster.yaml have, whatever their types."""
    return [_name(cluster, group, number) for number, group in _numbered(cluster)]


def _numbered(cluster: ClusterConfig) -> Iterator[tuple[int, NodeGroup]]:
    return enumerate(group for group in cluster.groups for _ in range(min(group.desired, MOST)))


def _name(cluster: ClusterConfig, group: NodeGroup, number: int) -> str:
    third = int(_seed(cluster, group, number)[:2], 16) % 96
    return f"ip-192-168-{third}-{number + 10}.{cluster.region}.compute.internal"


def _seed(cluster: ClusterConfig, group: NodeGroup, number: int) -> str:
    return hashlib.sha256(f"{cluster.name}/{group.name}/{number}".encode()).hexdigest()


def _node(cluster: ClusterConfig, group: NodeGroup, kind: InstanceType, number: int, port: int,
          tainted: bool, world: World) -> dict[str, Any]:
    seed = _seed(cluster, group, number)
    zones = group.zones or tuple(f"{cluster.region}{letter}" for letter in ZONES)
    zone, name = zones[number % len(zones)], _name(cluster, group, number)
    instance = f"i-0{seed[:16]}"
    labels = {
        "alpha.eksctl.io/cluster-name": cluster.name, "alpha.eksctl.io/nodegroup-name": group.name,
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/instance-type": group.instance_type, "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": group.instance_type,
        f"{TOPOLOGY}region": cluster.region, f"{TOPOLOGY}zone": zone,
        **({"eks.amazonaws.com/nodegroup": group.name, "eks.amazonaws.com/capacityType": "ON_DEMAND"} if group.managed
           else {"alpha.eksctl.io/instance-id": instance, "node-lifecycle": "on-demand"}),
        **group.labels,
    }
    placed = not (group.gpu and world.unplaced)
    if not placed:
        labels = {key: value for key, value in labels.items() if not key.startswith(TOPOLOGY)}
    storage = ((world.disk_gib if group.gpu else 0) or group.volume_gib) * 2**20
    capacity = {"cpu": str(kind.cpus), "memory": f"{kind.memory_mib}Mi", "pods": str(kind.max_pods),
                "ephemeral-storage": f"{storage}Ki"}
    made: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {
            "kwok.x-k8s.io/node": "fake", **({TAKES: duration(pace.seconds("node ready", world, name))} if world.pace else {}),
            "gpurunbook.dev/gpus": str(kind.gpus), "gpurunbook.dev/gpu-product": kind.gpu_product,
            "gpurunbook.dev/gpu-memory-mib": str(kind.gpu_memory_mib)}},
        "spec": {**({"providerID": f"aws:///{zone}/{instance}"} if placed else {}),
                 "taints": [*(taint.model_dump() for taint in group.taints),
                            *([{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}] if tainted else [])]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            # By this the API server speaks WebSocket to the node, which Python can answer (Kubernetes 1.36).
            "declaredFeatures": ["ExtendWebSocketsToKubelet"],
            "capacity": capacity,
            "allocatable": capacity | {"cpu": f"{kind.allocatable_cpu_m}m", "memory": f"{kind.allocatable_memory_mib}Mi",
                                       "ephemeral-storage": f"{int(storage * 0.9) - 2**20}Ki"},
            "nodeInfo": {"architecture": "amd64", "bootID": seed[:32], "machineID": seed[:32], "systemUUID": seed[:32],
                         "operatingSystem": "linux", "osImage": _os(group.ami_family), "kernelVersion": "6.8.0-1030-aws",
                         "containerRuntimeVersion": "containerd://2.1.4", "kubeletVersion": KUBERNETES,
                         "kubeProxyVersion": ""},
        },
    }
    if kind.gpus and has_plugin(made):
        for part in ("capacity", "allocatable"):
            made["status"][part] = made["status"][part] | {RESOURCE: str(kind.gpus)}
    return made


def _os(family: str) -> str:
    if family.startswith("Ubuntu"):
        digits = family[-4:]
        return f"Ubuntu {digits[:2]}.{digits[2:]} LTS"
    if family.startswith("Bottlerocket"):  # BottlerocketFips too
        return "Bottlerocket OS"
    return {"AmazonLinux2023": "Amazon Linux 2023", "AmazonLinux2": "Amazon Linux 2"}.get(family, family)
