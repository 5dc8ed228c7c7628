"""The rung of the device plug-in: one on each GPU node, none that crashes elsewhere. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpurunbook.config import is_gpu
from gpurunbook.readiness.objects import became, is_plugin, latest, made, name, namespace, of_operator, owner, state, unready
from gpurunbook.readiness.rungs import Finding, Step
from gpurunbook.readiness.snapshot import Object, labels, quantity, ready
from gpurunbook.readiness.stack import PCI_LABELS, policy_says, seen_to
from gpurunbook.readiness.trouble import of_pod, pod_trouble
from gpurunbook.readiness.view import Below, Here, View
from gpurunbook.stages.nodes import GROUP_LABELS

DELETE = "kubectl delete daemonset -n {namespace} {name}"
SHOW, SHOW_POD = "kubectl get daemonset -n {namespace} {name} -o yaml", "kubectl get pod -n {namespace} {pod} -o yaml"
KEEP = """kubectl patch daemonset -n {namespace} {name} --type=merge -p """ \
       """'{{"spec":{{"template":{{"spec":{{"nodeSelector":{{LABEL}}}}}}}}}}'"""
GPU_LABELS = (*PCI_LABELS, "nvidia.com/gpu.present", *GROUP_LABELS)
"""What GPU nodes have in common and others lack."""
VALUE = re.compile(r"[A-Za-z0-9._-]+")


def device_plugin(here: Here, below: Below) -> Step:
    if unread := here.unknown("device-plugin", "pods"):
        return unread
    by_owner = {owner(p)[0]: p for p in here.plugins if ready(p)}
    if len(by_owner) > 1:
        return _two(here, list(by_owner.values()))
    if by_owner:
        [pod] = by_owner.values()
        return here.done("device-plugin", became(pod, "Ready"), f"{namespace(pod)}/{name(pod)} is Ready")
    for pod in here.plugins:
        bad = pod_trouble(here, pod)
        return of_pod(here, "device-plugin", bad) if bad else here.waiting("device-plugin", unready(pod), state(pod))
    offered = quantity(here.node.get("status", {}).get("capacity") or {}) > 0
    if here.view.off("devicePlugin"):
        said = f"devicePlugin is off in the ClusterPolicy: {here.system} has to bring its own"
        return here.done("device-plugin", None, said) if offered else here.waiting(
            "device-plugin", None, f"{said}, and the node shows no GPU yet")
    if seen_to(here):
        return here.done("device-plugin", None, "GPUs are offered, and no pod of a plug-in is to be seen")
    return here.waiting("device-plugin", None, f"no device plug-in on the node yet; {policy_says(here.view)}")


def _two(here: Here, pods: list[Object]) -> Step:
    """The other one is named, and never the operator's; deleted is only what stands in a cluster of our own."""
    others = sorted((p for p in pods if not of_operator(p)), key=lambda p: (namespace(p), name(p)))
    other = others[0] if others else pods[0]
    _, kind, made_by = owner(other)
    told = " and ".join(f"{namespace(p)}/{name(p)} (of {owner(p)[1]} {owner(p)[2]})"
                        for p in sorted(pods, key=lambda p: (p is not other, namespace(p), name(p))))
    clear = here.view.names.ours and len(others) == len(pods) - 1
    command = SHOW_POD if kind != "DaemonSet" else DELETE if clear else SHOW
    return here.trouble("device-plugin", "two-device-plugins", f"{len(pods)} device plug-ins are Ready: {told}",
                        latest(*(became(p, "Ready") for p in pods)), other, next=command, name=made_by)


def on_cpu_nodes(view: View) -> Finding | None:
    """Device plug-ins that crash on nodes without a GPU: one finding, however many nodes there are."""
    nodes = {name(n): n for n in view.snapshot.nodes}
    without = {called for called, n in nodes.items() if not _with_gpu(view, n)}
    bad = [(p, found) for p in view.snapshot.pods if is_plugin(p) and (on := p.get("spec", {}).get("nodeName")) in without
           and (found := pod_trouble(Here(view, nodes[on]), p)) and "CrashLoopBackOff" in found.evidence]
    if not bad:
        return None
    pod, found = min(bad, key=lambda pair: str(pair[0]["spec"]["nodeName"]))
    on = sorted({str(p["spec"]["nodeName"]) for p, _ in bad})
    step = Here(view, nodes[on[0]]).trouble(
        "device-plugin", "plugin-on-cpu-nodes", f"on {len(on)} node(s) without a GPU, such as {on[0]}: {found.evidence}",
        made(pod), pod, next=_kept_away(view, pod), name=owner(pod)[2])
    return Finding(step.cause, step.rung, on[0], step.evidence, step.next)


def _with_gpu(view: View, node: Object) -> bool:
    found = labels(node)
    return (view.names.is_gpu_node(found) or any(found.get(label) == "true" for label in PCI_LABELS)
            or is_gpu(found.get("node.kubernetes.io/instance-type", ""))
            or quantity(node.get("status", {}).get("capacity") or {}) > 0)


def _kept_away(view: View, pod: Object) -> str:
    """The next command: the same DaemonSet may be what serves the GPU nodes."""
    gpu_nodes = [Here(view, n) for n in view.snapshot.nodes if _with_gpu(view, n)]
    if owner(pod)[1] != "DaemonSet" or of_operator(pod) or not view.names.ours:
        return SHOW_POD if owner(pod)[1] != "DaemonSet" else SHOW
    if gpu_nodes and all(any(of_operator(p) and ready(p) for p in here.plugins) for here in gpu_nodes):
        return DELETE
    label = _shared([labels(here.node) for here in gpu_nodes], [labels(n) for n in view.snapshot.nodes if not _with_gpu(view, n)])
    return KEEP.replace("{{LABEL}}", label) if label else SHOW


def _shared(gpu: Sequence[dict[str, str]], cpu: Sequence[dict[str, str]]) -> str:
    """A label that all GPU nodes have and no other, as a field of JSON in a template; "" when there is none."""
    for key in GPU_LABELS:
        values = {found.get(key, "") for found in gpu}
        if len(values) == 1 and VALUE.fullmatch(min(values)) and not values & {found.get(key, "") for found in cpu}:
            return f'{{{{"{key}":"{values.pop()}"}}}}'
    return ""
