"""Objects that drills put into a cluster, as data. No name, label or event of theirs tells what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpurunbook.stages.nodes import GROUP_LABELS

Object = dict[str, Any]
GROUP_LABEL = GROUP_LABELS[0]
"""As eksctl writes it, and a rehearsal."""
EVERYWHERE = ({"operator": "Exists"},)


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def device_plugin(image: str, affinity: Mapping[str, Any]) -> Object:
    """The DaemonSet that eksctl installs for node groups with NVIDIA GPUs: its name, namespace and label."""
    labels = {"name": "nvidia-device-plugin-ds"}
    return {
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "nvidia-device-plugin-daemonset", "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "priorityClassName": "system-node-critical", "tolerations": list(EVERYWHERE),
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [dict(affinity)]}]}}},
            "containers": [{"name": "nvidia-device-plugin-ctr", "image": image,
                            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}]}}}}


def deployment(name: str, namespace: str, image: str, *, labels: Mapping[str, str], gpus: int = 0, group: str = "",
               account: str = "") -> Object:
    """A Deployment of one pod. `group`: the node group it is kept to."""
    spec: Object = {"containers": [{"name": name, "image": image, "resources": {
        "requests": {"cpu": "250m", "memory": "512Mi"}, **({"limits": {"nvidia.com/gpu": gpus}} if gpus else {})}}]}
    if group:
        spec["nodeSelector"] = {GROUP_LABEL: group}
    if account:
        spec["serviceAccountName"] = account
    return {"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
            "spec": {"replicas": 1, "selector": {"matchLabels": dict(labels)},
                     "template": {"metadata": {"labels": dict(labels)}, "spec": spec}}}


def disruption_budget(name: str, labels: Mapping[str, str], least: int) -> Object:
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "default"},
            "spec": {"minAvailable": least, "selector": {"matchLabels": dict(labels)}}}


def account(name: str, namespace: str) -> tuple[Object, Object]:
    """A ServiceAccount that may do everything, as EKS binds the users of its access entries."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    return ({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
             "metadata": {"name": f"{namespace}-{name}"}, "roleRef": role,
             "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]})


def one_at_a_time(name: str, namespace: str, resources: Sequence[str]) -> tuple[Object, Object]:
    """A priority level without a seat, and the flow that sends a namespace's accounts there when they list `resources`.

    A level without a seat still serves one request when it serves none, and turns away (429) whoever comes meanwhile.
    """
    group = "flowcontrol.apiserver.k8s.io/v1"
    return ({"apiVersion": group, "kind": "PriorityLevelConfiguration", "metadata": {"name": name}, "spec": {
                "type": "Limited", "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0,
                                               "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}},
            {"apiVersion": group, "kind": "FlowSchema", "metadata": {"name": name}, "spec": {
                "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": name},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{
                    "subjects": [{"kind": "Group", "group": {"name": f"system:serviceaccounts:{namespace}"}}],
                    "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": list(resources),
                                       "clusterScope": True, "namespaces": ["*"]}]}]}})
