"""How long a big cluster takes from the first request to the finished ladder, and how much memory: `make bench`.

On a rehearsal's control plane, a thousand Node objects are written directly, a hundred of them with GPUs, with their
operator's pods and events, and pods on all other nodes that must not be read; KWOK says that the pods run, and goes on
with its heartbeats. Five fresh processes each read it once.

Results go to benchmarks/results/readiness.json, with versions. Exit code 1 when a figure is over its limit.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes
import yaml
from rehearsal import make_checkout

from gpurunbook import programs

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "readiness.json"
RUN, RUNS = "bench-ladder", 5
NODES, GPU_NODES, PODS_ON_OTHERS = 1_000, 100, 2
MOST_SECONDS, MOST_MIB = 3.0, 200.0
OPERANDS = ("nvidia-driver-daemonset", "nvidia-container-toolkit-daemonset", "nvidia-device-plugin-daemonset",
            "nvidia-operator-validator", "gpu-feature-discovery", "nvidia-dcgm-exporter")
LOOK = """
import json, re, sys, time
from gpurunbook import open_run
from gpurunbook.readiness import look
run = open_run("preflight", run_id=sys.argv[1], quiet=True)
run.client("VersionApi")  # the import is no request
# Not getrusage: a child's ru_maxrss begins with its parent's.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
base, cpu = peak(), time.process_time()
found = look.once(run)
print("RESULT", json.dumps({"seconds": found.seconds, "nodes": len(found.ladder.nodes), "read": len(found.snapshot.nodes),
    "pods": len(found.snapshot.pods),
    "findings": sorted({(f.cause, f.rung) for f in found.ladder.findings}),
    "lowest": sorted({n.holds.rung for n in found.ladder.nodes if n.holds}),
    "cpu_seconds": time.process_time() - cpu, "imported_mib": base,
    "peak_mib": peak()}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gpurunbook-bench-") as name:
        checkout = make_checkout(Path(name) / "ladder")
        cluster = yaml.safe_load((checkout / "cluster.yaml").read_text())
        cluster["nodeGroups"][0] |= {"desiredCapacity": GPU_NODES, "maxSize": GPU_NODES}
        try:
            _cli(checkout, "run", "--run-id", RUN, "--until", "provision", "--keep")
            (checkout / "cluster.yaml").write_text(yaml.safe_dump(cluster))
            written = _write(checkout / "runs" / RUN)
            looks = [_look(checkout) for _ in range(RUNS)]
        finally:
            _cli(checkout, "teardown", "--run-id", RUN, check=False)
            _cli(checkout, "clean", "--run-id", RUN, "--all")  # with a thousand nodes the pod host may take longer to end
    found = {"nodes": NODES, "gpu_nodes": GPU_NODES, "written": written, "runs": looks,
             "seconds": statistics.median(one["seconds"] for one in looks), "peak_mib": max(one["peak_mib"] for one in looks),
             "when": datetime.now(UTC).isoformat(timespec="seconds"), "cpus": os.cpu_count(), "machine": platform.machine(),
             "python": platform.python_version(), "versions": {n: version(n) for n in ("kubernetes", "urllib3")},
             "programs": {"kube-apiserver": programs.find("kube-apiserver").version}}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, value, limit, unit in (("median", found["seconds"], MOST_SECONDS, "s"),
                                     ("peak", found["peak_mib"], MOST_MIB, "MiB")):
        print(f"{name:8} {value:7.2f} {unit}, at most {limit:g}{'  OVER' if value > limit else ''}")
    print(f"each     {', '.join('{:.2f} s'.format(one['seconds']) for one in looks)} ({looks[0]['cpu_seconds']:.2f} s of CPU); "
          f"{looks[0]['nodes']} ladders, "
          f"{looks[0]['pods']} pods read of {written['pods']}\nkept in {RESULTS.relative_to(ROOT)}")
    assert all(one["read"] >= NODES and one["nodes"] == GPU_NODES for one in looks), looks
    sys.exit(found["seconds"] > MOST_SECONDS or found["peak_mib"] > MOST_MIB)


def _look(checkout: Path) -> dict[str, Any]:
    """One look in a process of its own."""
    done = subprocess.run([sys.executable, "-c", LOOK, RUN], cwd=checkout, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.rsplit("RESULT", 1)[1])
    return found


def _write(folder: Path) -> dict[str, int]:
    """The nodes, pods and events, through the API. Nodes say that they are not KWOK's: nothing else touches them."""
    client = kubernetes.config.new_client_from_config(str(folder / "kubeconfig"))
    core = kubernetes.client.CoreV1Api(client)
    for namespace in ("gpu-operator", "elsewhere"):
        core.create_namespace({"metadata": {"name": namespace}})
    kubernetes.client.NodeV1Api(client).create_runtime_class({"metadata": {"name": "nvidia"}, "handler": "nvidia"})
    there = len(core.list_node().items)
    gpu = sum("gpu-workers" in (n.metadata.labels or {}).values() for n in core.list_node().items)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: _node(core, i, gpu=i < GPU_NODES - gpu), range(NODES - there)))
        names = [n.metadata.name for n in core.list_node().items]
        with_gpu = [n.metadata.name for n in core.list_node().items if "gpu-workers" in (n.metadata.labels or {}).values()]
        pods = [(f"{app}-{i}", "gpu-operator", node, {"app": app}) for app in OPERANDS for i, node in enumerate(with_gpu)]
        pods += [(f"nfd-{i}", "gpu-operator", node, {"app.kubernetes.io/name": "node-feature-discovery", "role": "worker"})
                 for i, node in enumerate(names)]
        others = [node for node in names if node not in with_gpu]
        pods += [(f"daemon-{k}-{i}", "elsewhere", node, {"app": f"daemon-{k}"})
                 for k in range(PODS_ON_OTHERS) for i, node in enumerate(others)]
        list(pool.map(lambda one: _pod(core, *one), pods))
        list(pool.map(lambda pair: _event(core, *pair), enumerate(names)))
    while pending := len(core.list_pod_for_all_namespaces(field_selector="status.phase=Pending", limit=10).items):
        print(f"{pending} pods or more are not running yet", file=sys.stderr)
        time.sleep(1)
    return {"nodes": len(names), "pods": len(pods), "events": len(names)}


def _node(core: Any, number: int, *, gpu: bool) -> None:
    name = f"ip-10-{number // 250}-{number % 250}-1.eu-central-1.compute.internal"
    group = "gpu-workers" if gpu else "cpu-workers"
    labels = {"alpha.eksctl.io/nodegroup-name": group, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
              "topology.kubernetes.io/zone": "eu-central-1a",
              "node.kubernetes.io/instance-type": "g4dn.xlarge" if gpu else "m5.xlarge",
              **{f"feature.node.kubernetes.io/cpu-cpuid.FEATURE{i}": "true" for i in range(40)},
              **({"feature.node.kubernetes.io/pci-10de.present": "true"} if gpu else {})}
    gpus = {"nvidia.com/gpu": "1"} if gpu else {}
    core.create_node({"metadata": {"name": name, "labels": labels}, "spec": {"providerID": f"aws:///eu-central-1a/i-{number:x}"}})
    images = [{"names": [f"registry.example/image-{i}@sha256:{i:064x}", f"registry.example/image-{i}:1"], "sizeBytes": 1}
              for i in range(30)]  # as many as kubelets report
    now = datetime.now(UTC).isoformat()
    resources = {"cpu": "4", "memory": "16Gi", "pods": "110", **gpus}
    core.patch_node_status(name, {"status": {
        "capacity": resources, "allocatable": resources, "images": images,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
                        "lastTransitionTime": now, "lastHeartbeatTime": now}]}})


def _pod(core: Any, name: str, namespace: str, node: str, labels: dict[str, str]) -> None:
    core.create_namespaced_pod(namespace, {"metadata": {"name": name, "labels": labels}, "spec": {
        "nodeName": node, "automountServiceAccountToken": False, "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}], "containers": [{"name": "main", "image": "image:1", "env": [
            {"name": f"SETTING_{i}", "value": "value"} for i in range(15)]}]}})


def _event(core: Any, number: int, node: str) -> None:
    now = datetime.now(UTC).isoformat()
    core.create_namespaced_event("default", {
        "metadata": {"name": f"ready-{number}"}, "involvedObject": {"kind": "Node", "name": node}, "reason": "NodeReady",
        "message": f"Node {node} status is now: NodeReady", "type": "Normal", "count": 1, "firstTimestamp": now,
        "lastTimestamp": now})


def _cli(checkout: Path, *args: str, check: bool = True) -> None:
    subprocess.run([sys.executable, "-m", "gpurunbook", *args], cwd=checkout, check=check, stdout=sys.stderr)


if __name__ == "__main__":
    main()
