"""What the simulated operator does next: the observed cluster in, a list of changes out. Pure.

Level-triggered: the plan of a cluster that is as it should be is empty.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from gpurunbook.targets.rehearsal import gpu_labels as node_labels
from gpurunbook.targets.rehearsal.gpu_labels import RESOURCE, Labels, Object
from gpurunbook.targets.rehearsal.gpu_operands import (
    DRIVER,
    GFD,
    HASH,
    HELD_ON,
    OPERANDS,
    PLUGIN,
    daemonset,
    enabled,
    is_owned,
    is_ready,
    namespace,
    runs_on,
    runtime_class,
)
from gpurunbook.targets.rehearsal.pod_status import ready
from gpurunbook.targets.rehearsal.world import PLAIN, World

GENERATION = ("deprecated.daemonset.template.generation", "pod-template-generation")
"""By which a DaemonSet's annotation and its pods' label say which template they are of (Kubernetes sets both)."""
NFD_WORKER = {"app.kubernetes.io/name": "node-feature-discovery", "role": "worker"}
POLICIES = "/apis/nvidia.com/v1/clusterpolicies"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


@dataclass(frozen=True)
class Cluster:
    """What was observed; lists as the API server sends them.

    Attributes:
        policies: all ClusterPolicies; empty also when the kind is not known to the server.
        nodes: all nodes, or without a policy only those that still carry labels of NFD or the operator.
        daemonsets: of all namespaces.
        pods: of NFD's workers, the driver, the device plugin and GPU feature discovery.
        runtime_classes: all.
    """

    policies: list[Object] = field(default_factory=list)
    nodes: list[Object] = field(default_factory=list)
    daemonsets: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    runtime_classes: list[Object] = field(default_factory=list)

    @property
    def policy(self) -> Object | None:
        """The oldest ClusterPolicy, the one that counts; None when there is none or it is being deleted."""
        living = [policy for policy in self.policies if "deletionTimestamp" not in policy["metadata"]]
        return min(living, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]), default=None)

    def made(self, name: str) -> Object | None:
        """The operand's DaemonSet of this name."""
        return next((d for d in self.daemonsets if is_owned(d) and d["metadata"]["name"] == name), None)

    @property
    def nfd(self) -> Object | None:
        """The DaemonSet of NFD's workers, by whatever chart; None when NFD is not installed."""
        return next((d for d in self.daemonsets if _has(d, NFD_WORKER)), None)

    def ready_on(self, labels: Labels) -> set[str]:
        """Names of the nodes on which a pod with these labels is Ready."""
        return {pod["spec"]["nodeName"] for pod in self.ready_pods(labels)}

    def ready_pods(self, labels: Labels) -> list[Object]:
        """The pods with these labels that are Ready and not being deleted."""
        return [pod for pod in self.pods if _has(pod, labels) and "deletionTimestamp" not in pod["metadata"] and ready(pod)]


@dataclass(frozen=True)
class Change:
    """One write. `apply` is a server-side apply of the whole body, `merge` a merge patch of a part."""

    verb: Literal["apply", "merge", "delete"]
    path: str
    body: Object = field(default_factory=dict)


def plan(cluster: Cluster, now: str, world: World = PLAIN, ill: Collection[str] = ()) -> list[Change]:
    """All writes that are due, in order.

    Args:
        now: RFC 3339 time, for events and conditions.
        ill: UIDs of device plugin pods that report their GPUs as unhealthy.
    """
    policy = cluster.policy
    changes = [*_capacities(cluster, ill), *_labels(cluster, policy, world)]
    if policy is None:
        return changes + [_delete(item) for item in (*cluster.daemonsets, *cluster.runtime_classes) if is_owned(item)]
    reason, message, operands = _operands(cluster, policy, now, world)
    return changes + operands + _restarts(cluster, policy) + _status(policy, reason, message, now)


def _labels(cluster: Cluster, policy: Object | None, world: World) -> list[Change]:
    nfd_on, gfd_on = cluster.ready_on(NFD_WORKER), cluster.ready_on({"app": GFD.name})
    driver = policy["spec"].get("driver", {}) if policy else {}
    version = driver.get("version") if driver.get("enabled", True) else None
    changes = []
    for node in cluster.nodes:
        name, have = node["metadata"]["name"], node["metadata"].get("labels", {})
        nfd, gfd = node_labels.nfd(node, pci=not world.no_pci_label), node_labels.gfd(node, version)
        discovered = {*nfd, *node_labels.gfd(node, "0.0.0")}
        # A discoverer that restarts keeps its labels; they go when it is uninstalled.
        want: Labels = {}
        if name in nfd_on:
            want |= nfd
        elif cluster.nfd:
            want |= {key: have[key] for key in nfd if key in have}
        if name in gfd_on:
            want |= gfd
        elif cluster.made(GFD.name):
            want |= {key: have[key] for key in gfd if key in have}
        if policy:
            others = {key: value for key, value in have.items() if key not in discovered}
            want |= node_labels.operator(others | want)
        patch: dict[str, str | None] = {key: value for key, value in want.items() if have.get(key) != value}
        patch |= {key: None for key in have if key not in want and key in discovered | node_labels.OPERATORS}
        if patch:
            changes.append(Change("merge", f"/api/v1/nodes/{name}", {"metadata": {"labels": patch}}))
    return changes


def _capacities(cluster: Cluster, ill: Collection[str]) -> list[Change]:
    plugins = {pod["spec"]["nodeName"]: pod["metadata"].get("uid") for pod in cluster.ready_pods({"app": PLUGIN.name})}
    changes = []
    for node in cluster.nodes:
        name, status = node["metadata"]["name"], node.get("status", {})
        count = str(node_labels.gpus(node)) if name in plugins else "0"
        if node_labels.has_plugin(node):
            count = str(node_labels.gpus(node))
        # The kubelet counts an unhealthy device in the capacity only.
        want = {"capacity": count, "allocatable": "0" if plugins.get(name) in ill else count}
        known = any(RESOURCE in status.get(part, {}) for part in want)
        if (known or count != "0") and any(status.get(part, {}).get(RESOURCE) != value for part, value in want.items()):
            body = {"status": {part: {RESOURCE: value} for part, value in want.items()}}
            changes.append(Change("merge", f"/api/v1/nodes/{name}/status", body))
    return changes


def _restarts(cluster: Cluster, policy: Object) -> list[Change]:
    """With `driver.upgradePolicy.autoUpgrade`: a driver's pod that is of an older template, and not Ready, is made anew.

    The DaemonSet controller does not (OnDelete). The real operator also replaces drivers that work, after it has emptied
    their nodes.
    """
    made = cluster.made(DRIVER.name)
    if made is None or not policy["spec"].get(DRIVER.key, {}).get("upgradePolicy", {}).get("autoUpgrade"):
        return []
    latest = made["metadata"].get("annotations", {}).get(GENERATION[0])
    ready = cluster.ready_on({"app": DRIVER.name})
    return [Change("delete", f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}")
            for pod in cluster.pods if _has(pod, {"app": DRIVER.name}) and "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["labels"].get(GENERATION[1]) != latest and pod["spec"].get("nodeName") not in ready]


def _operands(cluster: Cluster, policy: Object, now: str, world: World) -> tuple[str, str, list[Change]]:
    """The condition's reason and message, and the writes. A reason of OperandNotReady means state notReady."""
    labels = [node["metadata"].get("labels", {}) for node in cluster.nodes]
    gpu_labels = [found for found in labels if node_labels.is_gpu_node(found)]
    wanted = {operand.name: operand for operand in enabled(policy)}
    changes = [_delete(d) for d in cluster.daemonsets if is_owned(d) and d["metadata"]["name"] not in wanted]
    if not gpu_labels:
        if cluster.nfd is None:
            return "NFDLabelsMissing", "No node carries labels of node feature discovery: is NFD installed?", changes
        if any(runs_on(cluster.nfd, node) and node_labels.OS_ID not in found
               for node, found in zip(cluster.nodes, labels, strict=True)):
            return "OperandNotReady", "Waiting for node feature discovery to label the nodes.", changes
        return "NoGPUNodes", "No node carries the label of a GPU.", changes

    target = runtime_class(policy)
    if not any(item["metadata"]["name"] == target["metadata"]["name"] for item in cluster.runtime_classes):
        changes.append(Change("apply", f"{RUNTIME_CLASSES}/{target['metadata']['name']}", target))
    waiting: list[str] = []
    wave, ahead = 0, True
    for operand in wanted.values():
        if operand.wave > wave and not ahead:
            break
        wave = operand.wave
        target, found = daemonset(policy, operand, gpu_labels[0], cluster.nodes, world), cluster.made(operand.name)
        asked = len(waiting)
        if found is None or found["metadata"]["annotations"].get(HASH) != target["metadata"]["annotations"][HASH]:
            changes.append(Change("apply", _path(target), target))
            if found is None:
                step = f"{OPERANDS.index(operand)}.{operand.name}"  # listed by name, so in the order of the steps
                changes.append(_event(policy, "Created", step, f"Created DaemonSet {operand.name}", now))
            waiting.append(operand.name)
        elif not is_ready(found, cluster.nodes):
            waiting.append(operand.name)
        # One that cannot become Ready keeps nobody waiting: all that wait for the same thing are made, and wait.
        is_held = HELD_ON in target["spec"]["template"]["metadata"].get("annotations", {})
        ahead = ahead and (len(waiting) == asked or is_held)
    if waiting:
        return "OperandNotReady", f"Waiting for {', '.join(waiting)}.", changes
    if policy.get("status", {}).get("state") != "ready":
        changes.append(_event(policy, "Ready", "9.ready", "All operands are ready", now))
    return "Reconciled", "All operands are ready.", changes


def _status(policy: Object, reason: str, message: str, now: str) -> list[Change]:
    ready = reason != "OperandNotReady"
    # The pair that the real one keeps: the condition that holds carries the reason and the message.
    conditions: list[Object] = [
        {"type": kind, "status": str(holds), "reason": reason if holds else other, "message": message if holds else ""}
        for kind, holds, other in (("Ready", ready, "Error"), ("Error", not ready, "Ready"))]
    before = policy.get("status", {})
    for condition in conditions:
        old: Object = next((c for c in before.get("conditions", []) if c["type"] == condition["type"]), {})
        same = old.get("status") == condition["status"]
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else now
    after = {"state": "ready" if ready else "notReady", "namespace": namespace(policy), "conditions": conditions}
    if after == before:
        return []
    return [Change("merge", f"{POLICIES}/{policy['metadata']['name']}/status", {"status": after})]


def _event(policy: Object, reason: str, step: str, message: str, now: str) -> Change:
    """An event about the policy. Its name is the policy's and the step's, so that a repeated step is one event."""
    name = f"{policy['metadata']['name']}.{policy['metadata']['uid'][:8]}.{step}"
    about = {"apiVersion": policy["apiVersion"], "kind": policy["kind"],
             "name": policy["metadata"]["name"], "uid": policy["metadata"]["uid"]}
    # Events about objects without a namespace live in `default`: the API server insists.
    return Change("apply", f"/api/v1/namespaces/default/events/{name}", {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
        "involvedObject": about, "type": "Normal", "reason": reason, "message": f"{message} (simulated)",
        "count": 1, "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "gpu-operator"}})


def _path(item: Object) -> str:
    name, space = item["metadata"]["name"], item["metadata"].get("namespace")
    return f"/apis/apps/v1/namespaces/{space}/daemonsets/{name}" if space else f"{RUNTIME_CLASSES}/{name}"


def _delete(item: Object) -> Change:
    return Change("delete", _path(item))


def _has(item: Object, labels: Labels) -> bool:
    have = item["metadata"].get("labels", {})
    return all(have.get(key) == value for key, value in labels.items())
