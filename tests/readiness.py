"""Objects of a healthy cluster as the API server shows them, for tests of the ladder; each test breaks one thing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gpurunbook.deployment import RUN_LABEL
from gpurunbook.readiness.objects import DRIVER, PLUGIN, TOOLKIT
from gpurunbook.readiness.snapshot import Names, Probe, Snapshot
from gpurunbook.readiness.view import GENERATION, Here, View

Object = dict[str, Any]
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NODE, CPU = "ip-10-0-0-1.ec2.internal", "ip-10-0-0-2.ec2.internal"
NAMES = Names(is_gpu_node=lambda found: found.get("group") == "gpu-workers", wanted=1, since=NOW - timedelta(hours=1),
              container="dolly", run="test")


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def conditions(at: float, **status: str) -> list[Object]:
    return [{"type": kind, "status": value, "lastTransitionTime": ago(at)} for kind, value in status.items()]


def node(name: str = NODE, *, gpu: bool = True, at: float = 3000) -> Object:
    labels = {"group": "gpu-workers" if gpu else "cpu-workers", "kubernetes.io/hostname": name,
              "topology.kubernetes.io/zone": "eu-central-1a", "feature.node.kubernetes.io/kernel-version.full": "6.14.0"}
    if gpu:
        labels["feature.node.kubernetes.io/pci-10de.present"] = "true"
    gpus = {"nvidia.com/gpu": "1"} if gpu else {}
    return {"metadata": {"name": name, "uid": f"node-{name}", "creationTimestamp": ago(at), "labels": labels},
            "spec": {"providerID": "aws:///eu-central-1a/i-1"},
            "status": {"capacity": gpus, "allocatable": dict(gpus), "conditions": conditions(at - 60, Ready="True"),
                       "nodeInfo": {"osImage": "Ubuntu 24.04 LTS", "bootID": "boot-1"}}}


def pod(name: str, *, app: str = "", on: str = NODE, space: str = "gpu-operator", at: float = 2500, gpus: int = 0,
        labels: dict[str, str] | None = None, owner: str = "DaemonSet", phase: str = "Running",
        container: str = "main") -> Object:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    running = {"running": {"startedAt": ago(at - 20)}}
    return {"metadata": {"name": name, "namespace": space, "uid": f"pod-{name}", "creationTimestamp": ago(at),
                         "labels": labels or {"app": app},
                         "ownerReferences": [{"kind": owner, "name": app or name, "uid": f"of-{name}"}]},
            "spec": {"nodeName": on, "containers": [{"name": container, "resources": {"limits": limits}}]},
            "status": {"phase": phase, "conditions": conditions(at - 30, PodScheduled="True", Ready="True"),
                       "containerStatuses": [{"name": container, "image": "image:1", "imageID": "sha256:1", "ready": True,
                                              "restartCount": 0, "state": running}]}}


def other_plugin(name: str = "ds-x", *, on: str = NODE, owner: str = "DaemonSet", at: float = 2500) -> Object:
    """A pod of eksctl's device plug-in, which is NVIDIA's static manifest."""
    return pod(name, space="kube-system", on=on, labels={"name": "nvidia-device-plugin-ds"}, owner=owner, at=at,
               container="nvidia-device-plugin-ctr")


def nfd(on: str = NODE) -> Object:
    return pod(f"nfd-worker-{on[:9]}", on=on, labels={"app.kubernetes.io/name": "node-feature-discovery", "role": "worker"})


def release(status: str = "deployed", version: int = 1, at: float = 2600) -> Object:
    stamp = str(int((NOW - timedelta(seconds=at)).timestamp()))
    return {"metadata": {"name": f"sh.helm.release.v1.gpu-operator.v{version}", "namespace": "gpu-operator",
                         "uid": f"release-{version}", "creationTimestamp": ago(at + 5),
                         "labels": {"owner": "helm", "name": "gpu-operator", "status": status, "version": str(version),
                                    "modifiedAt": stamp}}}


def policy(**off: bool) -> Object:
    """`driver=False` switches the driver off."""
    return {"metadata": {"name": "cluster-policy", "uid": "policy", "creationTimestamp": ago(2600)},
            "spec": {key: {"enabled": value} for key, value in off.items()}, "status": {"state": "ready"}}


def model(on: str = NODE, at: float = 1000) -> Object:
    return pod("dolly-1", space="default", on=on, at=at, gpus=1, labels={"app": "dolly-v2"}, owner="ReplicaSet",
               container="dolly")


def smoke(found: Snapshot, phase: str = "Succeeded", line: str = "") -> Object:
    """The smoke pod of the node, of the generation that the snapshot has."""
    made = pod("gpu-smoke-1", space="default", at=2000, gpus=1, labels={"app": "gpu-smoke", RUN_LABEL: NAMES.run}, owner="Node",
               phase=phase)
    here = Here(View(found, NAMES, NOW, 1), found.nodes[0])
    made["metadata"]["labels"][GENERATION] = here.generation
    made["spec"]["nodeSelector"] = {"kubernetes.io/hostname": NODE}
    text = line or '{"device": "Tesla T4", "ok": true, "seconds": 0.5}'
    made["status"]["containerStatuses"][0]["state"] = {"terminated": {
        "exitCode": 0 if phase == "Succeeded" else 1, "message": text, "finishedAt": ago(1980), "reason": "Completed"}}
    return made


def healthy() -> Snapshot:
    """Ubuntu, the operator's driver and toolkit, the model's pod at work."""
    pods = (nfd(), pod("driver-1", app=DRIVER, at=2550), pod("toolkit-1", app=TOOLKIT, at=2400),
            pod("plugin-1", app=PLUGIN, at=2300), model())
    found = Snapshot(
        nodes=(node(), node(CPU, gpu=False)), pods=pods, policies=(policy(),), releases=(release(),),
        runtime_classes=({"metadata": {"name": "nvidia", "uid": "rc"}, "handler": "nvidia"},),
        events=(event("Node", NODE, "NodeReady", "Node is Ready", at=2940),),
        budgets=({"metadata": {"name": "dolly", "namespace": "default", "uid": "pdb"}, "status": {"disruptionsAllowed": 0},
                  "spec": {"selector": {"matchLabels": {"app": "dolly-v2"}}}},),
        probes=(Probe("pod-dolly-1", NOW, 0, True, True, "tar (GNU tar) 1.35"),))
    return replace(found, pods=(*pods, smoke(found)))


def event(kind: str, name: str, reason: str, message: str, *, at: float = 100, count: int = 1,
          first: float | None = None) -> Object:
    uid = f"{'node' if kind == 'Node' else 'pod'}-{name}"
    return {"metadata": {"name": f"{name}.{reason}", "namespace": "default", "uid": f"event-{name}-{reason}-{at}"},
            "involvedObject": {"kind": kind, "name": name, "uid": uid}, "reason": reason, "message": message, "count": count,
            "type": "Warning", "firstTimestamp": ago(at if first is None else first), "lastTimestamp": ago(at)}


def get(found: Snapshot, name: str) -> Object:
    """The node or pod of that name, to be changed in place."""
    return next(item for item in (*found.nodes, *found.pods) if item["metadata"]["name"] == name)


def without(found: Snapshot, *names: str) -> Snapshot:
    return replace(found, pods=tuple(p for p in found.pods if p["metadata"]["name"] not in names))


def waits(item: Object, reason: str, message: str = "", restarts: int = 0, **last: Any) -> None:
    """A pod whose container waits."""
    item["status"]["conditions"] = conditions(500, PodScheduled="True", Ready="False")
    item["status"]["containerStatuses"][0] |= {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False,
                                               "restartCount": restarts, "imageID": "", **last}


def unscheduled(item: Object, message: str, at: float = 500) -> None:
    item["spec"].pop("nodeName", None)
    item["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                                          "message": message, "lastTransitionTime": ago(at)}]}
