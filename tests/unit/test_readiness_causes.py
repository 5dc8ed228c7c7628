"""Each cause: a snapshot in which it is found, at its rung and by name, and a near miss in which it is not."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gpurunbook.deployment import RUN_LABEL
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.diagnose import ladder, settled, standing
from gpurunbook.readiness.objects import DRIVER, PLUGIN
from gpurunbook.readiness.rungs import BY_NAME, Ladder
from gpurunbook.readiness.snapshot import Snapshot
from gpurunbook.stages.taint import UNINITIALIZED
from tests.readiness import (
    CPU,
    NAMES,
    NODE,
    NOW,
    ago,
    conditions,
    event,
    get,
    healthy,
    model,
    node,
    other_plugin,
    pod,
    policy,
    release,
    smoke,
    unscheduled,
    waits,
    without,
)

Break = Callable[[Snapshot], Snapshot]
DRIVER_NODE = "driver-1"
CASES: list[tuple[str, str, Break]] = []
MISSES: list[tuple[str, Break]] = []


def found(snapshot: Snapshot, patience: float = 1.0) -> Ladder:
    return ladder(snapshot, NAMES, NOW, patience)


def breaks(cause: str, rung: str) -> Callable[[Break], Break]:
    def add(change: Break) -> Break:
        CASES.append((cause, rung, change))
        return change
    return add


def misses(cause: str) -> Callable[[Break], Break]:
    def add(change: Break) -> Break:
        MISSES.append((cause, change))
        return change
    return add


def test_a_healthy_cluster_has_every_rung_done_and_no_finding() -> None:
    whole = found(healthy())
    assert whole.findings == ()
    [one] = whole.nodes
    assert [(step.rung, step.state) for step in one.steps] == [(name, "done") for name in BY_NAME]
    assert one.holds is None
    assert "Tesla T4" in next(step.evidence for step in one.steps if step.rung == "smoke")


@pytest.mark.parametrize("patience", [0.05, 1.0])
def test_patience_makes_no_finding_of_a_healthy_cluster(patience: float) -> None:
    assert found(healthy(), patience).findings == ()


# Node

@breaks("wrong-kubeconfig", "joined")
def lost(s: Snapshot) -> Snapshot:
    return replace(s, lost="certificate verify failed")


@breaks("signed-out", "joined")
def signed_out(s: Snapshot) -> Snapshot:
    return replace(s, lost="401 Unauthorized", lost_to="signed-out")


@breaks("api-throttled", "joined")
def throttled(s: Snapshot) -> Snapshot:
    return replace(s, throttled="/api/v1/nodes: 429; flow schema global-default", denied={"events": "429"})


@breaks("node-missing", "joined")
def no_node(s: Snapshot) -> Snapshot:
    return replace(s, nodes=s.nodes[1:])


@misses("node-missing")
def a_spot_node_is_being_replaced(s: Snapshot) -> Snapshot:
    gone = event("Node", "ip-10-0-0-7", "RemovingNode", "Removing Node from Controller", at=90)
    return replace(s, nodes=s.nodes[1:], events=(gone,))


@breaks("node-not-ready", "ready")
def silent(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                                             "message": "Kubelet stopped posting node status.", "lastTransitionTime": ago(400)}]
    return s


@misses("node-not-ready")
def just_silent(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["conditions"] = conditions(20, Ready="False")
    return s


@breaks("node-flapping", "ready")
def flapping(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=200),
                              event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=100)))


@breaks("node-flapping", "ready")
def down_again_before_anybody_wrote_of_it(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["conditions"] = conditions(20, Ready="Unknown")
    return replace(s, events=(event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=200),))


@misses("node-flapping")
def kubelet_restarted(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=200),
                              event("Node", NODE, "NodeReady", "is now: NodeReady", at=150)))


@misses("node-flapping")
def down_once_and_now(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["conditions"] = conditions(20, Ready="False")
    return replace(s, events=(event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=20),))


@misses("node-flapping")
def an_earlier_node_of_that_name_flapped(s: Snapshot) -> Snapshot:
    get(s, NODE)["metadata"]["creationTimestamp"] = ago(100)
    return replace(s, events=(event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=150, count=7, first=500),))


@breaks("node-flapping", "ready")
def flapping_by_count(s: Snapshot) -> Snapshot:
    return replace(s, events=(event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=30, count=9, first=2000),))


@misses("node-flapping")
def once_down(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=200)))


@misses("node-flapping")
def long_ago(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "x", at=2000, count=7, first=2700)))


@breaks("pdb-blocks-drain", "ready")
def cordoned(s: Snapshot) -> Snapshot:
    get(s, NODE)["spec"]["unschedulable"] = True
    return s


@misses("pdb-blocks-drain")
def cordoned_with_a_kind_budget(s: Snapshot) -> Snapshot:
    s.budgets[0]["status"]["disruptionsAllowed"] = 1
    return cordoned(s)


@misses("pdb-blocks-drain")
def a_budget_without_a_selector_selects_nothing(s: Snapshot) -> Snapshot:
    s.budgets[0]["spec"]["selector"] = None
    return cordoned(s)


@breaks("pdb-blocks-drain", "ready")
def a_budget_with_an_empty_selector_selects_all(s: Snapshot) -> Snapshot:
    s.budgets[0]["spec"]["selector"] = {}
    return cordoned(s)


@misses("pdb-blocks-drain")
def budget_of_another_namespace(s: Snapshot) -> Snapshot:
    s.budgets[0]["metadata"]["namespace"] = "other"
    return cordoned(s)


def tainted(s: Snapshot, age: float = 3000) -> Snapshot:
    get(s, NODE)["spec"]["taints"] = [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]
    get(s, NODE)["metadata"]["creationTimestamp"] = ago(age)
    return s


def lease(age: float) -> dict[str, object]:
    return {"metadata": {"name": "cloud-controller-manager", "namespace": "kube-system", "uid": "lease"},
            "spec": {"renewTime": ago(age), "leaseDurationSeconds": 15, "holderIdentity": "ip-10-0-0-7_x"}}


@breaks("taint-controller-alive", "initialized")
def taint_with_controller(s: Snapshot) -> Snapshot:
    return replace(tainted(s), leases=(lease(3),))


@breaks("taint-no-controller", "initialized")
def taint_alone(s: Snapshot) -> Snapshot:
    return tainted(s)


@breaks("taint-no-controller", "initialized")
def taint_with_a_dead_controller(s: Snapshot) -> Snapshot:
    return replace(tainted(s), leases=(lease(500),))


@misses("taint-no-controller")
def a_lease_that_is_late_by_less_than_04_allows(s: Snapshot) -> Snapshot:
    return replace(tainted(s), leases=(lease(40),))


@breaks("taint-no-controller", "initialized")
def a_lease_of_nobodys(s: Snapshot) -> Snapshot:
    free = lease(3)
    free["spec"]["holderIdentity"] = ""  # type: ignore[index]
    return replace(tainted(s), leases=(free,))


@misses("taint-no-controller")
def young_taint(s: Snapshot) -> Snapshot:
    return tainted(s, 30)


# Stack

@breaks("no-pci-label", "pci-label")
def unlabelled(s: Snapshot) -> Snapshot:
    get(s, NODE)["metadata"]["labels"].pop("feature.node.kubernetes.io/pci-10de.present")
    return without(s, "driver-1", "toolkit-1", "plugin-1")


@misses("no-pci-label")
def the_other_spelling(s: Snapshot) -> Snapshot:
    unlabelled(s)
    get(s, NODE)["metadata"]["labels"]["feature.node.kubernetes.io/pci-0302_10de.present"] = "true"
    return s


@misses("no-pci-label")
def the_spelling_of_a_display(s: Snapshot) -> Snapshot:
    unlabelled(s)
    get(s, NODE)["metadata"]["labels"]["feature.node.kubernetes.io/pci-0300_10de.present"] = "true"
    return s


@misses("no-pci-label")
def nfd_has_not_written_yet(s: Snapshot) -> Snapshot:
    s = unlabelled(s)
    get(s, NODE)["metadata"]["labels"].pop("feature.node.kubernetes.io/kernel-version.full")
    get(s, "nfd-worker-ip-10-0-0")["metadata"]["creationTimestamp"] = ago(20)
    get(s, "nfd-worker-ip-10-0-0")["status"]["conditions"] = conditions(10, Ready="True")
    return s


@breaks("release-pending", "release")
def pending(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("superseded"), release("pending-upgrade", 2, at=1000)))


@misses("release-pending")
def somebody_elses_helm_waits(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("superseded"), release("pending-upgrade", 2, at=840)))


@misses("release-pending")
def helm_at_work(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("pending-install", at=20),))


@misses("release-pending")
def an_older_revision_pending(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("pending-install", 9), release("deployed", 10)))


@breaks("release-failed", "release")
def failed_release(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("failed"),))


@breaks("driver-crash-loop", "driver")
def driver_crashes(s: Snapshot) -> Snapshot:
    waits(get(s, "driver-1"), "CrashLoopBackOff", "back-off 5m0s", 6)
    return replace(s, logs={"pod-driver-1": "Could not resolve Linux kernel version"})


@breaks("driver-crash-loop", "driver")
def driver_fails_slowly(s: Snapshot) -> Snapshot:
    waits(get(s, "driver-1"), "CrashLoopBackOff", restarts=2)
    return s


@misses("driver-crash-loop")
def driver_crashed_once(s: Snapshot) -> Snapshot:
    waits(get(s, "driver-1"), "CrashLoopBackOff", "back-off 10s", restarts=1)
    return s


@misses("unknown")
def an_evicted_driver_and_one_that_is_ready(s: Snapshot) -> Snapshot:
    old = pod("driver-0", app=DRIVER, at=1900, phase="Failed")
    old["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
    return replace(s, pods=(old, *s.pods))


@misses("unknown")
def evicted_and_not_yet_made_anew(s: Snapshot) -> Snapshot:
    get(s, "driver-1")["status"] = {"phase": "Failed", "reason": "Evicted", "conditions": conditions(20, Ready="False")}
    return s


@misses("unknown")
def containerd_is_restarted(s: Snapshot) -> Snapshot:
    waits(get(s, "plugin-1"), "CreateContainerError", "context deadline exceeded")
    get(s, "plugin-1")["status"]["conditions"] = conditions(60, PodScheduled="True", Ready="False")
    return s


@breaks("unknown", "device-plugin")
def no_container_for_minutes(s: Snapshot) -> Snapshot:
    waits(get(s, "plugin-1"), "CreateContainerError", "no such device")
    return s


@misses("driver-crash-loop")
def driver_restarted_once(s: Snapshot) -> Snapshot:
    get(s, "driver-1")["status"]["containerStatuses"][0]["restartCount"] = 1
    return s


@misses("driver-crash-loop")
def driver_starts(s: Snapshot) -> Snapshot:
    waits(get(s, "driver-1"), "PodInitializing")
    get(s, "driver-1")["metadata"]["creationTimestamp"] = ago(600)
    return s


@breaks("toolkit-missing", "toolkit")
def no_toolkit(s: Snapshot) -> Snapshot:
    waits(get(s, "plugin-1"), "ContainerCreating")
    s = replace(without(s, "toolkit-1"), policies=(policy(toolkit=False),))
    return replace(s, events=(event("Pod", "plugin-1", "FailedCreatePodSandBox",
                                    'failed to get sandbox runtime: no runtime for "nvidia" is configured'),))


@misses("toolkit-missing")
def before_the_toolkit(s: Snapshot) -> Snapshot:
    return replace(no_toolkit(s), policies=(policy(),))


@misses("toolkit-missing")
def toolkit_of_the_image(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["nodeInfo"]["osImage"] = "Amazon Linux 2023.9"
    return replace(without(s, "driver-1", "toolkit-1"), policies=(policy(driver=False, toolkit=False),), events=())


@breaks("two-device-plugins", "device-plugin")
def two_plugins(s: Snapshot) -> Snapshot:
    other = other_plugin("nvidia-device-plugin-daemonset-x")
    return replace(s, pods=(*s.pods, other))


@misses("two-device-plugins")
def feature_discovery_of_the_plugins_own_chart(s: Snapshot) -> Snapshot:
    return replace(s, pods=(*s.pods, pod("gfd-1", space="nvidia", labels={"app.kubernetes.io/name": "nvidia-device-plugin"},
                                         container="gpu-feature-discovery-ctr")))


@misses("two-device-plugins")
def the_second_is_not_ready(s: Snapshot) -> Snapshot:
    s = two_plugins(s)
    waits(get(s, "nvidia-device-plugin-daemonset-x"), "ContainerCreating")
    return s


@misses("two-device-plugins")
def on_two_nodes(s: Snapshot) -> Snapshot:
    s = two_plugins(s)
    get(s, "nvidia-device-plugin-daemonset-x")["spec"]["nodeName"] = CPU
    return s


@breaks("plugin-on-cpu-nodes", "device-plugin")
def plugin_on_cpu(s: Snapshot) -> Snapshot:
    other = other_plugin(on=CPU)
    waits(other, "CrashLoopBackOff", "", 4)
    return replace(s, pods=(*s.pods, other))


@misses("plugin-on-cpu-nodes")
def it_crashes_on_gpu_nodes_of_another_team(s: Snapshot) -> Snapshot:
    get(s, CPU)["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "g5.xlarge"
    return plugin_on_cpu(s)


@misses("plugin-on-cpu-nodes")
def plugin_idles_on_cpu(s: Snapshot) -> Snapshot:
    return replace(s, pods=(*s.pods, other_plugin(on=CPU)))


@breaks("gpu-not-allocatable", "allocatable")
def unhealthy(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    return s


@misses("gpu-not-allocatable")
def plugin_just_ready(s: Snapshot) -> Snapshot:
    get(s, "plugin-1")["status"]["conditions"] = conditions(10, Ready="True")
    return unhealthy(s)


# Workload

def with_smoke(s: Snapshot, phase: str, line: str) -> Snapshot:
    s = without(s, "gpu-smoke-1")
    return replace(s, pods=(*s.pods, smoke(s, phase, line)))


@breaks("cuda-broken", "smoke")
def cuda(s: Snapshot) -> Snapshot:
    return with_smoke(s, "Failed", "cuInit: 999 CUDA_ERROR_UNKNOWN")


@misses("cuda-broken")
def cuda_of_before(s: Snapshot) -> Snapshot:
    s = without(cuda(s), "dolly-1")
    get(s, "driver-1")["metadata"]["uid"] = "made anew"
    return s


@breaks("unknown", "smoke")
def smoke_fails_otherwise(s: Snapshot) -> Snapshot:
    return with_smoke(s, "Failed", "python: can't open file '/smoke/smoke.py'")


@breaks("gpu-taken", "scheduled")
def taken(s: Snapshot) -> Snapshot:
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match.")
    return replace(s, pods=(*s.pods, pod("miner", space="default", gpus=1, labels={"app": "miner"})))


@misses("gpu-taken")
def a_smoke_pod_of_another_run(s: Snapshot) -> Snapshot:
    s = taken(s)
    get(s, "miner")["metadata"]["labels"] = {"app": "gpu-smoke", RUN_LABEL: "another"}
    return s


@misses("gpu-taken")
def another_resource_is_short(s: Snapshot) -> Snapshot:
    s = taken(s)
    get(s, "dolly-1")["status"]["conditions"][0]["message"] = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu.shared."
    return s


@misses("gpu-taken")
def taker_has_ended(s: Snapshot) -> Snapshot:
    s = taken(s)
    get(s, "miner")["status"]["phase"] = "Succeeded"
    return s


@breaks("pod-unschedulable", "scheduled")
def too_much_memory(s: Snapshot) -> Snapshot:
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match.")
    return s


@misses("pod-unschedulable")
def just_made(s: Snapshot) -> Snapshot:
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 1 Insufficient memory", at=10)
    return s


@breaks("image-pull-back-off", "pulled")
def no_image(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ImagePullBackOff", "Back-off pulling image")
    return replace(s, events=(event("Pod", "dolly-1", "Failed", 'Failed to pull image "x": not found'),))


@breaks("image-pull-back-off", "pulled")
def a_registry_that_fails_for_minutes(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ErrImagePull", "unexpected EOF")
    return replace(s, events=(event("Pod", "dolly-1", "Failed", "Failed to pull image: unexpected EOF", at=5, first=150),))


@misses("image-pull-back-off")
def a_registry_that_fails_once(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ImagePullBackOff", "unexpected EOF")
    return replace(s, events=(event("Pod", "dolly-1", "Failed", "Failed to pull image: unexpected EOF", at=20),))


@misses("image-pull-back-off")
def not_found_the_first_time(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ErrImagePull", "not found")
    return replace(s, events=(event("Pod", "dolly-1", "Failed", "Failed to pull image: not found", at=20),))


@breaks("image-pull-back-off", "pulled")
def not_found_in_the_moment_of_the_next_try(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ErrImagePull", "not found")
    return replace(s, events=(event("Pod", "dolly-1", "Failed", "Error: ImagePullBackOff", at=10),
                              event("Pod", "dolly-1", "Failed", "Failed to pull image: not found", at=1)))


@breaks("image-too-big", "pulled")
def big_image(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ErrImagePull", "failed to extract layer: write /var/lib: no space left on device")
    return s


@breaks("image-too-big", "pulled")
def big_image_by_pressure(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ImagePullBackOff", "Back-off pulling image")
    get(s, NODE)["status"]["conditions"] += conditions(300, DiskPressure="True")
    return s


@misses("image-pull-back-off")
def pulling(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ContainerCreating")
    return s


@breaks("out-of-memory", "running")
def oom(s: Snapshot) -> Snapshot:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": ago(60)}}
    waits(get(s, "dolly-1"), "CrashLoopBackOff", "", 3, lastState=ended, imageID="sha256:1")
    return s


@breaks("out-of-memory", "running")
def oom_and_running_again(s: Snapshot) -> Snapshot:
    status = get(s, "dolly-1")["status"]["containerStatuses"][0]
    status |= {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "restartCount": 1}
    return s


@misses("out-of-memory")
def killed_by_somebody(s: Snapshot) -> Snapshot:
    get(s, "dolly-1")["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"reason": "Error", "exitCode": 137}}
    return s


@breaks("unknown", "running")
def crash_of_no_known_cause(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "CrashLoopBackOff", "", 3, imageID="sha256:1")
    return replace(s, logs={"pod-dolly-1": "Segmentation fault"})


@breaks("no-tar", "exec")
def no_tar(s: Snapshot) -> Snapshot:
    return replace(s, probes=(replace(s.probes[0], tar=False, said='exec: "tar": executable file not found in $PATH'),))


@misses("no-tar")
def tar_not_asked(s: Snapshot) -> Snapshot:
    return replace(s, probes=(replace(s.probes[0], tar=None),))


@breaks("exec-stream-cut", "exec")
def cut(s: Snapshot) -> Snapshot:
    return replace(s, probes=(replace(s.probes[0], whole=False, code=0, said=""),))


@breaks("exec-stream-cut", "exec")
def cut_with_a_code(s: Snapshot) -> Snapshot:
    return replace(s, probes=(replace(s.probes[0], whole=False, code=1, said="error reading from error stream: unexpected EOF"),))


@misses("exec-stream-cut")
def refused(s: Snapshot) -> Snapshot:
    return replace(s, probes=(replace(s.probes[0], whole=False, code=1, said="Error from server (Forbidden): pods/exec"),))


@pytest.mark.parametrize(("cause", "rung", "change"), CASES, ids=lambda x: getattr(x, "__name__", None))
def test_each_trouble_is_found_by_name_at_its_rung_and_nothing_else(cause: str, rung: str, change: Break) -> None:
    whole = found(change(healthy()))
    assert [(f.cause, f.rung) for f in whole.findings] == [(cause, rung)]
    [finding] = whole.findings
    assert finding.evidence
    typed(finding.next)
    assert not {"POD", "NAME"} & set(finding.next.split())
    held = [n.holds for n in whole.nodes if n.holds and n.holds.state == "trouble"]
    assert [step.rung for step in held] == ([rung] if cause not in ("api-throttled", "plugin-on-cpu-nodes") else [])


@pytest.mark.parametrize(("cause", "change"), MISSES, ids=lambda x: getattr(x, "__name__", None))
def test_a_near_miss_is_not_that_trouble(cause: str, change: Break) -> None:
    assert cause not in [f.cause for f in found(change(healthy())).findings]


def test_every_cause_has_a_test_a_rung_and_a_next_command() -> None:
    assert {cause for cause, _, _ in CASES} == set(CAUSES)
    for cause in CAUSES.values():
        assert cause.rung in BY_NAME or cause.name == "unknown"
        assert cause.title
        assert cause.why.endswith(".")
        typed(cause.next.format(node="n", namespace="s", pod="p", name="m", run="r"))


def typed(line: str) -> None:
    """A line can be pasted into a shell: bash reads it, and each of its commands begins with a program."""
    assert subprocess.run(["bash", "-n", "-c", line], capture_output=True, timeout=20).returncode == 0, line
    words = shlex.shlex(line, posix=True, punctuation_chars=";")
    words.whitespace_split = True
    begins = True
    for word in words:
        assert not begins or word in ("kubectl", "helm", "gpurunbook", "aws"), line
        assert "{" not in word or json.loads(word), line
        begins = word == ";"
    assert not begins, line


def test_a_name_of_the_clusters_is_no_part_of_a_shell() -> None:
    s = no_image(healthy())
    get(s, "dolly-1")["metadata"]["name"] = "x; reboot"
    [finding] = found(replace(s, events=(event("Pod", "x; reboot", "Failed", "pull: not found"),))).findings
    typed(finding.next)
    assert finding.next == "kubectl describe pod -n default 'x; reboot'"


def test_a_helm_of_ours_that_runs_is_no_stuck_release() -> None:
    busy = replace(NAMES, helm_at_work=True)
    ours = replace(healthy(), releases=(release("pending-upgrade", 2, at=300),))
    assert ladder(ours, busy, NOW).findings == ()
    assert [f.cause for f in ladder(ours, busy, NOW + timedelta(hours=1)).findings] == ["unknown"]


@pytest.mark.parametrize(("names", "at", "said"), [
    ({"cut_short": NOW - timedelta(seconds=125)}, 120, "helm history gpu-operator -n gpu-operator; gpurunbook run --run-id test "
                                                       "--from gpu_operator --until gpu_operator"),
    ({"cut_short": NOW - timedelta(seconds=50)}, 120, ""), ({"cut_short": NOW - timedelta(seconds=60)}, 55, ""),
    ({"alone": True}, 61, "helm history gpu-operator -n gpu-operator; gpurunbook run --run-id test "
                          "--from gpu_operator --until gpu_operator"),
    ({}, 120, ""), ({}, 899, ""), ({}, 901, "helm history gpu-operator -n gpu-operator")])
def test_what_may_be_somebody_elses_helm_is_given_its_time_and_left_alone(names: dict[str, Any], at: float, said: str) -> None:
    s = replace(healthy(), releases=(release("pending-install", at=at),))
    findings = ladder(s, replace(NAMES, **names), NOW).findings
    assert [(f.cause, f.next) for f in findings] == ([("release-pending", said)] if said else [])
    assert all(("somebody else's" in f.evidence) is (names == {}) for f in findings)


# What is to be done about a second device plug-in

def next_of(s: Snapshot, cause: str, **names: Any) -> str:
    [finding] = ladder(s, replace(NAMES, **names), NOW).findings
    assert finding.cause == cause
    typed(finding.next)
    return finding.next


def test_of_two_device_plugins_the_operators_is_never_the_one_to_go() -> None:
    other = other_plugin("aaa")
    for space in ("gpu-operator", "zzz"):
        s = healthy()
        get(s, "plugin-1")["metadata"]["namespace"] = space
        s = replace(s, pods=(other, *s.pods))
        assert next_of(s, "two-device-plugins") == "kubectl delete daemonset -n kube-system aaa"
        assert next_of(s, "two-device-plugins", ours=False) == "kubectl get daemonset -n kube-system aaa -o yaml"
    static = other_plugin("aaa", owner="Node")
    assert next_of(replace(healthy(), pods=(static, *healthy().pods)), "two-device-plugins") == (
        "kubectl get pod -n kube-system aaa -o yaml")
    two = without(replace(healthy(), pods=(*healthy().pods, other, other_plugin("bbb"))), "plugin-1")
    two = without(two, "gpu-smoke-1")
    assert next_of(two, "two-device-plugins") == "kubectl get daemonset -n kube-system aaa -o yaml", "which one, we cannot tell"


def test_a_plugin_that_crashes_on_cpu_nodes_is_kept_where_it_serves_gpu_nodes() -> None:
    s = plugin_on_cpu(healthy())
    name = "-n kube-system ds-x"
    get(s, "ds-x")["metadata"]["ownerReferences"][0]["name"] = "ds-x"
    assert next_of(s, "plugin-on-cpu-nodes") == f"kubectl delete daemonset {name}", "the operator's serves them"
    assert next_of(s, "plugin-on-cpu-nodes", ours=False) == f"kubectl get daemonset {name} -o yaml"
    plain = without(replace(s, pods=(*s.pods, other_plugin("ds-y"))), "plugin-1", "gpu-smoke-1")
    assert next_of(plain, "plugin-on-cpu-nodes") == (
        f"kubectl patch daemonset {name} --type=merge -p "
        """'{"spec":{"template":{"spec":{"nodeSelector":{"feature.node.kubernetes.io/pci-10de.present":"true"}}}}}'""")
    for one in plain.nodes:
        one["metadata"]["labels"].pop("feature.node.kubernetes.io/pci-10de.present", None)
    [told] = found(without(plain, "nfd-worker-ip-10-0-0"), 100).findings
    assert told.next == f"kubectl get daemonset {name} -o yaml", "no label tells the nodes apart"


# Images and stacks of other kinds

def bottlerocket(shows: bool = True) -> Snapshot:
    """As manifests/gpu-operator/bottlerocket.yaml has it: the host brings driver, toolkit and device plug-in."""
    off = policy(driver=False, toolkit=False, devicePlugin=False)
    s = replace(without(healthy(), "driver-1", "toolkit-1", "plugin-1", "dolly-1", "gpu-smoke-1"), policies=(off,),
                runtime_classes=())
    get(s, NODE)["status"]["nodeInfo"]["osImage"] = "Bottlerocket OS 1.50.0 (aws-k8s-1.36-nvidia)"
    if not shows:
        get(s, NODE)["status"] |= {"capacity": {}, "allocatable": {}}
    return replace(s, pods=(*s.pods, smoke(s), model())) if shows else s


def test_bottlerocket_needs_no_device_plugin_of_the_operators() -> None:
    whole = found(bottlerocket())
    assert ({s.state for s in whole.nodes[0].steps}, whole.findings) == ({"done"}, ())
    states = {s.rung: s.state for s in found(bottlerocket(shows=False), 100).nodes[0].steps}
    assert (states["driver"], states["toolkit"], states["device-plugin"]) == ("done", "done", "waiting")


def test_a_driver_of_an_nvidiadriver_object_is_the_driver() -> None:
    s = healthy()
    get(s, "driver-1")["metadata"]["labels"] = {"app": "nvidia-gpu-driver-ubuntu24.04-5c", "app.kubernetes.io/component":
                                                "nvidia-driver"}
    assert {step.state for step in found(s).nodes[0].steps} == {"done"}


@pytest.mark.parametrize("resource", ["nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb"])
def test_shares_and_mig_devices_count_and_what_is_not_supported_is_said(resource: str) -> None:
    s = without(healthy(), "dolly-1", "gpu-smoke-1")
    get(s, NODE)["status"] |= {"capacity": {resource: "4"}, "allocatable": {resource: "4"}}
    whole = found(s)
    steps = {step.rung: step for step in whole.nodes[0].steps}
    assert (steps["capacity"].state, steps["allocatable"].state, steps["smoke"].state) == ("done", "done", "unknown")
    assert f"{resource} in allocatable: 4" in steps["allocatable"].evidence
    assert "not supported" in steps["smoke"].evidence
    assert whole.findings == ()


def test_cuda_that_is_broken_is_mended_at_the_driver_that_is_there() -> None:
    ubuntu = next_of(cuda(healthy()), "cuda-broken")
    assert "kubectl delete pod -n gpu-operator driver-1; gpurunbook run --run-id test --from gpu_operator" in ubuntu
    s = bottlerocket()
    assert next_of(with_smoke(s, "Failed", "cuInit: 999 CUDA_ERROR_UNKNOWN"), "cuda-broken") == (
        "kubectl logs -n default gpu-smoke-1"), "the image's driver is no pod"


# What may not be read, and what is not there

def test_a_right_that_is_missing_is_said_where_it_matters() -> None:
    said = {"events": "events cannot be read: forbidden", "budgets": "budgets cannot be read: forbidden"}
    [node_] = found(replace(healthy(), events=(), budgets=(), denied=said)).nodes
    assert "events cannot be read" in node_.steps[1].evidence
    assert "budgets" not in node_.steps[1].evidence, "nobody has cordoned it"
    s = cordoned(replace(healthy(), budgets=(), denied=said))
    assert "budgets cannot be read" in found(s).nodes[0].steps[1].evidence


def test_a_group_that_may_be_empty_is_no_trouble_and_waits_for_a_person() -> None:
    whole = ladder(no_node(healthy()), replace(NAMES, wanted=0), NOW)
    assert whole.findings == ()
    assert settled(whole)
    assert "minSize" in whole.nodes[0].steps[0].evidence


def test_what_cannot_be_told_holds_nothing_up_and_settles() -> None:
    partly = replace(healthy(), releases=(), policies=(), denied={"releases": "secrets is forbidden"})
    assert (settled(found(partly)), standing(found(partly))) == (True, "done")
    stuck = without(partly, "dolly-1", "plugin-1", "gpu-smoke-1")
    get(stuck, NODE)["status"] |= {"capacity": {}, "allocatable": {}}
    stuck = replace(stuck, policies=(policy(),))
    assert [s.state for s in found(stuck, 100).nodes[0].steps if s.rung == "device-plugin"] == ["waiting"]
    assert [(f.cause, f.rung) for f in found(stuck).findings] == [("unknown", "device-plugin")], "it is late all the same"
    blind = found(Snapshot(denied={"nodes": "nodes is forbidden"}))
    assert (settled(blind), standing(blind)) == (True, "unknown")


def test_a_model_that_is_stuck_is_seen_though_no_smoke_pod_ran() -> None:
    s = without(healthy(), "gpu-smoke-1")
    waits(get(s, "dolly-1"), "ContainerCreating")
    get(s, "dolly-1")["status"]["conditions"] = conditions(1300, PodScheduled="True", Ready="False")
    steps = {step.rung: step for step in found(s).nodes[0].steps}
    assert (steps["smoke"].state, steps["scheduled"].state) == ("unknown", "done")
    assert (steps["pulled"].state, steps["pulled"].cause) == ("trouble", "unknown")


def test_others_device_plugin_alone_is_seen_to_by_others() -> None:
    plain = replace(without(healthy(), "driver-1", "toolkit-1", "nfd-worker-ip-10-0-0"), releases=(), policies=(),
                    runtime_classes=())
    get(plain, NODE)["metadata"]["labels"].pop("feature.node.kubernetes.io/pci-10de.present")
    whole = found(plain)
    assert whole.findings == ()
    assert {s.rung: s.state for s in whole.nodes[0].steps} == dict.fromkeys(BY_NAME, "done")


def test_before_the_operator_a_person_is_told_what_to_do() -> None:
    bare = node()
    bare["metadata"]["labels"] = {"group": "gpu-workers", "kubernetes.io/hostname": NODE}
    bare["status"] |= {"capacity": {}, "allocatable": {}}
    whole = found(Snapshot(nodes=(bare,)))
    step = whole.nodes[0].holds
    assert step
    assert (step.rung, step.state, whole.findings) == ("pci-label", "waiting", ())
    assert step.next == "gpurunbook run --run-id test --from gpu_operator --until gpu_operator"


def test_what_may_not_be_read_is_unknown_with_the_right_that_is_missing() -> None:
    partly = replace(healthy(), releases=(), policies=(), denied={"releases": "secrets is forbidden", "leases": "x"})
    steps = {step.rung: step for step in found(partly).nodes[0].steps}
    assert (steps["release"].state, steps["initialized"].state) == ("unknown", "done")
    assert "secrets is forbidden" in steps["release"].evidence
    nothing = found(Snapshot(denied={"nodes": "nodes is forbidden"}))
    assert nothing.nodes[0].steps[0].state == "unknown"
    assert nothing.findings == ()


def test_what_takes_too_long_without_a_reason_is_unknown_with_the_evidence() -> None:
    slow = healthy()
    waits(get(slow, "driver-1"), "PodInitializing")
    get(slow, "driver-1")["status"]["conditions"] = conditions(1400, PodScheduled="True", Ready="False")
    slow = without(slow, "dolly-1", "gpu-smoke-1")
    [finding] = found(slow).findings
    assert (finding.cause, finding.rung) == ("unknown", "driver")
    assert "PodInitializing" in finding.evidence
    assert PLUGIN not in finding.evidence
    assert {s.state for s in found(slow, 10).nodes[0].steps} == {"done", "waiting", "ahead"}


def test_a_rung_above_the_one_that_holds_is_ahead_unless_it_is_done_or_in_trouble() -> None:
    states = {s.rung: s.state for s in found(driver_starts(healthy())).nodes[0].steps}
    assert states["driver"] == "waiting"
    assert states["toolkit"] == states["allocatable"] == "done"
    both = found(oom(driver_crashes(healthy())))
    assert [f.cause for f in both.findings] == ["driver-crash-loop", "out-of-memory"]


def test_one_trouble_of_many_nodes_is_told_once() -> None:
    three = taken(healthy())
    nodes = [node(f"ip-10-0-1-{i}") for i in range(3)]
    for one in nodes:
        one["status"]["conditions"] = conditions(400, Ready="False")
    whole = ladder(replace(three, nodes=(*nodes, *three.nodes)), replace(NAMES, wanted=4), NOW)
    assert [f.cause for f in whole.findings].count("gpu-taken") == 1


def test_the_model_on_another_node_needs_nothing_of_this_one() -> None:
    whole = healthy()
    moved = (*without(whole, "dolly-1").pods, model("ip-10-0-0-9"))
    whole = replace(whole, nodes=(*whole.nodes, node("ip-10-0-0-9")), pods=moved)
    steps = {step.rung: step for step in ladder(whole, replace(NAMES, wanted=2), NOW).nodes[0].steps}
    assert steps["exec"].state == "done"
    assert "ip-10-0-0-9" in steps["exec"].evidence
