"""Which device plugin pods of an `unhealthy` world report their GPUs as unhealthy. Pure, but for what it notes."""

from __future__ import annotations

from datetime import datetime

from gpurunbook.targets.rehearsal.gpu_labels import RESOURCE
from gpurunbook.targets.rehearsal.gpu_operands import PLUGIN
from gpurunbook.targets.rehearsal.gpu_plan import Cluster


def ill(cluster: Cluster, first: dict[str, str], since: str) -> set[str]:
    """UIDs of the pods that are ill: the first that was seen Ready on each node, and those older than `since`.

    Args:
        first: that pod's UID by node; noted here. A node whose GPUs are allocatable when it is first seen is past it: so
            a pod that was made anew stays well when the pod host starts again.
        since: RFC 3339, or empty.
    """
    allocatable = {node["metadata"]["name"]: node.get("status", {}).get("allocatable", {}).get(RESOURCE, "0")
                   for node in cluster.nodes}
    found = set[str]()
    for pod in cluster.ready_pods({"app": PLUGIN.name}):
        name, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
        if first.setdefault(name, uid if allocatable.get(name, "0") == "0" else "") == uid:
            found.add(uid)
        if since and datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) <= datetime.fromisoformat(since):
            found.add(uid)
    return found
