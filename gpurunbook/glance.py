"""One look at the cluster for the table of what changed: few requests, bounded in time and size, and never an error.

It asks only for what the stage's own plans can change, and of that only for what is the walk's: the nodes of cluster.yaml's
groups, the operator's namespace and release, and the Deployments, DaemonSets and pods that are ours by name, label or owner.
What may not be read, or comes too late, is left out and said.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gpurunbook.deployment import RUN_LABEL
from gpurunbook.errors import RunbookError

if TYPE_CHECKING:
    from gpurunbook.client import Client
    from gpurunbook.runbook import Run

SECONDS, ONE_SECONDS = 3.0, 1.5
"""What a look may take, a sign-in by a program included; and one request of it. A look of 2 to 10 requests takes 0.02 to 0.09 s
here, and 1 s on a cluster that is 100 ms away."""
LATE, SILENT = 0.5, "does not answer"
"""How much later than that a look is waited for, to have what came in time."""
MOST_OBJECTS, MOST_BYTES = 250, 8 * 2**20
"""More objects of a kind than this are left out: a list of a thousand nodes takes seconds."""
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""No data of a Secret leaves the API server."""
SMOKE = "gpu-smoke"
NONE, ABSENT, CLUSTER, INSIDE = "none", "absent", "cluster", " in "
PODS, PULL, MODEL, NODES, OPERATOR = "pods", "pull", "model", "nodes", "operator"
CHANGED_BY = {"provision": (NODES,), "taint": (NODES, PULL, PODS), "gpu_operator": (NODES, OPERATOR, PODS),
              "model": (MODEL, PULL, PODS), "teardown": (NODES, OPERATOR, MODEL, PULL, PODS)}
"""What the plans of a stage can change. 06 asks for nothing that role A may not see."""

Object = dict[str, Any]
Fields = dict[str, str]
"""What is seen of one object, by aspect: status, taints, ready."""


@dataclass(frozen=True)
class Look:
    """What was seen, and what was not.

    Attributes:
        seen: kind -> name -> aspect -> value. Of a cluster that is not there only the kind `cluster`, ABSENT; nothing of one
            that does not answer, or could not be read: what is in it is not known.
        left_out: kind -> why it was not seen.
        time: when, as the journal has it; "" for one that is not in it.
    """

    seen: dict[str, dict[str, Fields]]
    left_out: dict[str, str] = field(default_factory=dict)
    time: str = ""

    @property
    def there(self) -> bool:
        return bool(self.seen) and not self.absent

    @property
    def absent(self) -> bool:
        return self.seen.get(CLUSTER) == {"": {"": ABSENT}}


def look(run: Run) -> Look:
    """The cluster as it is now. Without the run's kubeconfig it is ABSENT, which of a cluster that is not ours means nothing."""
    if not run.kubeconfig.exists():
        return Look({CLUSTER: {"": {"": ABSENT}}})
    found: list[Look] = []
    # Beside this thread, since a program that signs in may take a minute, and nothing else bounds it.
    thread = threading.Thread(target=lambda: found.append(_look(run, time.monotonic() + SECONDS)), daemon=True)
    thread.start()
    thread.join(SECONDS + LATE)
    return found[0] if found else Look({}, {CLUSTER: SILENT})


def _look(run: Run, deadline: float) -> Look:
    from urllib3.exceptions import HTTPError

    from gpurunbook import client
    from gpurunbook.runbook import WITHOUT_CLUSTER
    try:
        if run.stage not in WITHOUT_CLUSTER:
            return _Questions(run, run.core.api_client, deadline).look()
        # A client of its own: the run's would go on to answer for the kubeconfig as it is now, when 02 writes another. So it
        # may lead to somebody else's cluster, which is not to be looked at, nor kept in the journal.
        if (known := run.journal.last("identity")) and not known.get("void"):
            run.check_identity()
        with client.new(run.kubeconfig, run.target.context(run)) as api:
            return _Questions(run, api, deadline).look()
    except HTTPError:
        return Look({}, {CLUSTER: SILENT})
    except RunbookError:
        return Look({}, {CLUSTER: "was not looked at: it is not the one this run began with"})
    except Exception as error:  # said in the table: the plan, whose commands are done, must not fail for it
        return Look({}, {CLUSTER: f"could not be compared ({type(error).__name__})"})


class _Questions:
    """One look's requests, one after the other over one connection, each made once."""

    def __init__(self, run: Run, api: Client, deadline: float) -> None:
        self.run, self.api, self.deadline, self.left_out = run, api, deadline, dict[str, str]()

    def look(self) -> Look:
        from gpurunbook.stages import model, objects
        self._get("/api")  # without an answer to this there is no cluster to look at
        seen, wanted = {CLUSTER: {"": {"": "its API server answers"}}}, CHANGED_BY.get(self.run.stage, ())
        if NODES in wanted:
            seen["node"] = self._list("node", "/api/v1/nodes", _node, of=self._in_a_group)
        if OPERATOR in wanted:
            seen |= self._operator()
        ours = ((MODEL, "Deployment", "deployments", model.manifest(self.run).name),
                (PULL, "DaemonSet", "daemonsets", objects.document(self.run, "prepull.yaml")["metadata"]["name"]))
        for one, kind, path, name in ours:
            if one in wanted:
                address = f"/apis/apps/v1/namespaces/{objects.NAMESPACE}/{path}/{quote(name)}"
                found = self._asked(kind, address)
                seen[kind] = dict([_workload(found)]) if found and self._mine(found) else {}
        if PODS in wanted:
            pull = objects.document(self.run, "prepull.yaml")["metadata"]["labels"]
            labels = ({"app": SMOKE}, pull, dict(pair.split("=", 1) for pair in model.manifest(self.run).label.split(",")))
            seen |= self._pods(objects.NAMESPACE, lambda item: self._mine(item) and any(
                one.items() <= _labels(item).items() for one in labels))
        return Look(seen, self.left_out)

    def _operator(self) -> dict[str, dict[str, Fields]]:
        """Its namespace, its release, and what goes with the release there."""
        from gpurunbook.stages import gpu_operator
        pinned = gpu_operator.pin(self.run)
        namespace, release = pinned["namespace"], pinned["release"]
        found, ours = self._asked("namespace", f"/api/v1/namespaces/{namespace}"), set[str]()
        seen = {"namespace": dict([_namespace(found)]) if found else {}, "Helm release": self._release(namespace, release)}
        for kind in ("Deployment", "DaemonSet"):
            title = f"{kind}{INSIDE}{namespace}"
            seen[title] = self._list(title, f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s", _workload_only,
                                     of=lambda item: _of_release(item, release))
            ours |= seen[title].keys()
        return seen | self._pods(namespace, lambda item: _of_release(item, release) or _owned_by(item, ours))

    def _pods(self, namespace: str, of: Callable[[Object], bool]) -> dict[str, dict[str, Fields]]:
        title = f"pods{INSIDE}{namespace}"
        phases = self._list(title, f"/api/v1/namespaces/{namespace}/pods", _pod, of=of)
        count = Counter(fields["status"] for fields in phases.values())
        return {title: {"": {"": ", ".join(f"{number} {phase}" for phase, number in sorted(count.items())) or NONE}}}

    def _in_a_group(self, item: Object) -> bool:
        from gpurunbook.stages import nodes
        return nodes.group_of(_labels(item), self.run.cluster.groups)[1] is not None

    def _mine(self, item: Object) -> bool:
        return self.run.target.ours or _labels(item).get(RUN_LABEL) == self.run.id

    def _list(self, kind: str, path: str, read: Callable[[Object], tuple[str, Fields]], *,
              of: Callable[[Object], bool]) -> dict[str, Fields]:
        found = self._asked(kind, f"{path}?limit={MOST_OBJECTS}") or {}
        if (found.get("metadata") or {}).get("continue"):
            self.left_out[kind] = f"more than {MOST_OBJECTS}, not compared"
            return {}
        return dict(sorted(read(item) for item in found.get("items") or () if of(item)))

    def _release(self, namespace: str, name: str) -> dict[str, Fields]:
        """By Helm's own labels on the Secrets in which it keeps a release; the newest revision."""
        found = self._asked("Helm release", f"/api/v1/namespaces/{namespace}/secrets"
                            f"?labelSelector={quote(f'owner=helm,name={name}')}&limit={MOST_OBJECTS}", NAMES_ONLY)
        told = [_labels(item) for item in (found or {}).get("items") or ()]
        kept = [(int(one["version"]), one.get("status", "unknown")) for one in told if one.get("version", "").isdecimal()]
        return {name: {"status": max(kept)[1], "revision": str(max(kept)[0])}} if kept else {}

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


def _labels(item: Object) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _of_release(item: Object, release: str) -> bool:
    """Whether Helm or the operator made it: what they make says so."""
    from gpurunbook.targets.adoption import OPERATOR_KINDS
    made = {(owner["apiVersion"].partition("/")[0], owner["kind"]) for owner in item["metadata"].get("ownerReferences") or ()}
    return _labels(item).get("app.kubernetes.io/instance") == release or bool(made & {*OPERATOR_KINDS})


def _owned_by(pod: Object, workloads: Collection[str]) -> bool:
    """By a DaemonSet of these, or the ReplicaSet of a Deployment, which is called as that and a hash."""
    owners = {owner["name"] for owner in pod["metadata"].get("ownerReferences") or ()}
    return bool({*owners, *(name.rpartition("-")[0] for name in owners)} & {*workloads})


def _node(item: Object) -> tuple[str, Fields]:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions") or [])
    taints = ", ".join(f"{t['key']}:{t['effect']}" for t in item["spec"].get("taints") or []) or NONE
    return item["metadata"]["name"], {
        "status": "Ready" if ready else "NotReady", "taints": taints,
        "allocatable GPUs": str((item["status"].get("allocatable") or {}).get("nvidia.com/gpu", "0"))}


def _namespace(item: Object) -> tuple[str, Fields]:
    enforced = _labels(item).get("pod-security.kubernetes.io/enforce")
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
