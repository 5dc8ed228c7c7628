"""Nodes as EKS would show them, from cluster.yaml: names, labels, providerID, capacity, and the stuck taint.

Label keys from eksctl and the AWS cloud provider; the same file gives the same nodes every time.
"""

from __future__ import annotations

import hashlib
from typing import Any

from gpurunbook.config import ClusterConfig, NodeGroup
from gpurunbook.errors import ConfigError
from gpurunbook.targets.rehearsal.instance_types import InstanceType, lookup

UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
ZONES = "abc"
KUBERNETES = "v1.36.3"
MOST = 1000


def manifest(cluster: ClusterConfig, port: int, *, uninitialized_taint: bool = True) -> dict[str, Any]:
    """A v1 List of Node objects.

    Args:
        port: where the pod host serves the kubelet API, on 127.0.0.1.
        uninitialized_taint: leave the cloud controller's taint on the GPU nodes, as the tutorial met it.

    Raises:
        ConfigError: an instance type the rehearsal does not know.
    """
    if (wanted := sum(group.desired for group in cluster.groups)) > MOST:
        raise ConfigError(f"cluster.yaml asks for {wanted:,} nodes; a rehearsal makes at most {MOST:,}",
                          where=str(cluster.path), next="lower desiredCapacity")
    items, number = [], 0
    for group in cluster.groups:
        kind = lookup(group.instance_type)
        for _ in range(group.desired):
            items.append(_node(cluster, group, kind, number, port, uninitialized_taint and group.gpu))
            number += 1
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _node(cluster: ClusterConfig, group: NodeGroup, kind: InstanceType, number: int, port: int,
          tainted: bool) -> dict[str, Any]:
    seed = hashlib.sha256(f"{cluster.name}/{group.name}/{number}".encode()).hexdigest()
    zone = f"{cluster.region}{ZONES[number % len(ZONES)]}"
    name = f"ip-192-168-{int(seed[:2], 16) % 96}-{number + 10}.{cluster.region}.compute.internal"
    instance = f"i-0{seed[:16]}"
    labels = {
        "alpha.eksctl.io/cluster-name": cluster.name, "alpha.eksctl.io/nodegroup-name": group.name,
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/instance-type": group.instance_type, "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": group.instance_type,
        "topology.kubernetes.io/region": cluster.region, "topology.kubernetes.io/zone": zone,
        **({"eks.amazonaws.com/nodegroup": group.name, "eks.amazonaws.com/capacityType": "ON_DEMAND"} if group.managed
           else {"alpha.eksctl.io/instance-id": instance, "node-lifecycle": "on-demand"}),
        **group.labels,
    }
    storage = group.volume_gib * 2**20
    capacity = {"cpu": str(kind.cpus), "memory": f"{kind.memory_mib}Mi", "pods": str(kind.max_pods),
                "ephemeral-storage": f"{storage}Ki"}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {
            "kwok.x-k8s.io/node": "fake",
            "gpurunbook.dev/gpus": str(kind.gpus), "gpurunbook.dev/gpu-product": kind.gpu_product,
            "gpurunbook.dev/gpu-memory-mib": str(kind.gpu_memory_mib)}},
        "spec": {"providerID": f"aws:///{zone}/{instance}",
                 "taints": [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}] if tainted else []},
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


def _os(family: str) -> str:
    if family.startswith("Ubuntu"):
        digits = family[-4:]
        return f"Ubuntu {digits[:2]}.{digits[2:]} LTS"
    return {"AmazonLinux2023": "Amazon Linux 2023", "AmazonLinux2": "Amazon Linux 2"}.get(family, family)
