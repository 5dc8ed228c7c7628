"""One look at the cluster for the table of what changed: few requests, bounded in time and size, and never an error.

It asks for what the walk is about: nodes, namespaces, Helm releases, the number of CRDs, and the Deployments, DaemonSets and
pods of the operator and the model. What may not be read, or comes too late, is left out and said.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from gpurunbook.client import Client
    from gpurunbook.runbook import Run

SECONDS, ONE_SECONDS = 3.0, 1.5
"""What a look may take, and one request of it. All of them take 0.04 s here, and 1 s on a cluster that is 100 ms away."""
MOST_OBJECTS, MOST_BYTES = 250, 8 * 2**20
"""More objects of a kind than this are left out: a list of a thousand nodes takes seconds."""
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""No data of a Secret leaves the API server."""
NONE, ABSENT, CLUSTER, INSIDE = "none", "absent", "cluster", " in "

Object = dict[str, Any]
Fields = dict[str, str]
"""What is seen of one object, by aspect: status, taints, ready."""


@dataclass(frozen=True)
class Look:
    """What was seen, and what was not.

    Attributes:
        seen: kind -> name -> aspect -> value. Of a cluster that is not there, or does not answer, only the kind `cluster`;
            nothing when it could not be read.
        left_out: kind -> why it was not seen.
        time: when, as the journal has it; "" for one that is not in it.
    """

    seen: dict[str, dict[str, Fields]]
    left_out: dict[str, str] = field(default_factory=dict)
    time: str = ""

    @property
    def there(self) -> bool:
        return len(self.seen) > 1


def look(run: Run) -> Look:
    """The cluster as it is now; one that is not there, or does not answer, is seen as that."""
    if not run.kubeconfig.exists():
        return Look({CLUSTER: {"": {"": ABSENT}}})
    from urllib3.exceptions import HTTPError

    from gpurunbook import client
    try:
        # A client of its own: the run's would go on to answer for the kubeconfig as it is now, when 02 writes another.
        with client.new(run.kubeconfig, run.target.context(run)) as api:
            return _Questions(run, api).look()
    except HTTPError:
        return Look({CLUSTER: {"": {"": "does not answer"}}})
    except Exception as error:  # said in the table: the plan, whose commands are done, must not fail for it
        return Look({}, {CLUSTER: f"could not be compared ({type(error).__name__})"})


class _Questions:
    """One look's requests, one after the other over one connection, each made once."""

    def __init__(self, run: Run, api: Client) -> None:
        self.run, self.api, self.deadline, self.left_out = run, api, time.monotonic() + SECONDS, dict[str, str]()

    def look(self) -> Look:
        from gpurunbook.stages import gpu_operator, model, objects
        self._get("/api")  # without an answer to this there is no cluster to look at
        seen = {CLUSTER: {"": {"": "its API server answers"}}}
        operator, namespaces = gpu_operator.pin(self.run)["namespace"], "/api/v1/namespaces"
        seen["node"] = self._list("node", "/api/v1/nodes", _node)
        seen["namespace"] = self._list("namespace", namespaces, _namespace, NAMES_ONLY)
        seen["Helm release"] = self._releases("Helm release")
        seen["CRDs"] = self._count("CRDs", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        ours = (("Deployment", "deployments", model.manifest(self.run).name),
                ("DaemonSet", "daemonsets", objects.document(self.run, "prepull.yaml")["metadata"]["name"]))
        for kind, path, name in ours:
            seen[kind] = self._one(kind, f"/apis/apps/v1/namespaces/{objects.NAMESPACE}/{path}/{quote(name)}", _workload)
        for kind, path, _ in ours:
            title = f"{kind}{INSIDE}{operator}"
            seen[title] = self._list(title, f"/apis/apps/v1/namespaces/{operator}/{path}", _workload_only)
        for namespace in (objects.NAMESPACE, operator):
            title = f"pods{INSIDE}{namespace}"
            phases = self._list(title, f"{namespaces}/{namespace}/pods", _pod)
            count = Counter(fields["status"] for fields in phases.values())
            seen[title] = {"": {"": ", ".join(f"{number} {phase}" for phase, number in sorted(count.items())) or NONE}}
        return Look(seen, self.left_out)

    def _list(self, kind: str, path: str, read: Callable[[Object], tuple[str, Fields]], accept: str = "") -> dict[str, Fields]:
        found = self._asked(kind, f"{path}?limit={MOST_OBJECTS}", accept) or {}
        if (found.get("metadata") or {}).get("continue"):
            self.left_out[kind] = f"more than {MOST_OBJECTS}, not compared"
            return {}
        return dict(sorted(read(item) for item in found.get("items") or ()))

    def _one(self, kind: str, path: str, read: Callable[[Object], tuple[str, Fields]]) -> dict[str, Fields]:
        found = self._asked(kind, path)
        return dict([read(found)]) if found else {}

    def _count(self, kind: str, path: str) -> dict[str, Fields]:
        found = self._asked(kind, f"{path}?limit=1", NAMES_ONLY) or {}
        number = len(found.get("items") or ()) + int((found.get("metadata") or {}).get("remainingItemCount") or 0)
        return {"": {"": str(number)}}

    def _releases(self, kind: str) -> dict[str, Fields]:
        """By Helm's own labels on the Secrets in which it keeps its releases; the newest revision of each."""
        newest: dict[str, tuple[int, str]] = {}
        found = self._asked(kind, f"/api/v1/secrets?labelSelector=owner%3Dhelm&limit={MOST_OBJECTS}", NAMES_ONLY)
        for item in (found or {}).get("items") or ():
            told = item["metadata"]["labels"]
            newest[told["name"]] = max(newest.get(told["name"], (0, "")), (int(told["version"]), told["status"]))
        return {name: {"status": status, "revision": str(number)} for name, (number, status) in newest.items()}

    def _asked(self, kind: str, path: str, accept: str = "") -> Object | None:
        """The answer; None for 404, and where nothing was said: then `left_out` has it."""
        from urllib3.exceptions import HTTPError
        try:
            found: Object = json.loads(self._get(path, accept))
        except _Absent:
            return None
        except _Refused as error:
            self.left_out[kind] = str(error)
            return None
        except HTTPError:
            self.left_out[kind] = "too slow to be seen"
            return None
        return found

    def _get(self, path: str, accept: str = "") -> bytes:
        """One GET without the client's patience: it tries again for 20 s, and this may not."""
        from urllib3.exceptions import ReadTimeoutError
        api, headers = self.api, {"Accept": accept or "application/json"}
        api.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ReadTimeoutError(api.rest_client.pool_manager, path, "the look's time is over")
        answer = api.rest_client.pool_manager.request("GET", api.configuration.host + path, headers=headers, retries=False,
                                                      timeout=min(left, ONE_SECONDS), preload_content=False)
        data = bytearray()
        while chunk := answer.read1(1 << 16):
            data += chunk
            if time.monotonic() > self.deadline or len(data) > MOST_BYTES:
                answer.close()
                raise ReadTimeoutError(answer._pool, path, "it takes too long")
        answer.release_conn()
        if answer.status == 404:
            raise _Absent
        if answer.status != 200:
            raise _Refused("your rights do not show" if answer.status in (401, 403) else f"answer {answer.status}")
        return bytes(data)


class _Absent(Exception):
    pass


class _Refused(Exception):
    pass


def _node(item: Object) -> tuple[str, Fields]:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions") or [])
    taints = ", ".join(f"{t['key']}:{t['effect']}" for t in item["spec"].get("taints") or []) or NONE
    return item["metadata"]["name"], {
        "status": "Ready" if ready else "NotReady", "taints": taints,
        "allocatable GPUs": str((item["status"].get("allocatable") or {}).get("nvidia.com/gpu", "0"))}


def _namespace(item: Object) -> tuple[str, Fields]:
    enforced = (item["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce")
    going = "going" if item["metadata"].get("deletionTimestamp") else "there"
    return item["metadata"]["name"], {"status": going} | ({"pods allowed": enforced} if enforced else {})


def _workload(item: Object) -> tuple[str, Fields]:
    """A Deployment or a DaemonSet, as `kubectl get` shows it: 0/1."""
    told = item.get("status") or {}
    ready, wanted = ((told.get("readyReplicas"), item["spec"]["replicas"]) if "replicas" in item["spec"] else
                     (told.get("numberReady"), told.get("desiredNumberScheduled")))
    images = ", ".join(c["image"] for c in item["spec"]["template"]["spec"]["containers"])
    return item["metadata"]["name"], {"ready": f"{ready or 0}/{wanted or 0}", "image": images}


def _workload_only(item: Object) -> tuple[str, Fields]:
    name, fields = _workload(item)
    return name, {"ready": fields["ready"]}


def _pod(item: Object) -> tuple[str, Fields]:
    return item["metadata"]["name"], {"status": (item.get("status") or {}).get("phase", "Unknown")}
