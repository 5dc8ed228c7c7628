"""Target `existing`: the walk on a cluster that the run did not make, and that others live in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Checkout, Cluster

CHART = "manifests/rehearsal/gpu-operator"
SELECTOR = "node.kubernetes.io/instance-type=g4dn.xlarge"
FOREIGN = """
apiVersion: v1
kind: Namespace
metadata: {name: somebody}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: somebody}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: example/shop:1}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: twin, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: dolly-v2, owner: twin}}
  template:
    metadata: {labels: {app: dolly-v2, owner: twin}}
    spec: {containers: [{name: twin, image: example/twin:1}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gpuclusters.nvidia.com}
spec:
  group: nvidia.com
  scope: Cluster
  names: {kind: GPUCluster, listKind: GPUClusterList, plural: gpuclusters, singular: gpucluster}
  versions:
    - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""
SAME_NAME = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: dolly-v2-deployment, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: dolly-v2, owner: somebody}}
  template:
    metadata: {labels: {app: dolly-v2, owner: somebody}}
    spec: {containers: [{name: theirs, image: example/theirs:1}]}
"""


@pytest.fixture(scope="module")
def host(checkout: Checkout) -> Iterator[Cluster]:
    """Somebody's cluster: a rehearsal of another run, with somebody's namespace, workloads and CRD in it."""
    checkout("run", "--run-id", "host", "--until", "provision")
    made = Cluster(checkout, "host")
    made.kubectl("apply", "-f", "-", input=FOREIGN)
    yield made
    checkout("teardown", "--run-id", "host")


@pytest.fixture
def kubeconfig(host: Cluster, tmp_path: Path) -> Path:
    """Somebody's kubeconfig: two contexts, and the one that is wanted is not the current one and names a namespace."""
    theirs = tmp_path / "their.config"
    shutil.copy(host.kubeconfig, theirs)
    name = host.kubectl("config", "current-context").stdout.decode().strip()
    config = ("config", f"--kubeconfig={theirs}")
    user = host.kubectl(*config, "view", "--minify", "-o", "jsonpath={.contexts[0].context.user}").stdout.decode()
    host.kubectl(*config, "set-context", "work", f"--cluster={name}", f"--user={user}", "--namespace=somebody")
    host.kubectl(*config, "set-cluster", "elsewhere", "--server=https://127.0.0.1:1")
    host.kubectl(*config, "set-context", "wrong", "--cluster=elsewhere")
    host.kubectl(*config, "use-context", "wrong")
    return theirs


def guest(checkout: Checkout, run_id: str, *args: str, **more: Any) -> Any:
    return checkout("run", "--run-id", run_id, "--target", "existing", *args, **more)


def names(host: Cluster, kind: str, *where: str) -> set[str]:
    items = json.loads(host.kubectl("get", kind, *(where or ("-A",)), "-o", "json").stdout)["items"]
    return {item["metadata"]["name"] for item in items}


def releases(host: Cluster) -> set[str]:
    return {row["name"] for row in json.loads(host.helm("list", "-A", "-o", "json").stdout)}


def adopting(kubeconfig: Path, selector: str = SELECTOR) -> list[str]:
    return ["-p", f"kubeconfig={kubeconfig}", "-p", "context=work", *(["-p", f"selector={selector}"] if selector else [])]


def test_ten_tokens_on_a_cluster_of_somebody_and_nothing_of_it_stays(checkout: Checkout, host: Cluster, kubeconfig: Path) -> None:
    before = kubeconfig.read_bytes()
    guest(checkout, "guest", "--until", "provision", *adopting(kubeconfig))
    kubeconfig.rename(kubeconfig.with_suffix(".away"))  # from here on it is not read
    own = checkout.folder("guest") / "kubeconfig"
    secret = yaml.safe_load(own.read_text())["users"][0]["user"]["client-key-data"]
    assert own.stat().st_mode & 0o777 == 0o600
    assert b"elsewhere" not in own.read_bytes()
    guest(checkout, "guest", "--until", "preflight")
    for stages in (("--from", "nodes", "--until", "model"), ("--from", "taint", "--until", "next_token")):
        guest(checkout, "guest", *stages, "-p", f"chart={CHART}", "-p", "weights=volume")
    plans: dict[str, list[int]] = {}
    for record in checkout.records("guest"):
        if record["kind"] == "plan":
            plans.setdefault(record["stage"], []).append(len(record["commands"]))
    assert plans["provision"] == [1, 0]  # signed in; nobody's roles are touched
    assert [plans[stage] for stage in ("taint", "gpu_operator", "model")] == [[1, 1, 0, 0]] * 3  # with the pull, the smoke pod

    install = next(r for r in checkout.records("guest") if r["kind"] == "plan" and r["stage"] == "gpu_operator")
    assert install["shown"][0].endswith("--set operator.cleanupCRD=false")
    with_label = ("pods", "-n", "default", "-l", "app=dolly-v2,gpurunbook.dev/run=guest", "-o", "json")
    (mine,) = json.loads(host.kubectl("get", *with_label).stdout)["items"]
    pod = mine["spec"]
    into = [r["argv"] for r in checkout.records("guest") if r["kind"] == "intent" and "exec" in r["argv"]]
    assert into
    assert all(mine["metadata"]["name"] in argv for argv in into), "the twin's pod has the manifest's label too"
    assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": "g4dn.xlarge"}
    assert {"name": "HF_HOME", "value": "/weights"} in pod["containers"][0]["env"]
    theirs = names(host, "pods", "-n", "somebody")
    assert len(theirs) == 2
    assert not [name for name in theirs if "dolly" in name]
    found = json.loads((checkout.folder("guest") / "artifacts" / "next_tokens.json").read_text())
    assert len(found["top"]) == 10

    done = checkout("teardown", "--run-id", "guest", "--target", "existing")
    assert "✗" not in done.stderr
    assert (releases(host), names(host, "namespaces")) == (set(), {
        "default", "kube-node-lease", "kube-public", "kube-system", "somebody"})
    assert names(host, "deployments") == {"shop", "twin"}
    assert "gpuclusters.nvidia.com" in names(host, "crds")
    assert len(names(host, "pods", "-n", "somebody")) == 2
    assert len(names(host, "nodes")) == 3
    assert not own.exists()
    assert not [f for f in checkout.folder("guest").rglob("*") if f.is_file() and secret.encode() in f.read_bytes()]
    assert kubeconfig.with_suffix(".away").read_bytes() == before
    last = [r for r in checkout.records("guest") if r["kind"] == "checks"][-1]["checks"]
    assert {c["name"]: c["state"] for c in last} == {
        "the run's Deployment is gone": "pass", "its pre-pull and its smoke pods are gone": "pass",
        "the run's release is gone": "pass", "the chart's CRDs are gone": "warn", "the run's namespace is gone": "pass",
        "what others have in the cluster is there": "pass", "the run's own kubeconfig is gone": "pass"}
    assert any("is not put back" in r["reason"] for r in checkout.records("guest") if r["kind"] == "plan")


def test_what_was_there_before_stays(checkout: Checkout, host: Cluster, kubeconfig: Path) -> None:
    """An operator of their own, found by its label without a selector; and a Deployment of the model's name."""
    host.kubectl("taint", "nodes", "--all", "node.cloudprovider.kubernetes.io/uninitialized-", check=False)
    values = checkout.root / "manifests" / "gpu-operator" / "ubuntu.yaml"
    host.helm("upgrade", "--install", "gpu-operator", str(checkout.root / CHART), "-n", "gpu-operator", "--create-namespace",
              "-f", str(values), "--wait", "--timeout", "60s")
    host.kubectl("wait", "clusterpolicies", "--all", "--for=jsonpath={.status.state}=ready", "--timeout=60s")
    host.kubectl("apply", "-f", "-", input=SAME_NAME)
    revision = host.helm("history", "gpu-operator", "-n", "gpu-operator", "-o", "json").stdout

    refused = guest(checkout, "careful", "-p", f"chart={CHART}", *adopting(kubeconfig, ""), check=False)
    assert refused.returncode == 1
    assert "dolly-v2-deployment is there that this run did not make" in refused.stderr
    plan = next(r for r in checkout.records("careful") if r["kind"] == "plan" and r["stage"] == "gpu_operator")
    assert plan["commands"] == []
    assert "was there before this run" in plan["reason"]
    adopted = next(r for r in checkout.records("careful") if r["kind"] == "existing")
    assert adopted["selector"] == "feature.node.kubernetes.io/pci-10de.present=true"

    checkout("teardown", "--run-id", "careful", "--target", "existing")
    assert host.helm("history", "gpu-operator", "-n", "gpu-operator", "-o", "json").stdout == revision
    assert names(host, "deployments") >= {"shop", "dolly-v2-deployment"}
    host.kubectl("delete", "deployment", "dolly-v2-deployment", "-n", "default")


def test_a_wrong_context_is_refused_before_a_run_has_anything(checkout: Checkout, host: Cluster, kubeconfig: Path) -> None:
    for context, code, said in (("wrok", 2, "no context 'wrok'"), ("wrong", 1, "does not let its nodes be listed")):
        done = guest(checkout, "lost", "--until", "provision", "-p", f"kubeconfig={kubeconfig}", "-p", f"context={context}",
                     check=False)
        assert done.returncode == code
        assert said in done.stderr
        assert checkout.folder("lost").exists() == (code == 1)  # a wrong option begins nothing
    assert not (checkout.folder("lost") / "kubeconfig").exists()
    checkout("teardown", "--run-id", "lost", "--target", "existing")  # nothing was taken over: nothing to take away
