"""What a pod's status says is wrong with it, and not only slow: the kubelet tries most things again by itself. Pure rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from gpurunbook.readiness.objects import became, containers, latest, made, name, namespace, phase, unready
from gpurunbook.readiness.rungs import Step
from gpurunbook.readiness.snapshot import Object, condition, when
from gpurunbook.readiness.view import Here

PULL = ("ErrImagePull", "ImagePullBackOff")
NO_START = ("InvalidImageName", "ErrImageNeverPull")
"""No second try of these goes otherwise."""
BAD_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
"""These come and go while the toolkit restarts containerd."""
FINAL = re.compile(r"not found|manifest unknown|unauthorized|denied|does not exist|no match for platform|invalid reference", re.I)
"""A registry's answers that stay the same."""
FULL = "no space left on device"
AGAIN = 120.0
"""Seconds, on AWS, for which something that is tried again may fail."""
CRASHES, SLOW_CRASHES, SLOW = 3, 2, 300.0
"""A container that ended so often does not come up: one or two ends are usual while containerd is restarted. Where each try
takes minutes, as a driver's build does, two are enough, so many seconds after the pod's begin."""


@dataclass(frozen=True)
class Trouble:
    """A trouble seen in one pod."""

    cause: str
    evidence: str
    pod: Object


def pod_trouble(here: Here, pod: Object, *, crash: str = "unknown") -> Trouble | None:
    """None when nothing is wrong, or it may yet mend itself. `crash`: the cause that a crash loop has here."""
    status, where = pod.get("status", {}), f"{namespace(pod)}/{name(pod)}"
    if phase(pod) == "Failed":  # evicted, mostly: its DaemonSet or ReplicaSet makes another
        said = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
        over = here.view.older(unready(pod), AGAIN)
        return Trouble("unknown", f"{where} failed: {said or _ended(pod) or 'no reason given'}", pod) if over else None
    for container in containers(pod):
        if found := _container(here, pod, container, where, crash):
            return found
    return None


def of_pod(here: Here, rung: str, found: Trouble) -> Step:
    """The step that such a trouble makes."""
    return here.trouble(rung, found.cause, found.evidence, made(found.pod), found.pod)


def _container(here: Here, pod: Object, container: Object, where: str, crash: str) -> Trouble | None:
    waits = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waits.get("reason", "")), str(waits.get("message") or "")
    restarts, which = int(container.get("restartCount") or 0), f"{where}: container {container.get('name')}"
    if reason in PULL:
        return _pull(here, pod, reason, message)
    if reason in NO_START or (reason in BAD_START and here.view.older(_begun(pod, container), AGAIN)):
        return Trouble("unknown", f"{where}: {reason}: {message}", pod)
    if oom := _oom(here, container):
        return Trouble("out-of-memory", f"{which} was OOMKilled, exit code 137, at {oom.get('finishedAt', 'a time not told')}; "
                                        f"restarts {restarts}", pod)
    slow = restarts >= SLOW_CRASHES and here.view.older(latest(became(pod, "PodScheduled"), became(pod, "Initialized")), SLOW)
    if reason == "CrashLoopBackOff" and (restarts >= CRASHES or slow):
        log = here.view.snapshot.logs.get(str(pod["metadata"].get("uid")), "")
        said = f"; last line of its log: {log}" if log else ""
        return Trouble(crash, f"{which} in CrashLoopBackOff, restarts {restarts}{said}", pod)
    return None


def _begun(pod: Object, container: Object) -> datetime | None:
    """Since when a container may have been tried to be started, at the earliest."""
    ended = [((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt"),
             *(((c.get("state") or {}).get("terminated") or {}).get("finishedAt") for c in containers(pod))]
    return latest(*(became(pod, kind) for kind in ("PodScheduled", "Initialized", "Ready")), *map(when, ended)) or made(pod)


def _pull(here: Here, pod: Object, reason: str, message: str) -> Trouble | None:
    failed = here.view.events("Pod", pod, "Failed")
    events = [e for e in failed if "pull" in str(e.get("message"))]
    texts = [message, *(str(e["message"]) for e in events)]
    full, final = any(FULL in text for text in texts), any(FINAL.search(text) for text in texts)
    pressure = condition(here.node, "DiskPressure") if condition(here.node, "DiskPressure").get("status") == "True" else {}
    first = min((t for e in events if (t := when(e.get("firstTimestamp")))), default=None)
    # Each try is an ErrImagePull again, for a moment: that the kubelet has backed off before is in its event.
    backed_off = PULL[1] in (reason, *(str(e.get("message")).removeprefix("Error: ") for e in failed))
    sure = full or (backed_off and (final or bool(pressure)))
    if not sure and not here.view.older(first or became(pod, "PodScheduled"), AGAIN):
        return None
    if pressure and not full:
        return Trouble("image-too-big", f"{reason}, and the node has DiskPressure: {pressure.get('message', '')}", pod)
    told = texts[-1] if events and not (full and FULL in message) else message
    return Trouble("image-too-big" if full else "image-pull-back-off", f"{reason}: {told or message}", pod)


def _oom(here: Here, container: Object) -> Object | None:
    for key in ("state", "lastState"):
        ended: Object = (container.get(key) or {}).get("terminated") or {}
        if ended.get("reason") == "OOMKilled":
            running = (container.get("state") or {}).get("running") or {}
            # What has run for an hour since then is not held up by it.
            return None if here.view.older(when(running.get("startedAt")), 3600) else ended
    return None


def _ended(pod: Object) -> str:
    for container in containers(pod):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return f"container {container.get('name')} ended with {ended['exitCode']} ({ended.get('reason', 'no reason')})"
    return ""
