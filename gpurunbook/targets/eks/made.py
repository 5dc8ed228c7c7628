"""What eksctl makes for a cluster file, as far as ClusterConfig leaves it out and it costs money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpurunbook import yaml_file
from gpurunbook.targets.eks import limits

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig

VOLUME_TYPE = "gp3"
"""What eksctl gives a node when cluster.yaml names no volumeType."""


@dataclass(frozen=True)
class Made:
    """Unless the file says otherwise.

    Attributes:
        nats: NAT gateways, each with an address.
        volumes: group's name -> type of its volumes, where that is not VOLUME_TYPE.
        private: names of the groups whose nodes get no public address.
    """

    nats: int = 1
    volumes: Mapping[str, str] = field(default_factory=dict, hash=False)
    private: frozenset[str] = frozenset()

    def volume(self, group: str) -> str:
        return self.volumes.get(group, VOLUME_TYPE)


def read(document: Mapping[str, Any]) -> Made:
    """From cluster.yaml. A volume with more IOPS or throughput than its size's price has in it is of a type without a price."""
    groups = [*(document.get("nodeGroups") or ()), *(document.get("managedNodeGroups") or ())]
    alone = bool((document.get("privateCluster") or {}).get("enabled"))
    volumes = {}
    for group in groups:
        more = [f"{group[key]} {unit}" for key, unit, free in (("volumeIOPS", "IOPS", 3000), ("volumeThroughput", "MiB/s", 125))
                if (group.get(key) or 0) > free]
        volumes[group["name"]] = " ".join([group.get("volumeType") or VOLUME_TYPE, *more])
    return Made(limits.network(document).nats, volumes,
                frozenset(group["name"] for group in groups if alone or group.get("privateNetworking")))


def of(cluster: ClusterConfig) -> Made:
    """eksctl's defaults where the cluster is from no file."""
    return read(yaml_file.load(cluster.path)) if cluster.path.is_file() else Made()
