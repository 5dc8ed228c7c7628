"""A snapshot, indexed, and what its pods say: the questions that the rules of the ladder put. Pure."""

from __future__ import annotations

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from gpurunbook.deployment import RUN_LABEL
from gpurunbook.readiness.causes import CAUSES, GPU_OPERATOR
from gpurunbook.readiness.objects import OVER, TOOLKIT, is_driver, is_plugin, living, name, namespace, one_line, phase
from gpurunbook.readiness.rungs import BY_NAME, Step
from gpurunbook.readiness.snapshot import Names, Object, Snapshot, gpus, has, labels

SMOKE, SMOKE_NAMESPACE = "gpu-smoke", "default"
GENERATION = "gpurunbook.dev/gpu-stack"
"""Label of a smoke pod: which driver, toolkit and plug-in it proved."""


@dataclass(frozen=True)
class Below:
    """What the rungs below say: when the last of them was done, and whether all are."""

    began: datetime | None
    clear: bool


class View:
    """A snapshot's objects by node and by name."""

    def __init__(self, snapshot: Snapshot, names: Names, now: datetime, patience: float) -> None:
        self.snapshot, self.names, self.now, self.patience = snapshot, names, now, patience
        self._pods: dict[str, list[Object]] = defaultdict(list)
        for pod in snapshot.pods:
            self._pods[str(pod.get("spec", {}).get("nodeName") or "")].append(pod)
        self._events: dict[tuple[str, str], list[Object]] = defaultdict(list)
        for event in snapshot.events:
            about = event.get("involvedObject") or {}
            self._events[str(about.get("kind")), str(about.get("name"))].append(event)

    def pods_on(self, node: str) -> Sequence[Object]:
        return self._pods.get(node, ())

    def events(self, kind: str, item: Object, *reasons: str) -> list[Object]:
        """Events about an object, of these reasons, oldest first. A pod's are told from those of a namesake by its UID."""
        uid = item.get("metadata", {}).get("uid")
        found = [e for e in self._events.get((kind, name(item)), ()) if (not reasons or e.get("reason") in reasons)
                 and (kind == "Node" or (e.get("involvedObject") or {}).get("uid") in (uid, None))]
        return sorted(found, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))

    @property
    def policy(self) -> Object | None:
        """The ClusterPolicy; None when there is none."""
        return next(iter(self.snapshot.policies), None)

    def off(self, part: str) -> bool:
        """Whether the ClusterPolicy has an operand switched off."""
        spec = (self.policy or {}).get("spec") or {}
        return (spec.get(part) or {}).get("enabled") is False

    @cached_property
    def model(self) -> list[Object]:
        """The model's pods that are not being deleted; ended ones only where there is no other."""
        found = [p for p in self.snapshot.pods if self.is_model(p) and not p["metadata"].get("deletionTimestamp")]
        return [p for p in found if phase(p) not in OVER] or found

    @cached_property
    def smoke(self) -> list[Object]:
        """The run's smoke pods that are not being deleted."""
        return [p for p in living(self.snapshot.pods) if labels(p).get("app") == SMOKE and namespace(p) == SMOKE_NAMESPACE
                and labels(p).get(RUN_LABEL) == self.names.run]

    def is_model(self, pod: Object) -> bool:
        return namespace(pod) == self.names.model_namespace and has(self.names.model_label, labels(pod))

    def late(self, rung: str, since: datetime | None, limit: float = 0) -> bool:
        """Whether more than the rung's limit (or another, in seconds) has gone since then; never where nothing tells."""
        return self.older(since, limit or BY_NAME[rung].limit)

    def older(self, since: datetime | None, seconds: float) -> bool:
        """Whether more than so many seconds, as AWS takes them, have gone since then; never where nothing tells."""
        return since is not None and self.now - since > timedelta(seconds=seconds * self.patience)


@dataclass(frozen=True)
class Here:
    """One GPU node in its view."""

    view: View
    node: Object

    @property
    def name(self) -> str:
        return name(self.node)

    @property
    def pods(self) -> Sequence[Object]:
        return self.view.pods_on(self.name)

    @property
    def ubuntu(self) -> bool:
        return str((self.node.get("status", {}).get("nodeInfo") or {}).get("osImage", "")).startswith("Ubuntu")

    @property
    def system(self) -> str:
        return str((self.node.get("status", {}).get("nodeInfo") or {}).get("osImage") or "the node's image")

    @property
    def drivers(self) -> list[Object]:
        return living(p for p in self.pods if is_driver(p))

    @property
    def toolkits(self) -> list[Object]:
        return living(p for p in self.pods if labels(p).get("app") == TOOLKIT)

    @property
    def plugins(self) -> list[Object]:
        return living(p for p in self.pods if is_plugin(p))

    @property
    def generation(self) -> str:
        """Changes with the driver's, toolkit's and plug-in's pods on the node, and with each boot."""
        pods = [*self.drivers, *self.toolkits, *self.plugins]
        parts = sorted(str(p["metadata"].get("uid")) for p in pods if phase(p) not in OVER)
        boot = str((self.node.get("status", {}).get("nodeInfo") or {}).get("bootID"))
        return hashlib.sha256("/".join([boot, *parts]).encode()).hexdigest()[:12]

    def smoke(self) -> Object | None:
        """The newest smoke pod for this node."""
        hostname = labels(self.node).get("kubernetes.io/hostname", self.name)
        found = [p for p in self.view.smoke
                 if (p.get("spec", {}).get("nodeSelector") or {}).get("kubernetes.io/hostname") == hostname]
        return max(found, key=lambda p: str(p["metadata"].get("creationTimestamp")), default=None)

    def holders(self) -> list[Object]:
        """Pods that hold GPUs of the node."""
        return [p for p in self.pods if gpus(p) and phase(p) not in OVER]

    # Steps

    def done(self, rung: str, since: datetime | None, evidence: str) -> Step:
        return Step(rung, "done", since, evidence)

    def waiting(self, rung: str, since: datetime | None, evidence: str, next: str = "") -> Step:
        """`next` is given when nothing goes on without a person."""
        return Step(rung, "waiting", since, evidence, next=next)

    def unknown(self, rung: str, *kinds: str) -> Step | None:
        """The step where a kind that the rung needs could not be read; None where all could."""
        said = [self.view.snapshot.denied[kind] for kind in kinds if kind in self.view.snapshot.denied]
        return Step(rung, "unknown", None, "; ".join(said)) if said else None

    def trouble(self, rung: str, cause: str, evidence: str, since: datetime | None, pod: Object | None = None, *,
                next: str = "", **values: str) -> Step:
        """`next` instead of the cause's own, with the same placeholders."""
        template = next or ("kubectl describe pod -n {namespace} {pod}" if cause == "unknown" and pod else CAUSES[cause].next)
        given = {"node": self.name, "namespace": namespace(pod) if pod else self.view.names.namespace,
                 "pod": name(pod) if pod else "POD", "name": "NAME", "run": self.view.names.run, **values}
        following = template.format(**{key: shlex.quote(value) for key, value in given.items()})
        return Step(rung, "trouble", since, one_line(evidence), cause, following)

    @property
    def run_05(self) -> str:
        """The command that installs the operator, and runs what is to be computed."""
        return GPU_OPERATOR.format(run=self.view.names.run)
