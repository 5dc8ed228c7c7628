"""The CRDs that the GPU operator's chart brings and may remove again: whose they are, and how others' are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpurunbook.errors import RunbookError

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

NVIDIA, NFD = "nvidia.com", "nfd.k8s-sigs.io"
"""API groups of the operator and of Node Feature Discovery."""
SECONDS = 30


def names(run: Run) -> list[str]:
    """Names of the CRDs of both groups. Raises ApiException when they may not be listed."""
    return sorted(crd.metadata.name for crd in _found(run))


def _found(run: Run) -> list[Any]:
    items = run.client("ApiextensionsV1Api").list_custom_resource_definition(_request_timeout=SECONDS).items
    return [item for item in items if item.spec.group in (NVIDIA, NFD)]


def used(run: Run) -> list[str]:
    """NVIDIA's CRDs that have objects: a second operator would act on them, and its uninstall waits for some of them.

    Raises:
        RunbookError: it may not be read whether one has objects.
    """
    from kubernetes.client import ApiException
    try:
        found = [crd for crd in _found(run) if crd.spec.group == NVIDIA]
    except ApiException:  # what may not be listed is not removed either, see `settings`
        return []
    return [crd.metadata.name for crd in found if _has_objects(run, crd)]


def _has_objects(run: Run, crd: Any) -> bool:
    from kubernetes.client import ApiException
    version, name = next(v.name for v in crd.spec.versions if v.served), crd.metadata.name
    try:
        ask = run.client("CustomObjectsApi").list_cluster_custom_object
        return bool(ask(crd.spec.group, version, crd.spec.names.plural, limit=1, _request_timeout=SECONDS)["items"])
    except ApiException as error:
        raise RunbookError(f"whether others use {name} cannot be read: {error.reason}", where=name,
                           next=f"ask for the right to list it, until this works: kubectl get {name} -A") from error


def settings(known: Sequence[str] | None) -> tuple[str, ...]:
    """Values (KEY=VALUE) besides the file's, where the cluster is not ours and had these CRDs before (None: unknown).

    With cleanupCRD the chart's pre-delete hook removes CRDs by name, with all objects, no matter who made them:
    clusterpolicies, nvidiadrivers, gpuclusters and, with nfd.enabled, Node Feature Discovery's. So it stays on only where
    none was there. A second Node Feature Discovery would write the same labels as the first.
    """
    if known is not None and not known:
        return ()
    keep = "operator.cleanupCRD=false"
    return (keep, "nfd.enabled=false") if any(name.endswith(f".{NFD}") for name in known or ()) else (keep,)


def merged(values: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """A file's values with switches (PART.KEY=true or false) laid over them, as helm does it for --set."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for pair in given:
        path, _, value = pair.partition("=")
        part, _, key = path.partition(".")
        result.setdefault(part, {})[key] = value == "true"
    return result
