"""A snapshot, indexed, and what its pods say: the questions that the rules of the ladder put. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.rungs import BY_NAME, Step
from gpurunbook.readiness.snapshot import Names, Object, Snapshot, condition, gpus, has, labels, ready, when

OVER = ("Succeeded", "Failed")
DRIVER, TOOLKIT, PLUGIN = "nvidia-driver-daemonset", "nvidia-container-toolkit-daemonset", "nvidia-device-plugin-daemonset"
PLUGIN_LABELS = (("app", PLUGIN), ("name", "nvidia-device-plugin-ds"), ("app.kubernetes.io/name", "nvidia-device-plugin"))
"""The operator's, NVIDIA's static manifest (eksctl's too), and its own chart's."""
SMOKE = "gpu-smoke"
GENERATION = "gpurunbook.dev/gpu-stack"
"""Label of a smoke pod: which driver, toolkit and plug-in it proved."""
RUN_05 = "gpurunbook run --from gpu_operator --until gpu_operator"
PULL = ("ErrImagePull", "ImagePullBackOff")
BAD_START = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Below:
    """What the rungs below say: when the last of them was done, and whether all are."""

    began: datetime | None
    clear: bool


@dataclass(frozen=True)
class Trouble:
    """A trouble seen in one pod."""

    cause: str
    evidence: str
    pod: Object


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

    @property
    def unbound(self) -> Sequence[Object]:
        """Pods without a node."""
        return self._pods.get("", ())

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
        """All smoke pods that are not being deleted."""
        return [p for p in self.snapshot.pods if labels(p).get("app") == SMOKE and not p["metadata"].get("deletionTimestamp")]

    def is_model(self, pod: Object) -> bool:
        return namespace(pod) == self.names.model_namespace and has(self.names.model_label, labels(pod))

    def late(self, rung: str, since: datetime | None, limit: float = 0) -> bool:
        """Whether more than the rung's limit (or another, in seconds) has gone since then; never where nothing tells."""
        seconds = (limit or BY_NAME[rung].limit) * self.patience
        return since is not None and self.now - since > timedelta(seconds=seconds)


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

    def app(self, label: str) -> list[Object]:
        """Pods on the node whose label `app` is this, or begins with it: precompiled drivers append a kernel."""
        return [p for p in self.pods if labels(p).get("app", "").startswith(label) and not p["metadata"].get("deletionTimestamp")]

    @property
    def plugins(self) -> list[Object]:
        return [p for p in self.pods if is_plugin(p) and not p["metadata"].get("deletionTimestamp")]

    @property
    def generation(self) -> str:
        """Changes with the driver's, toolkit's and plug-in's pods on the node, and with each boot."""
        pods = [*self.app(DRIVER), *self.app(TOOLKIT), *self.plugins]
        parts = sorted(str(p["metadata"].get("uid")) for p in pods)
        boot = str((self.node.get("status", {}).get("nodeInfo") or {}).get("bootID"))
        # The letter in front keeps YAML readers from taking a digest such as 12e456789012 for a number.
        return "g" + hashlib.sha256("/".join([boot, *parts]).encode()).hexdigest()[:12]

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

    def trouble(self, rung: str, cause: str, evidence: str, since: datetime | None, pod: Object | None = None,
                **values: str) -> Step:
        given = {"node": self.name, "namespace": namespace(pod) if pod else self.view.names.namespace,
                 "pod": name(pod) if pod else "POD", "name": "NAME", **values}
        following = CAUSES[cause].next.format(**given)
        if cause == "unknown" and pod:
            following = f"kubectl describe pod -n {namespace(pod)} {name(pod)}"
        return Step(rung, "trouble", since, one_line(evidence), cause, following)

    def of_pod(self, rung: str, found: Trouble, **values: str) -> Step:
        return self.trouble(rung, found.cause, found.evidence, made(found.pod), found.pod, **values)


# Pods

def is_plugin(pod: Object) -> bool:
    """Whether a pod is one of NVIDIA's device plug-in, whoever made it."""
    found = labels(pod)
    return any(found.get(key) == value for key, value in PLUGIN_LABELS)


def pod_trouble(here: Here, pod: Object, *, crash: str = "unknown") -> Trouble | None:
    """What a pod's status says is wrong with it, None when nothing is. `crash`: the cause that a crash loop has here."""
    status, where = pod.get("status", {}), f"{namespace(pod)}/{name(pod)}"
    if phase(pod) == "Failed":
        said = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
        return Trouble("unknown", f"{where} failed: {said or _ended(pod) or 'no reason given'}", pod)
    for container in containers(pod):
        waits = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waits.get("reason", "")), str(waits.get("message") or "")
        if reason in PULL:
            return _pull(here, pod, reason, message)
        if reason in BAD_START:
            return Trouble("unknown", f"{where}: {reason}: {message}", pod)
        if oom := _oom(here, container):
            return Trouble("out-of-memory", f"{where}: container {container.get('name')} was OOMKilled, exit code 137, at "
                                            f"{oom.get('finishedAt', 'a time not told')}; restarts "
                                            f"{container.get('restartCount', 0)}", pod)
        if reason == "CrashLoopBackOff":
            log = here.view.snapshot.logs.get(str(pod["metadata"].get("uid")), "")
            said = f"; last line of its log: {log}" if log else ""
            return Trouble(crash, f"{where}: container {container.get('name')} in CrashLoopBackOff, restarts "
                                  f"{container.get('restartCount', 0)}{said}", pod)
    return None


def _pull(here: Here, pod: Object, reason: str, message: str) -> Trouble:
    events = [str(e.get("message") or "") for e in here.view.events("Pod", pod, "Failed") if "pull" in str(e.get("message"))]
    full = any("no space left on device" in text for text in (message, *events))
    pressure = condition(here.node, "DiskPressure")
    if pressure.get("status") == "True" and not full:
        return Trouble("image-too-big", f"{reason}, and the node has DiskPressure: {pressure.get('message', '')}", pod)
    told = events[-1] if events and not (full and "no space" in message) else message
    return Trouble("image-too-big" if full else "image-pull-back-off", f"{reason}: {told or message}", pod)


def _oom(here: Here, container: Object) -> Object | None:
    for key in ("state", "lastState"):
        ended: Object = (container.get(key) or {}).get("terminated") or {}
        if ended.get("reason") == "OOMKilled":
            running = (container.get("state") or {}).get("running") or {}
            # What has run for an hour since then is not held up by it.
            return None if here.view.late("running", when(running.get("startedAt")), 3600) else ended
    return None


def _ended(pod: Object) -> str:
    for container in containers(pod):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return f"container {container.get('name')} ended with {ended['exitCode']} ({ended.get('reason', 'no reason')})"
    return ""


def containers(pod: Object) -> list[Object]:
    """Statuses of all containers, those that go first first."""
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def state(pod: Object) -> str:
    """What a pod waits for or does, in a few words."""
    for container in containers(pod):
        if (waits := (container.get("state") or {}).get("waiting")) and waits.get("reason"):
            return f"{name(pod)}: {waits['reason']}" + (f": {waits['message']}" if waits.get("message") else "")
    unplaced = condition(pod, "PodScheduled")
    if unplaced.get("status") == "False":
        return f"{name(pod)}: {unplaced.get('reason')}: {unplaced.get('message')}"
    return f"{name(pod)}: {phase(pod)}" + ("" if ready(pod) or phase(pod) in OVER else ", not Ready")


def name(item: Object) -> str:
    return str(item.get("metadata", {}).get("name", ""))


def namespace(item: Object) -> str:
    return str(item.get("metadata", {}).get("namespace", ""))


def phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def made(item: Object) -> datetime | None:
    return when(item.get("metadata", {}).get("creationTimestamp"))


def became(item: Object, kind: str) -> datetime | None:
    """When a condition last changed."""
    return when(condition(item, kind).get("lastTransitionTime"))


def latest(*times: datetime | None) -> datetime | None:
    return max((t for t in times if t), default=None)


def owner(pod: Object) -> tuple[str, str]:
    """(UID, name) of what made a pod; the pod's own when nothing did."""
    refs: Iterable[Mapping[str, Any]] = pod.get("metadata", {}).get("ownerReferences") or []
    return next(((str(r.get("uid")), str(r.get("name"))) for r in refs), (str(pod["metadata"].get("uid")), name(pod)))


def one_line(text: str) -> str:
    """At most 400 characters, on one line."""
    found = " ".join(str(text).split())
    return found if len(found) <= 400 else f"{found[:399]}…"
