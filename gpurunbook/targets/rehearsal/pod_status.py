"""A pod's status from its containers' states, as a kubelet reports it. Pure: objects in, patch out.

A container's state is Kubernetes' own shape: {"waiting": {...}}, {"running": {...}} or {"terminated": {...}}.
A container that memory.py killed is OOMKilled; one that the machine's own kernel killed reads as signal 9, code 137.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from gpurunbook.targets.rehearsal.api import Object
from gpurunbook.targets.rehearsal.process import Exit
from gpurunbook.targets.rehearsal.spec import ADDRESS

LOST = "ContainerStatusUnknown"
BACKOFF_MOST = 60  # seconds, and the time of running after which the back-off starts anew


def now() -> str:
    """The time as Kubernetes writes it, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running(started: str) -> Object:
    return {"running": {"startedAt": started}}


def terminated(end: Exit, started: str, finished: str, container_id: str = "", *, oom: bool = False) -> Object:
    """A container that has ended; `oom`: because it used more memory than its limit."""
    if oom:
        return {"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": started, "finishedAt": finished,
                               "containerID": container_id}}
    state: Object = {"exitCode": end.code, "reason": "Completed" if end.code == 0 else "Error",
                     "startedAt": started, "finishedAt": finished, "containerID": container_id}
    if end.signal is not None:
        state["signal"] = end.signal
    if not end.jailed:
        state |= {"reason": "StartError", "exitCode": 128, "message": "its jail could not be made: see its log"}
    return {"terminated": state}


def lost(finished: str) -> Object:
    """The state of a container whose process ended with an earlier pod host."""
    return {"terminated": {"exitCode": 137, "reason": LOST, "startedAt": None,
                           "finishedAt": finished, "message": "the pod host ended, and its containers with it"}}


def backoff(failures: int) -> int:
    """Seconds before the next start after so many in a row: 1, 2, 4, ... 60 (a kubelet: 10 to 300)."""
    return min(1 << min(failures, 10), BACKOFF_MOST)


def restarts(policy: str, code: int) -> bool:
    """Whether a container that ended with this code is started again."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


@dataclass
class ContainerState:
    """What is known of one container; the pod host changes it, `report` reads it."""

    name: str
    image: str
    state: Object = field(default_factory=lambda: waiting("ContainerCreating"))
    last: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    container_id: str = ""

    def status(self) -> Object:
        return {"name": self.name, "image": self.image, "imageID": f"rehearsal://{self.image}",
                "containerID": self.container_id, "state": self.state, "lastState": self.last,
                "restartCount": self.restarts, "ready": self.ready, "started": "running" in self.state}


def ready(item: Object) -> bool:
    """Whether the object says that the pod, or the node, is ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in item.get("status", {}).get("conditions", []))


def phase(policy: str, initialized: bool, states: list[Object], *, ending: bool = False) -> str:
    """A pod's phase from its containers' states (kubelet's getPhase)."""
    codes = [state["terminated"]["exitCode"] for state in states if "terminated" in state]
    if len(codes) == len(states) and (ending or not any(restarts(policy, code) for code in codes)):
        return "Failed" if any(codes) else "Succeeded"
    begun = any("running" in state or "terminated" in state or
                state.get("waiting", {}).get("reason") == "CrashLoopBackOff" for state in states)
    return "Running" if initialized and begun else "Pending"


def report(pod: Object, init: list[ContainerState], containers: list[ContainerState], *, init_failed: bool = False,
           ending: bool = False) -> Object:
    """The strategic merge patch of a pod's status.

    Args:
        pod: as last seen; conditions that did not change keep their lastTransitionTime.
        init_failed: an init container ended badly and is not started again.
        ending: the pod is being deleted, so that ended containers stay ended.
    """
    time = now()
    initialized = all(one.state.get("terminated", {}).get("exitCode") == 0 for one in init)
    policy = pod["spec"].get("restartPolicy", "Always")
    whole = phase(policy, initialized, [one.state for one in containers], ending=ending)
    if init_failed:
        whole = "Failed"
    ready = bool(containers) and all(one.ready for one in containers)
    over = "PodFailed" if whole == "Failed" else "PodCompleted" if whole == "Succeeded" else ""
    unready = [one.name for one in containers if not one.ready]
    why = {"reason": over or "ContainersNotReady",
           "message": "" if over else f"containers with unready status: [{' '.join(unready)}]"}
    conditions: list[Object] = [
        {"type": "Initialized", "status": str(initialized), **({} if initialized else {
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(one.name for one in init)}]"})},
        {"type": "ContainersReady", "status": str(ready), **({} if ready else why)},
        {"type": "Ready", "status": str(ready), **({} if ready else why)},
    ]
    before = {one["type"]: one for one in pod.get("status", {}).get("conditions", [])}
    for condition in conditions:
        known = before.get(condition["type"], {})
        same = known.get("status") == condition["status"]
        condition["lastTransitionTime"] = known.get("lastTransitionTime") or time if same else time
        for key in ("reason", "message"):
            condition.setdefault(key, None)  # None: removed by the patch if it was there
    return {
        "metadata": {"uid": pod["metadata"]["uid"]},  # a precondition: not a later pod of the same name
        "status": {
            "phase": whole,
            "conditions": conditions,
            "startTime": pod.get("status", {}).get("startTime") or time,
            "hostIP": ADDRESS, "hostIPs": [{"ip": ADDRESS}], "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}],
            "containerStatuses": [one.status() for one in containers],
            **({"initContainerStatuses": [one.status() for one in init]} if init else {}),
        },
    }
