"""The upper rungs: our smoke pod, and the model's pod until exec answers. Pure rules."""

from __future__ import annotations

import json
import re

from gpurunbook.readiness.causes import CAUSES, GPU_OPERATOR
from gpurunbook.readiness.objects import OVER, became, containers, latest, made, name, namespace, phase, state
from gpurunbook.readiness.rungs import Step
from gpurunbook.readiness.snapshot import GPU, Object, condition, gpus, labels, parts, quantity, ready, when
from gpurunbook.readiness.trouble import Trouble, of_pod, pod_trouble
from gpurunbook.readiness.view import GENERATION, SMOKE, Below, Here

RUN_06 = "gpurunbook run --run-id {run} --from model --until model"
NO_GPU = re.compile(r"Insufficient nvidia\.com/gpu(?![\w-]|\.\w)")
"""What the scheduler says when no whole GPU is free; nvidia.com/gpu.shared is another resource."""
CUDA_ERROR = re.compile(r"\bcu[A-Z]\w+: \d+|\bCUDA_ERROR_\w+|libcuda\.so|sums wrongly")


def smoke(here: Here, below: Below) -> Step:
    if unread := here.unknown("smoke", "pods"):
        return unread
    pod, model = here.smoke(), _model_on(here)
    if pod and labels(pod).get(GENERATION) == here.generation:
        return _smoked(here, pod)
    if model and gpus(model):
        if ready(model):
            return here.done("smoke", became(model, "Ready"), f"not run: {name(model)} already holds the GPU")
        return Step("smoke", "unknown", None, f"not run: {name(model)} already holds the GPU")
    if other := not_whole(here.node):
        return Step("smoke", "unknown", None, other)
    if pod and phase(pod) not in OVER:
        return here.waiting("smoke", made(pod), f"{state(pod)}, for a driver of before", here.run_05)
    was = f"{name(pod)} {phase(pod).lower()}, before the driver, toolkit or plug-in was made anew" if pod else "no smoke pod yet"
    return here.waiting("smoke", None, was, here.run_05)


def not_whole(node: Object) -> str:
    """Why a node's GPUs are of no use to a pod that asks for a whole one, the smoke pod or the model's; "" where they are."""
    found = parts(node.get("status", {}).get("allocatable") or {})
    if not found or GPU in found:
        return ""
    return f"not run: the node offers {', '.join(sorted(found))}; MIG and renamed shares are not supported here, only {GPU}"


def _smoked(here: Here, pod: Object) -> Step:
    log = said(here, pod)
    ended = _terminated(pod)
    if phase(pod) == "Succeeded":
        return here.done("smoke", when(ended.get("finishedAt")) or became(pod, "Initialized"), f"{name(pod)}: {told(log)}")
    if phase(pod) == "Failed":
        evidence = f"{name(pod)} failed: {log or pod['status'].get('message') or ended.get('reason') or 'no log'}"
        cause = "cuda-broken" if CUDA_ERROR.search(log) else "unknown"
        driver = next((name(p) for p in here.drivers), "")
        anew = f"{CAUSES['cuda-broken'].next}; kubectl delete pod -n {here.view.names.namespace} {{driver}}; {GPU_OPERATOR}"
        return here.trouble("smoke", cause, evidence, when(ended.get("finishedAt")) or made(pod), pod, driver=driver,
                            next=anew if driver and cause == "cuda-broken" else "")
    if bad := pod_trouble(here, pod):
        return of_pod(here, "smoke", bad)
    if NO_GPU.search(str(condition(pod, "PodScheduled").get("message"))) and (taken := _taken(here, gpus(pod))):
        return of_pod(here, "smoke", taken)
    return here.waiting("smoke", made(pod), state(pod))


def said(here: Here, pod: Object) -> str:
    """The smoke pod's last line: from its status where the kubelet put it there, else from its log."""
    message = str(_terminated(pod).get("message") or "").strip().splitlines()
    return message[-1] if message else here.view.snapshot.logs.get(str(pod["metadata"].get("uid")), "")


def told(log: str) -> str:
    """The smoke pod's JSON line in words; the line itself when it is none."""
    try:
        found = json.loads(log)
        how = "" if str(found["device"]).startswith("simulated") else "a kernel ran, "
        return f"{found['device']}; {how}the sum is right, {float(found['seconds']):.2f} s"
    except (ValueError, KeyError, TypeError, OverflowError):
        return log or "it ended well"


def _terminated(pod: Object) -> Object:
    found: Object = next((ended for c in containers(pod) if (ended := (c.get("state") or {}).get("terminated"))), {})
    return found


def _model_on(here: Here) -> Object | None:
    return next((p for p in here.view.model if p.get("spec", {}).get("nodeName") == here.name), None)


def _taken(here: Here, wanted: int) -> Trouble | None:
    """Somebody's pod that holds the node's GPUs, if not enough are left without it."""
    free = quantity(here.node.get("status", {}).get("allocatable") or {}) - sum(gpus(p) for p in here.holders())
    # A smoke pod, ours or another run's, ends by itself.
    others = [p for p in here.holders() if not here.view.is_model(p) and labels(p).get("app") != SMOKE]
    if not others or free >= max(1, wanted):
        return None
    told = ", ".join(f"{namespace(p)}/{name(p)} ({gpus(p)})" for p in others)
    return Trouble("gpu-taken", f"Insufficient {GPU}; the node's GPUs are held by {told}", others[0])


def scheduled(here: Here, below: Below) -> Step:
    if unread := here.unknown("scheduled", "pods"):
        return unread
    if pod := _model_on(here):
        since = became(pod, "PodScheduled") or made(pod)
        return here.done("scheduled", since, f"{name(pod)} is on the node")
    pods = here.view.model
    if not pods:
        return here.waiting("scheduled", None, "the model is not deployed", RUN_06.format(run=here.view.names.run))
    waiting = [p for p in pods if not p.get("spec", {}).get("nodeName")]
    if not waiting:
        return _elsewhere(here, "scheduled", pods)
    pod = waiting[0]
    unplaced = condition(pod, "PodScheduled")
    message = str(unplaced.get("message") or "the scheduler has not looked at it yet")
    since = became(pod, "PodScheduled") or made(pod)
    offers = quantity(here.node.get("status", {}).get("allocatable") or {}) > 0
    if NO_GPU.search(message) and offers and (taken := _taken(here, gpus(pod))):
        return of_pod(here, "scheduled", taken)
    late = below.clear and here.view.late("scheduled", latest(since, below.began))
    if unplaced.get("status") == "False" and late:
        return here.trouble("scheduled", "pod-unschedulable", f"{name(pod)}: {unplaced.get('reason')}: {message}", since, pod)
    return here.waiting("scheduled", since, f"{name(pod)}: {message}")


def _elsewhere(here: Here, rung: str, pods: list[Object]) -> Step:
    on = sorted({str(p["spec"]["nodeName"]) for p in pods})
    return here.done(rung, None, f"not needed here: the model's pod is on {', '.join(on[:3])}")


def pulled(here: Here, below: Below) -> Step:
    pod = _model_on(here)
    if pod is None:
        return _above(here, "pulled")
    bad, found = pod_trouble(here, pod), _container(here, pod)
    if bad and bad.cause in ("image-pull-back-off", "image-too-big"):
        return of_pod(here, "pulled", bad)
    state_of = found.get("state") or {}
    event = next(iter(here.view.events("Pod", pod, "Pulled")), None)
    if found.get("imageID") or found.get("containerID") or "running" in state_of or "terminated" in state_of:
        begun = when((state_of.get("running") or state_of.get("terminated") or {}).get("startedAt"))
        since = when(event.get("lastTimestamp")) if event else None
        there = f"{found.get('image', 'the image')} is there"
        return here.done("pulled", since or begun, str(event.get("message")) if event else there)
    return here.waiting("pulled", became(pod, "PodScheduled"), state(pod))


def running(here: Here, below: Below) -> Step:
    pod = _model_on(here)
    if pod is None:
        return _above(here, "running")
    bad = pod_trouble(here, pod)
    if bad and bad.cause not in ("image-pull-back-off", "image-too-big"):
        return of_pod(here, "running", bad)
    found = _container(here, pod)
    if (found.get("state") or {}).get("running") and ready(pod):
        since = became(pod, "Ready") or when(found["state"]["running"].get("startedAt"))
        return here.done("running", since, f"{name(pod)}: container {found.get('name')} runs and is Ready")
    return here.waiting("running", latest(became(pod, "PodScheduled"), became(pod, "Ready")), state(pod))


def answers(here: Here, below: Below) -> Step:
    pod = _model_on(here)
    if pod is None:
        return _above(here, "exec")
    probe = next((p for p in here.view.snapshot.probes if p.pod == pod["metadata"].get("uid")), None)
    if probe is None:
        if ready(pod):
            return Step("exec", "unknown", None, "not asked this time")
        return here.waiting("exec", None, "exec is tried once the container runs")
    exec_said = probe.said or "nothing was printed"
    if not probe.whole:
        if probe.code == 0 or CUT.search(probe.said):
            return here.trouble("exec", "exec-stream-cut", f"{name(pod)}: exec of an echo ended with exit code {probe.code} and "
                                f"without its output: {exec_said}", probe.when, pod)
        return here.trouble("exec", "unknown", f"{name(pod)}: exec ended with exit code {probe.code}: {exec_said}",
                            probe.when, pod)
    if probe.tar is False:
        return here.trouble("exec", "no-tar", f"{name(pod)}: exec answers, and tar does not: {exec_said}", probe.when, pod)
    return here.done("exec", probe.when, f"{name(pod)}: exec answers" + (", and has tar" if probe.tar else ""))


CUT = re.compile(r"unexpected EOF|connection reset|broken pipe|error reading from error stream|stream (closed|error|reset)|"
                 r"websocket: close|use of closed network connection|lost connection|timed? ?out", re.IGNORECASE)
"""What kubectl says when a stream broke off, as against an exec that was refused."""


def _above(here: Here, rung: str) -> Step:
    """A rung of the model's pod on a node that has none: somebody else's, or not yet."""
    pods = here.view.model
    if pods and all(p.get("spec", {}).get("nodeName") for p in pods):
        return _elsewhere(here, rung, pods)
    return here.waiting(rung, None, "no pod of the model on the node yet")


def _container(here: Here, pod: Object) -> Object:
    """The status of the model's container."""
    found = pod.get("status", {}).get("containerStatuses") or []
    return next((c for c in found if c.get("name") == here.view.names.container), found[0] if found else {})
