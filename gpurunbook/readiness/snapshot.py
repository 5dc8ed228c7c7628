"""What was seen of the cluster, as plain JSON objects, and the names by which its parts are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Object = dict[str, Any]
"""One API object as the server sends it, trimmed."""
KINDS = ("nodes", "pods", "events", "policies", "runtime_classes", "releases", "leases", "budgets")


@dataclass(frozen=True)
class Names:
    """Which objects are meant.

    Attributes:
        is_gpu_node: whether a node with these labels belongs to a GPU group of cluster.yaml.
        wanted: how many GPU nodes cluster.yaml asks for; 0 where that is not known.
        since: since when they should be coming, None when nothing tells.
        namespace, release: of the operator.
        model_namespace, model_label, container: of the model's pods; the label as KEY=VALUE[,KEY=VALUE].
        run: the id of the run, by which its smoke pods are known.
        helm_at_work: a helm of this run is running now.
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
    helm_at_work: bool = False


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
        logs: UID of a troubled pod -> last line of its container's log.
        probe: None when nobody asked.
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
    logs: Mapping[str, str] = field(default_factory=dict)
    probe: Probe | None = None


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


def selects(selector: Object, found: Mapping[str, str]) -> bool:
    """Whether a LabelSelector picks these labels. An empty one picks all, as for a PodDisruptionBudget of policy/v1."""
    if any(found.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
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
    """`nvidia.com/gpu` and MIG devices in a list of resources."""
    return sum(_whole(value) for key, value in resources.items() if key == "nvidia.com/gpu" or key.startswith("nvidia.com/mig-"))


def _whole(value: Any) -> int:
    text = str(value)
    return int(text) if text.isdigit() else 0
