"""Which objects are read, by which lists, and what of them matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gpurunbook.readiness import trim
from gpurunbook.readiness.objects import PLUGIN_LABELS, is_plugin
from gpurunbook.readiness.snapshot import Names, Object, has, labels
from gpurunbook.readiness.view import SMOKE

PARTIAL = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"
"""Secrets of helm hold whole charts: only their metadata is asked for."""
NODE_EVENTS = ("NodeReady", "NodeNotReady", "RemovingNode")
Query = Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        path: where it is listed and watched.
        query: narrows both down.
        accept, watched_as: the media types of the list and of the watch.
        also: narrower lists instead of `query` alone; together they hold what matters.
    """

    name: str
    path: str
    trim: Callable[[Object], Object]
    query: Query = field(default_factory=dict)
    accept: str = "application/json"
    watched_as: str = "application/json"
    also: tuple[Query, ...] = ()

    @property
    def lists(self) -> tuple[Query, ...]:
        return self.also or (self.query,)


def kinds(names: Names) -> tuple[Kind, ...]:
    """All but the pods, whose lists depend on the nodes."""
    helm = f"owner=helm,name={names.release}"
    lease = "metadata.name=cloud-controller-manager"
    return (
        Kind("nodes", "/api/v1/nodes", lambda item: trimmed_node(names, item)),
        Kind("events", "/api/v1/events", trim.event, also=(
            {"fieldSelector": "type=Warning"}, *({"fieldSelector": f"reason={r}"} for r in NODE_EVENTS),
            {"fieldSelector": f"reason=Pulled,metadata.namespace={names.model_namespace}"})),
        Kind("policies", "/apis/nvidia.com/v1/clusterpolicies", trim.policy),
        Kind("runtime_classes", "/apis/node.k8s.io/v1/runtimeclasses", trim.whole),
        Kind("releases", f"/api/v1/namespaces/{names.namespace}/secrets", trim.whole, {"labelSelector": helm},
             PARTIAL.format("List"), PARTIAL.format("")),
        Kind("leases", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", trim.whole, {"fieldSelector": lease}),
        Kind("budgets", "/apis/policy/v1/poddisruptionbudgets", trim.whole),
    )


def pods(names: Names, gpu_nodes: Iterable[str]) -> tuple[Kind, tuple[tuple[str, Query], ...]]:
    """The kind, and its lists as (path, query): the operator's, the model's, smoke pods, plug-ins, and all on GPU nodes.

    A cluster of a thousand nodes has ten thousand pods: they are not read.
    """
    space = "/api/v1/namespaces/{}/pods"
    lists: list[tuple[str, Query]] = [
        (space.format(names.namespace), {}), (space.format(names.model_namespace), {"labelSelector": names.model_label}),
        ("/api/v1/pods", {"labelSelector": f"app={SMOKE}"}),
        *(("/api/v1/pods", {"labelSelector": f"{key}={value}"}) for key, value in PLUGIN_LABELS),
        *(("/api/v1/pods", on_node(node)) for node in gpu_nodes)]
    return Kind("pods", "/api/v1/pods", trim.pod), tuple(lists)


def on_node(node: str) -> Query:
    """The pods on one node, as the API server remembers them: it need not ask etcd first, which a hundred lists would feel."""
    return {"fieldSelector": f"spec.nodeName={node}", "resourceVersion": "0"}


def trimmed_node(names: Names, item: Object) -> Object:
    return trim.node(item) if names.is_gpu_node(labels(item)) else trim.other_node(item)


def matters(kind: str, item: Object, names: Names, cpu_nodes: Iterable[str]) -> bool:
    """Whether what a watch of the whole kind brings is among what the lists hold."""
    if kind == "events":
        return item.get("type") == "Warning" or item.get("reason") in (*NODE_EVENTS, "Pulled")
    if kind != "pods":
        return True
    found, space = labels(item), item.get("metadata", {}).get("namespace")
    node = item.get("spec", {}).get("nodeName")
    return (space == names.namespace or (space == names.model_namespace and has(names.model_label, found))
            or found.get("app") == SMOKE or is_plugin(item) or (bool(node) and node not in cpu_nodes))
