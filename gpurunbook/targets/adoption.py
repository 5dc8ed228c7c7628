"""What is read of a cluster that somebody else made, and the rules by which a run finds its way there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpurunbook import masking, yaml_file
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
    """(context, server) in somebody's kubeconfig; an empty context means its current one. Its secrets are hidden from here on.

    Raises:
        ConfigError: no kubeconfig, or no such context in it.
    """
    try:
        config = yaml_file.load(file)
        contexts = {str(c["name"]): str((c["context"] or {}).get("cluster")) for c in config["contexts"] or ()}
        servers = {str(c["name"]): _without_userinfo(str(c["cluster"]["server"])) for c in config["clusters"] or ()}
        hide_secrets(config)
    except (ConfigError, LookupError, TypeError, AttributeError, ValueError) as error:
        # What a parser says may hold what stands in the file.
        why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else "no kubeconfig"
        raise ConfigError(f"{file} cannot be read: {why}", where="--kubeconfig",
                          next="name the file that your kubectl uses, such as ~/.kube/config") from None
    name = context or str(config.get("current-context") or "")
    if name not in contexts or contexts[name] not in servers:
        close = difflib.get_close_matches(name, contexts, 1) or list(contexts)
        raise ConfigError(f"{file} has no context {name!r}" if name else f"{file} has no current context", where="--context",
                          next=f"one of: {', '.join(close)}" if close else "it has none at all")
    return name, servers[contexts[name]]


def _without_userinfo(server: str) -> str:
    parts = urlsplit(server)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else server


def hide_secrets(config: Mapping[str, Any]) -> None:
    """Make known to gpurunbook.masking what the users of a kubeconfig prove themselves with, as far as it stands there."""
    for item in config.get("users") or ():
        user = item.get("user") or {}
        plugin = (user.get("auth-provider") or {}).get("config") or {}
        env = {pair.get("name"): pair.get("value") for pair in (user.get("exec") or {}).get("env") or ()}
        named = [value for key, value in {**plugin, **env}.items() if masking.SECRET_NAME.search(str(key))]
        masking.know(*(str(value) for value in (user.get("token"), user.get("password"), user.get("client-key-data"), *named)
                       if value))


def client(file: Path, context: str) -> kubernetes.client.CoreV1Api:
    """A client for a look before the context is copied. It never writes a renewed token back into the file."""
    import kubernetes

    from gpurunbook.client import new
    return kubernetes.client.CoreV1Api(new(file, context, persist_config=False))


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

OPERATOR_KINDS = (("nvidia.com", "ClusterPolicy"), ("nfd.k8s-sigs.io", "NodeFeature"))
"""What the release's operators own things by: it goes, and then so do they."""
CLUSTERS_OWN = ("ConfigMap kube-root-ca.crt",)
"""What Kubernetes itself puts into every namespace."""


def workloads(client: Callable[[str], Any]) -> dict[str, Any]:
    """Every Deployment, DaemonSet and StatefulSet: "KIND NAMESPACE/NAME" -> its metadata."""
    apps = client("AppsV1Api")
    lists = {"Deployment": apps.list_deployment_for_all_namespaces, "DaemonSet": apps.list_daemon_set_for_all_namespaces,
             "StatefulSet": apps.list_stateful_set_for_all_namespaces}
    return {f"{kind} {item.metadata.namespace}/{item.metadata.name}": item.metadata
            for kind, ask in lists.items() for item in ask(_request_timeout=SECONDS).items}


def foreign(found: Mapping[str, Any], run_id: str, namespace: str, release: str) -> list[str]:
    """Names of the workloads that a run did not make: neither labelled with it nor of its release (empty: it has none)."""
    inside = {name: metadata for name, metadata in found.items() if metadata.namespace == namespace}
    ours = of_release(inside, release) if release else set()
    return sorted(name for name, metadata in found.items()
                  if name not in ours and (metadata.labels or {}).get(RUN_LABEL) != run_id)


def of_release(found: Mapping[str, Any], release: str) -> set[str]:
    """Names of those that go with a release: Helm says so on what it made itself, and owners lead there from the rest.

    An object with one owner that is somebody else's is somebody else's. `found` must hold the owners in between.
    """
    ours = {name for name, metadata in found.items()
            if (metadata.annotations or {}).get("meta.helm.sh/release-name") == release}

    def goes(owner: Any) -> bool:
        return (owner.api_version.partition("/")[0], owner.kind) in OPERATOR_KINDS or \
            owner.uid in {found[name].uid for name in ours}

    while more := {name for name, metadata in found.items() if name not in ours and metadata.owner_references
                   and all(goes(owner) for owner in metadata.owner_references)}:
        ours |= more
    return ours


def beside(client: Callable[[str], Any], namespace: str, release: str) -> list[str]:
    """What is in the namespace of a release that others made, or may not be listed: "KIND NAME". What is going is left out."""
    from kubernetes.client import ApiException
    core, apps, batch = client("CoreV1Api"), client("AppsV1Api"), client("BatchV1Api")
    lists = {"Deployment": apps.list_namespaced_deployment, "DaemonSet": apps.list_namespaced_daemon_set,
             "StatefulSet": apps.list_namespaced_stateful_set, "ReplicaSet": apps.list_namespaced_replica_set,
             "Job": batch.list_namespaced_job, "CronJob": batch.list_namespaced_cron_job, "Pod": core.list_namespaced_pod,
             "Service": core.list_namespaced_service, "ConfigMap": core.list_namespaced_config_map,
             "Secret": core.list_namespaced_secret, "PersistentVolumeClaim": core.list_namespaced_persistent_volume_claim}
    found: dict[str, Any] = {}
    unknown = []
    for kind, ask in lists.items():
        try:
            items = ask(namespace, _request_timeout=SECONDS).items
        except ApiException as error:
            unknown.append(f"every {kind} ({error.status}: they cannot be listed)")
            continue
        found |= {f"{kind} {item.metadata.name}": item.metadata for item in items
                  if kind != "Secret" or not _kept_by_helm_or_kubernetes(item, release)}
    stays = {name for name, metadata in found.items() if metadata.deletion_timestamp is None}
    return unknown + sorted(stays - of_release(found, release) - set(CLUSTERS_OWN))


def _kept_by_helm_or_kubernetes(secret: Any, release: str) -> bool:
    labels = secret.metadata.labels or {}
    return secret.type == "kubernetes.io/service-account-token" or (
        secret.type == "helm.sh/release.v1" and labels.get("owner") == "helm" and labels.get("name") == release)
