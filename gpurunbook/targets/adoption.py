"""What is read of a cluster that somebody else made, and the rules by which a run finds its way there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gpurunbook.deployment import RUN_LABEL
from gpurunbook.errors import ConfigError, RunbookError

if TYPE_CHECKING:
    import kubernetes.client

GPU = "nvidia.com/gpu"
GPU_LABELS = ("feature.node.kubernetes.io/pci-10de.present=true", "feature.node.kubernetes.io/pci-0302_10de.present=true",
              "nvidia.com/gpu.present=true")
"""Labels that say "an NVIDIA GPU is here": Node Feature Discovery's two spellings, the GPU operator's own."""
TELLING = ("nvidia.com/gpu.product", "node.kubernetes.io/instance-type", "kubernetes.io/hostname")
"""Keys that a person would choose first to tell GPU nodes from the others."""
SELECTOR = re.compile(r"([\w./-]+=[\w.-]*)(,[\w./-]+=[\w.-]*)*")
SECONDS = 15


@dataclass(frozen=True)
class Node:
    """What is read of a node. `gpus` is its capacity of nvidia.com/gpu, `taints` are (key, effect)."""

    name: str
    labels: Mapping[str, str]
    gpus: int
    taints: tuple[tuple[str, str], ...]
    os: str
    version: str


def find(file: Path, context: str) -> tuple[str, str]:
    """(context, server) in somebody's kubeconfig; an empty context means its current one.

    Raises:
        ConfigError: no kubeconfig, or no such context in it.
    """
    try:
        config = yaml.safe_load(file.read_text())
        contexts = {c["name"]: (c["context"] or {}).get("cluster") for c in config["contexts"] or ()}
        servers = {c["name"]: c["cluster"]["server"] for c in config["clusters"] or ()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no kubeconfig"  # its text may hold what stands in the file
        raise ConfigError(f"{file} cannot be read: {why}", where="--kubeconfig",
                          next="name the file that your kubectl uses, such as ~/.kube/config") from None
    name = context or str(config.get("current-context") or "")
    if name not in contexts or contexts[name] not in servers:
        close = difflib.get_close_matches(name, contexts, 1) or list(contexts)
        raise ConfigError(f"{file} has no context {name!r}" if name else f"{file} has no current context", where="--context",
                          next=f"one of: {', '.join(close)}" if close else "it has none at all")
    return name, str(servers[contexts[name]])


def client(file: Path, context: str) -> kubernetes.client.CoreV1Api:
    """A client for a look before the context is copied. It never writes a renewed token back into the file."""
    import kubernetes
    return kubernetes.client.CoreV1Api(
        kubernetes.config.new_client_from_config(str(file), context=context, persist_config=False))


def look(core: Callable[[], kubernetes.client.CoreV1Api]) -> list[Node]:
    """The nodes of the cluster. Raises RunbookError when it does not answer, or refuses."""
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError
    try:
        items = core().list_node(_request_timeout=SECONDS).items
    except (ApiException, HTTPError, ConfigException, OSError) as error:
        why = f"{error.status} {error.reason}" if isinstance(error, ApiException) else type(error).__name__
        raise RunbookError(f"the cluster does not let its nodes be listed: {why}", where="--kubeconfig, --context",
                           next="kubectl --kubeconfig FILE --context NAME get nodes, until that works") from error
    return sorted((_node(item) for item in items), key=lambda n: n.name)


def _node(item: Any) -> Node:
    info = item.status.node_info
    return Node(item.metadata.name, item.metadata.labels or {}, int((item.status.capacity or {}).get(GPU, 0)),
                tuple((t.key, t.effect) for t in item.spec.taints or ()), info.os_image, info.kubelet_version.removeprefix("v"))


def picked(nodes: Iterable[Node], selector: str) -> list[Node]:
    """The nodes that carry every KEY=VALUE of a selector."""
    wanted = dict(pair.split("=", 1) for pair in selector.split(","))
    return [node for node in nodes if wanted.items() <= node.labels.items()]


def choose(nodes: Collection[Node], selector: str) -> str:
    """The selector of the GPU nodes: the one given, else a label that says "NVIDIA", else one that only nodes with
    nvidia.com/gpu carry, and all of them.

    Raises:
        ConfigError: it is none, picks nothing, or has to be given.
    """
    see = "kubectl get nodes --show-labels"
    if selector and not SELECTOR.fullmatch(selector):
        raise ConfigError(f"{selector!r} is no selector", where="parameter selector",
                          next="give KEY=VALUE, or several with commas")
    if selector and not picked(nodes, selector):
        raise ConfigError(f"no node carries {selector}", where=see,
                          next="give a label that the GPU nodes carry: -p selector=KEY=VALUE")
    if selector:
        return selector
    if known := [label for label in GPU_LABELS if picked(nodes, label)]:
        return known[0]
    gpu = [node for node in nodes if node.gpus]
    shared = set.intersection(*(set(node.labels.items()) for node in gpu)) if gpu else set()
    only = {f"{k}={v}" for k, v in shared if len(picked(nodes, f"{k}={v}")) == len(gpu)}
    if not only:
        raise ConfigError("no node says that it has an NVIDIA GPU, so it has to be said which have one" if not gpu else
                          f"no label tells the {len(gpu)} nodes with {GPU} from the others", where=see,
                          next="give a label that they carry: -p selector=KEY=VALUE")
    return min(only, key=lambda label: (_rank(label.partition("=")[0]), label))


def _rank(key: str) -> int:
    return TELLING.index(key) if key in TELLING else len(TELLING)


# What is whose

def workloads(client: Callable[[str], Any]) -> dict[str, Any]:
    """Every Deployment, DaemonSet and StatefulSet: "KIND NAMESPACE/NAME" -> its metadata."""
    apps = client("AppsV1Api")
    lists = {"Deployment": apps.list_deployment_for_all_namespaces, "DaemonSet": apps.list_daemon_set_for_all_namespaces,
             "StatefulSet": apps.list_stateful_set_for_all_namespaces}
    return {f"{kind} {item.metadata.namespace}/{item.metadata.name}": item.metadata
            for kind, ask in lists.items() for item in ask(_request_timeout=SECONDS).items}


def foreign(found: Mapping[str, Any], run_id: str, namespace: str, release: str) -> list[str]:
    """Names of the workloads that a run did not make: neither labelled with it nor of its release (empty: it has none)."""
    def ours(metadata: Any) -> bool:
        return (metadata.labels or {}).get(RUN_LABEL) == run_id or (
            bool(release) and metadata.namespace == namespace and of_release(metadata, release))

    return sorted(name for name, metadata in found.items() if not ours(metadata))


def of_release(metadata: Any, release: str) -> bool:
    """Helm says so on what it made itself; what the operator made has an owner."""
    return (metadata.annotations or {}).get("meta.helm.sh/release-name") == release or bool(metadata.owner_references)


def beside(client: Callable[[str], Any], namespace: str, release: str) -> list[str]:
    """What else lives in the namespace of a release: workloads, pods and claims that are not of it."""
    core = client("CoreV1Api")
    found = {name: metadata for name, metadata in workloads(client).items() if metadata.namespace == namespace}
    for kind, ask in (("Pod", core.list_namespaced_pod), ("PersistentVolumeClaim", core.list_namespaced_persistent_volume_claim)):
        found |= {f"{kind} {item.metadata.name}": item.metadata for item in ask(namespace, _request_timeout=SECONDS).items}
    return sorted(name for name, metadata in found.items() if not of_release(metadata, release))
