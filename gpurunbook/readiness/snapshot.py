"""What was seen of the cluster, as plain JSON objects, and the names by which its parts are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Object = dict[str, Any]
"""One API object as the server sends it, trimmed."""
GPU, SHARED, MIG = "nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-"
"""A whole GPU; a share of one, where time-slicing renames them; how the names of MIG devices begin."""
KINDS = ("nodes", "pods", "events", "policies", "runtime_classes", "releases", "leases", "budgets")


@dataclass(frozen=True)
class Names:
    """Which objects are meant.

    Attributes:
        is_gpu_node: whether a node with these labels belongs to a GPU group of cluster.yaml.
        wanted: the least number of GPU nodes by cluster.yaml; 0 where that is not known, or an autoscaler may take all away.
        since: since when they should be coming, None when nothing tells.
        namespace, release: of the operator.
        model_namespace, model_label, container: of the model's pods; the label as KEY=VALUE[,KEY=VALUE].
        run: the id of the run, by which its smoke pods are known.
        ours: the cluster is the run's own, so what others put there may be taken away.
        alone: nobody else's programs reach the cluster, as on a rehearsal.
        helm_at_work: a helm of this run is running now.
        cut_short: when this run's newest helm began to install, if it is not known to have ended well.
    """

    is_gpu_node: Callable[[Mapping[str, str]], bool]
    wanted: int = 0
    since: datetime | None = None
    namespace: str = "gpu-operator"
    release: str = "gpu-operator"
    model_namespace: str = "default"
    model_label: str = "app=dolly-v2"
    container: str = ""
    run: str = ""
    ours: bool = True
    alone: bool = False
    helm_at_work: bool = False
    cut_short: datetime | None = None


@dataclass(frozen=True)
class Probe:
    """What an exec into the model's pod came to.

    Attributes:
        pod: UID of the pod.
        code: kubectl's exit code.
        whole: the sentinel came back, so the stream was whole.
        tar: whether `tar --version` answered, None when it was not asked.
        said: the last line that kubectl printed.
    """

    pod: str
    when: datetime
    code: int
    whole: bool
    tar: bool | None = None
    said: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The objects of each kind, and why some are not there.

    Attributes:
        denied: kind -> the right that is missing.
        throttled: what an answer 429 said, after a few tries; empty when there was none.
        lost: why the cluster cannot be asked at all, or is another one; empty when it can.
        lost_to: the cause that this has: wrong-kubeconfig or signed-out.
        logs: UID of a troubled pod -> last line of its container's log.
        probes: what exec came to, for those of the model's pods that were asked.
    """

    nodes: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()
    policies: tuple[Object, ...] = ()
    runtime_classes: tuple[Object, ...] = ()
    releases: tuple[Object, ...] = ()
    leases: tuple[Object, ...] = ()
    budgets: tuple[Object, ...] = ()
    denied: Mapping[str, str] = field(default_factory=dict)
    throttled: str = ""
    lost: str = ""
    lost_to: str = "wrong-kubeconfig"
    logs: Mapping[str, str] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()


def labels(item: Object) -> dict[str, str]:
    """The labels of an object, none where it has none."""
    found: dict[str, str] = item.get("metadata", {}).get("labels") or {}
    return found


def when(text: Any) -> datetime | None:
    """A time of the API as a datetime; None for anything else."""
    if not isinstance(text, str) or not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def condition(item: Object, kind: str) -> Object:
    """The condition of that type; an empty object when it is not there."""
    return next((c for c in item.get("status", {}).get("conditions") or [] if c.get("type") == kind), {})


def ready(item: Object) -> bool:
    """Whether the condition Ready holds."""
    return bool(condition(item, "Ready").get("status") == "True")


def selects(selector: Object | None, found: Mapping[str, str]) -> bool:
    """Whether a LabelSelector picks these labels. An empty one picks all, none picks nothing (as in policy/v1)."""
    if selector is None or any(found.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expressed(term, found) for term in selector.get("matchExpressions") or [])


def _expressed(term: Object, found: Mapping[str, str]) -> bool:
    key, values = term.get("key", ""), term.get("values") or []
    match term.get("operator"):
        case "In":
            return found.get(key) in values
        case "NotIn":
            return found.get(key) not in values
        case "Exists":
            return key in found
        case "DoesNotExist":
            return key not in found
    return False


def has(label: str, found: Mapping[str, str]) -> bool:
    """Whether labels hold all of KEY=VALUE[,KEY=VALUE]."""
    return all(found.get(key) == value for key, _, value in (pair.partition("=") for pair in label.split(",") if pair))


def gpus(item: Object) -> int:
    """GPUs that a pod asks for (its limits are requests as well)."""
    return sum(quantity((c.get("resources") or {}).get("limits") or {}) for c in item.get("spec", {}).get("containers") or [])


def quantity(resources: Mapping[str, Any]) -> int:
    """GPUs in a list of resources: whole ones, shares of them (time-slicing), and MIG devices."""
    return sum(parts(resources).values())


def parts(resources: Mapping[str, Any]) -> dict[str, int]:
    """The same by name; those of which there is none are left out."""
    found = {key: _whole(value) for key, value in resources.items() if key in (GPU, SHARED) or key.startswith(MIG)}
    return {key: count for key, count in found.items() if count}


def _whole(value: Any) -> int:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 19 else 0
