"""The cluster's objects, without what differs between any two clusters: the hash that must be the undisturbed run's.

Covered: every object of every kind that can be listed, except what Kubernetes makes for itself (LEFT_OUT, names of
BOOTSTRAP) and events and leases. Of each object all is compared but uids, resource versions, times, addresses, ports, the
random ends of generated names, and how often a container was restarted (invariants.py sees to that).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LEFT_OUT = {"events", "leases", "componentstatuses", "endpoints", "endpointslices", "apiservices", "flowschemas",
            "prioritylevelconfigurations", "ipaddresses", "servicecidrs", "controllerrevisions"}
"""controllerrevisions: a DaemonSet's own copy of its template; the DaemonSet is compared."""
SYSTEM = {"kube-system", "kube-public", "kube-node-lease"}
BOOTSTRAP = re.compile(r"system[:-]|kube-root-ca\.crt$|cluster-admin$|(admin|edit|view)$|kubernetes$")
DROPPED = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink", "lastTransitionTime", "lastHeartbeatTime",
           "lastProbeTime", "lastUpdateTime", "startTime", "startedAt", "finishedAt", "containerID", "podIP", "podIPs", "hostIP",
           "hostIPs", "clusterIP", "clusterIPs", "restartCount", "lastState", "kubeletEndpoint", "bootID", "machineID",
           "systemUUID", "modifiedAt", "nodePort", "observedGeneration", "nvidia.com/last-applied-hash",
           "gpurunbook.dev/gpu-stack"}
"""The last two are made of uids."""
RANDOM = ((re.compile(r"kube-api-access-[a-z0-9]{5}\b"), "kube-api-access-*"),
          (re.compile(r'"gpurunbook\.dev/gpu-stack":"[a-f0-9]+"'), '"gpurunbook.dev/gpu-stack":"*"'),
          (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"), (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"))
Objects = dict[str, Any]
"""KIND/NAMESPACE/NAME -> the object, as `plain` leaves it."""


def plain(value: Any) -> Any:
    """A part of an object without what may differ; lists whose order means nothing are sorted."""
    if isinstance(value, dict):
        return {key: _sorted(key, plain(item)) for key, item in sorted(value.items()) if key not in DROPPED}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str):
        for pattern, word in RANDOM:
            value = pattern.sub(word, value)
    return value


def _sorted(key: str, value: Any) -> Any:
    return sorted(value, key=json.dumps) if key in ("conditions", "images", "containerStatuses", "subjects") else value


def normal(kind: str, item: Mapping[str, Any], folder: str) -> tuple[str, Any]:
    """An object's key, and what is compared of it. `folder`: the run's, which stands in some of them."""
    meta = item["metadata"]
    name = f"{meta['generateName']}*" if meta.get("generateName") else meta["name"]
    made: dict[str, Any] = plain(json.loads(json.dumps(item).replace(folder, "RUN")))
    made["metadata"]["name"] = name
    if kind == "secrets" and meta["name"].startswith("sh.helm.release"):
        made.pop("data", None)  # the release with its times, compressed
    owners = {owner["kind"] for owner in meta.get("ownerReferences") or ()}
    if kind == "pods" and "ReplicaSet" in owners:
        made["spec"].pop("nodeName", None)  # the scheduler may take any that fits
        made["metadata"]["labels"] = {k: v for k, v in made["metadata"]["labels"].items() if not k.startswith("topology.")}
    if kind == "nodes":
        made["status"].pop("images", None)  # so these lie where that pod was
    return f"{kind}/{meta.get('namespace', '')}/{name}", made


def ours(kind: str, meta: Mapping[str, Any]) -> bool:
    """Whether the object is there because of the run."""
    return not (kind in LEFT_OUT or meta.get("namespace") in SYSTEM or (kind == "namespaces" and meta["name"] in SYSTEM)
                or BOOTSTRAP.match(meta["name"]) or "kubernetes.io/bootstrapping" in (meta.get("labels") or {}))


def collect(found: Iterable[tuple[str, Mapping[str, Any]]], folder: str) -> Objects:
    """(kind, object) -> what is compared; several of one generated name are numbered."""
    objects: Objects = {}
    for key, made in sorted((normal(kind, item, folder) for kind, item in found if ours(kind, item["metadata"])),
                            key=lambda pair: json.dumps(pair)):
        number, free = 1, key
        while free in objects:
            number, free = number + 1, f"{key}#{number + 1}"
        objects[free] = made
    return objects


def digest(objects: Objects) -> str:
    """SHA-256 of all of them."""
    return hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest()


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """What is not as it was in the undisturbed run, a line for each place."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [line for key in sorted(wanted.keys() | found.keys()) for line in
                differences(wanted.get(key, "absent"), found.get(key, "absent"), f"{where}.{key}" if where else key)]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [line for n, pair in enumerate(zip(wanted, found, strict=True)) for line in differences(*pair, f"{where}[{n}]")]
    return [] if wanted == found else [f"{where}: {_short(found)}, undisturbed: {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else f"{text[:120]}..."


class Cluster:
    """The cluster of a run folder, as its own components sign in."""

    def __init__(self, folder: Path) -> None:
        from kubernetes import config
        self._folder = folder
        (kubeconfig,) = (folder / "rehearsal" / "clusters").glob("*/kubeconfig.yaml")
        self._api = config.new_client_from_config(str(kubeconfig))

    def _get(self, path: str) -> Any:
        asked = self._api.param_serialize("GET", path, auth_settings=["BearerToken"])
        return json.loads(self._api.call_api(*asked, _request_timeout=10).read())

    def all(self) -> list[tuple[str, dict[str, Any]]]:
        """(kind, object) of everything that can be listed."""
        groups = [f"/apis/{g['preferredVersion']['groupVersion']}" for g in self._get("/apis")["groups"]]
        kinds = [(root, r["name"]) for root in ("/api/v1", *groups) for r in self._get(root)["resources"]
                 if "list" in r["verbs"] and "/" not in r["name"] and r["name"] not in LEFT_OUT]
        return [(kind, item) for root, kind in kinds for item in self._get(f"{root}/{kind}")["items"]]

    def objects(self) -> Objects:
        return collect(self.all(), str(self._folder))

    def restarts(self) -> dict[str, int]:
        """Pods whose containers were started more than once."""
        pods = [item for kind, item in self.all() if kind == "pods"]
        counts = {p["metadata"]["name"]: sum(s["restartCount"] for s in p["status"].get("containerStatuses", ())) for p in pods}
        return {name: count for name, count in counts.items() if count}

    def uid(self) -> str:
        return str(self._get("/api/v1/namespaces/kube-system")["metadata"]["uid"])
