"""Least privilege on one walk, with umask 000: of its user in the cluster, of its files, and of its pods.

The API server's audit log says who asked for what. 03 to 05 are walked by `gpurunbook run`, 06 to 08 by plain papermill,
whose kernels have the umask of whoever starts them, as JupyterLab's do.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml

from gpurunbook import stages
from gpurunbook.targets import ROLE_A
from tests.e2e.conftest import REPOSITORY, Checkout, Cluster
from tests.watching import Watcher

RUN, USER, OPERATOR = "rbac", "gpurunbook-model", "gpurunbook-operator"
OURS = ("kubectl/", "OpenAPI-Generator/", "Helm/")
"""User agents of what the runbook itself starts; the cluster's own parts ask as the administrator too."""
PROVISION = """
import sys, yaml
from dataclasses import replace
from gpurunbook import open_run
from gpurunbook.stages import provision
run = open_run("provision", run_id=sys.argv[1])
plan = provision.plan(run, provision.observe(run))
(file,) = (path for path in plan.files if path.name == "kwok.yaml")
documents = list(yaml.safe_load_all(plan.files[file]))
documents[0]["options"]["kubeAuditPolicy"] = sys.argv[2]
run.apply(replace(plan, files={**plan.files, file: yaml.safe_dump_all(documents)}))
provision.wait(run)
run.apply(provision.grant(run))
run.verify(provision.verify(run))
"""
POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}
SMALL = ("-p", "precisions", "reference")
Record = dict[str, Any]


@dataclass
class Walked:
    """A walk up to 08 that is still up, and what was seen of it."""

    cluster: Cluster
    watcher: Watcher
    temporary: Path

    @property
    def folder(self) -> Path:
        return self.cluster.folder

    @property
    def audit(self) -> list[Record]:
        lines = (self.folder / "rehearsal" / "clusters" / RUN / "logs" / "audit.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def asked(self, stage: str) -> list[Record]:
        """What the runbook's own programs asked for between a stage's beginning and its end."""
        records = [r for r in self.cluster.checkout.records(RUN) if r["kind"] == "stage" and r["stage"] == stage]
        began = next(r["time"] for r in records if r["state"] == "started")
        ended = next(r["time"] for r in records if r["state"] == "done")
        return [r for r in self.audit if r.get("userAgent", "").startswith(OURS)
                and began <= datetime.fromisoformat(r["requestReceivedTimestamp"]).isoformat(timespec="milliseconds") <= ended]

    def api(self, group: str, context: str = f"kwok-{RUN}") -> Any:
        config = kubernetes.config.new_client_from_config(str(self.cluster.kubeconfig), context=context)
        return getattr(kubernetes.client, group)(config)

    def as_user(self, *args: str, input: str | None = None) -> subprocess.CompletedProcess[bytes]:
        return self.cluster.kubectl(f"--context=kwok-{RUN}-model", *args, input=input, check=False)


@pytest.fixture(scope="module")
def walked(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    own = tmp_path_factory.mktemp("rbac")
    policy = own / "policy.yaml"
    policy.write_text(yaml.safe_dump(POLICY))
    temporary = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))  # a socket's path is short
    environment = checkout.environment | {"TMPDIR": str(temporary), "JUPYTER_PREFER_ENV_PATH": "1"}
    (checkout.root / "runs").mkdir(mode=0o700, exist_ok=True)

    def call(*args: str) -> None:
        done = subprocess.run([sys.executable, *args], cwd=checkout.root, env=environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=240, check=False, umask=0)
        assert done.returncode == 0, f"{args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    try:
        with Watcher(checkout.root / "runs", temporary, spare=(f"/runs/{RUN}/rehearsal/pods/",)) as watcher:
            call("-c", PROVISION, RUN, str(policy))
            call("-m", "gpurunbook", "run", "--run-id", RUN, "--from", "nodes", "--until", "gpu_operator")
            for stage, *given in (("model",), ("next_token", *SMALL), ("latency", *SMALL, "-p", "repetitions", "1")):
                notebook = stages.notebook(stage)
                call("-m", "papermill", f"notebooks/{notebook}", str(own / notebook), "-p", "run_id", RUN, *given,
                     "--no-progress-bar")
            call("-m", "gpurunbook", "report", "--run-id", RUN)
        yield Walked(Cluster(checkout, RUN), watcher, temporary)
    finally:
        call("-m", "gpurunbook", "teardown", "--run-id", RUN)
        shutil.rmtree(temporary)


# Role A

def rules(document: Record) -> Iterator[tuple[str, str, str, str, str]]:
    """(namespace, group, resource, name or "", verb) of each right in a role."""
    for rule in document["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [""]):
                    for verb in rule["verbs"]:
                        yield document["metadata"].get("namespace", ""), group, resource, name, verb


def right(record: Record) -> tuple[str, str, str, str, str]:
    """The same of a request in the audit log."""
    it = record["objectRef"]
    resource = "/".join(filter(None, (it["resource"], it.get("subresource"))))
    return it.get("namespace", ""), it.get("apiGroup", ""), resource, it.get("name", ""), record["verb"]


def manifest(name: str) -> list[Record]:
    return list(yaml.safe_load_all((REPOSITORY / "manifests" / "rbac" / name).read_text()))


UNSEEN = {("pods/exec", "create"): "see test_exec_takes_create_beside_get",
          ("daemonsets", "list"): "a kubectl before 1.35 lists before it watches"}
"""Rights of role A that leave no trace in the audit log here."""


def test_role_a_is_enough_and_nobody_else_asked(walked: Walked) -> None:
    for stage in ROLE_A:
        asked = walked.asked(stage)
        assert len(asked) >= 3, stage
        assert {r["user"]["username"] for r in asked} == {USER}, stage
        assert {r["annotations"]["authorization.k8s.io/decision"] for r in asked} == {"allow"}, stage
    everything = [r for r in walked.audit if r["user"]["username"] == USER]
    assert not [r["requestURI"] for r in everything if r["annotations"]["authorization.k8s.io/decision"] != "allow"]
    assert {r["user"]["username"] for r in walked.asked("taint")} == {"kwok-admin"}, "the log tells users apart"


def test_nothing_in_role_a_is_without_use(walked: Walked) -> None:
    _delete_slowly(walked)
    used = [right(r) for r in walked.audit if r["user"]["username"] == USER and "resource" in r.get("objectRef", {})]
    for document in (d for d in manifest("runbook-model.yaml") if "rules" in d):
        for namespace, group, resource, name, verb in rules(document):
            if (resource, verb) not in UNSEEN:
                assert any((group, resource, verb) == (one[1], one[2], one[4]) and one[0] in (namespace, name)
                           and name in ("", one[3]) for one in used), (resource, name, verb)


def _delete_slowly(walked: Walked) -> None:
    """`kubectl delete` lists and watches only while an object is still there."""
    (document,) = yaml.safe_load_all((REPOSITORY / "manifests" / "model" / "prepull.yaml").read_text())
    document["metadata"]["finalizers"] = ["gpurunbook.dev/test"]
    walked.cluster.kubectl("apply", "-f", "-", input=json.dumps(document))
    with ThreadPoolExecutor() as pool:
        deleting = pool.submit(walked.as_user, "delete", "daemonset", "dolly-prepull")
        walked.cluster.kubectl("wait", "--for=jsonpath={.metadata.deletionTimestamp}", "daemonset/dolly-prepull")
        time.sleep(1)
        walked.cluster.kubectl("patch", "daemonset", "dolly-prepull", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        done = deleting.result()
    assert done.returncode == 0, done.stderr


def test_exec_takes_create_beside_get(walked: Walked) -> None:
    """A WebSocket begins with GET, so the log has only that; the API server asks for `create` besides."""
    (pod,) = walked.cluster.kubectl("get", "pods", "-l", "app=dolly-v2", "-o", "name").stdout.decode().split()
    call = ("exec", pod, "--as=somebody", "--as-group=lookers", "--", "python", "-V")
    walked.cluster.kubectl("create", "role", "look", "--verb=get", "--resource=pods,pods/exec")
    walked.cluster.kubectl("create", "rolebinding", "look", "--role=look", "--group=lookers")
    done = walked.cluster.kubectl(*call, check=False)
    assert b'cannot create resource "pods/exec"' in done.stderr


LACKS = [  # (verb, group, resource, namespace, name)
    *[(verb, "", "secrets", space, "") for verb in ("get", "list", "create") for space in ("default", "gpu-operator")],
    *[(verb, "", "nodes", "", "") for verb in ("get", "patch", "update", "delete")], ("create", "", "nodes/proxy", "", ""),
    *[("create", "", "pods/exec", space, "") for space in ("gpu-operator", "kube-system", "elsewhere")],
    *[(verb, "", "pods", "default", "") for verb in ("create", "delete", "patch")], ("list", "", "pods", "gpu-operator", ""),
    ("list", "", "pods", "", ""), ("get", "", "pods/log", "default", ""),
    ("patch", "", "pods/ephemeralcontainers", "default", ""), ("create", "", "pods/portforward", "default", ""),
    ("create", "", "serviceaccounts/token", "default", ""), ("impersonate", "", "users", "", ""),
    ("create", "apps", "daemonsets", "default", ""), ("patch", "apps", "daemonsets", "default", "dolly-prepull"),
    ("delete", "apps", "daemonsets", "default", "another"), ("delete", "apps", "deployments", "default", "dolly-v2-deployment"),
    ("patch", "apps", "deployments", "default", "another"), ("list", "apps", "deployments", "default", ""),
    ("create", "apps", "deployments", "gpu-operator", ""), ("get", "", "namespaces", "", "gpu-operator"),
    *[(verb, "", "namespaces", "default", "default") for verb in ("patch", "delete")], ("create", "", "namespaces", "", ""),
    *[(verb, "rbac.authorization.k8s.io", kind, "", "") for kind in ("clusterroles", "clusterrolebindings")
      for verb in ("create", "patch", "bind", "escalate")],
    ("patch", "rbac.authorization.k8s.io", "roles", "default", USER),
    ("create", "rbac.authorization.k8s.io", "rolebindings", "default", ""),
    ("create", "certificates.k8s.io", "certificatesigningrequests", "", ""), ("*", "*", "*", "", ""),
]


def test_role_a_lacks_the_rest(walked: Walked) -> None:
    api, body = walked.api("AuthorizationV1Api", f"kwok-{RUN}-model"), kubernetes.client

    def may(verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
        kind, _, sub = resource.partition("/")
        asked = body.V1ResourceAttributes(verb=verb, group=group, resource=kind, subresource=sub, namespace=namespace, name=name)
        review = body.V1SelfSubjectAccessReview(spec=body.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
        return bool(api.create_self_subject_access_review(review).status.allowed)

    assert [one for one in LACKS if may(*one)] == []
    assert may("patch", "apps", "deployments", "default", "dolly-v2-deployment"), "the question can be answered with yes"


REFUSED = [
    ("get", "secrets", "-A"), ("get", "pods", "-n", "gpu-operator"), ("delete", "namespace", "gpu-operator"),
    ("taint", "nodes", "--all", "key=value:NoSchedule"), ("create", "-f", "-"),
    ("delete", "deployment", "dolly-v2-deployment", "--wait=false"), ("run", "any", "--image=busybox"),
    ("create", "token", "default"), ("label", "namespace", "default", "pod-security.kubernetes.io/enforce-"),
    ("exec", "-n", "gpu-operator", "deployment/gpu-operator", "--", "true"), ("get", "pods", "--as=system:admin"),
]
GREED = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "greed"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}


def greed(group: str) -> str:
    return json.dumps(GREED | {"subjects": [{"kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io"}]})


@pytest.mark.parametrize("args", REFUSED, ids=" ".join)
def test_real_requests_beyond_role_a_are_refused(walked: Walked, args: tuple[str, ...]) -> None:
    done = walked.as_user(*args, input=greed(USER))
    assert done.returncode != 0
    assert b"orbidden" in done.stderr
    assert USER.encode() in done.stderr, "refused as that user, and not for another reason"


# Role B

def test_role_b_had_been_enough_for_04_and_05_and_amounts_to_admin(walked: Walked) -> None:
    api, body = walked.api("AuthorizationV1Api"), kubernetes.client
    walked.cluster.kubectl("apply", "-f", str(REPOSITORY / "manifests" / "rbac" / "runbook-operator.yaml"))

    def may(namespace: str, group: str, resource: str, name: str, verb: str) -> bool:
        kind, _, sub = resource.partition("/")
        asked = body.V1ResourceAttributes(verb=verb, group=group, resource=kind, subresource=sub, namespace=namespace, name=name)
        review = body.V1SubjectAccessReview(spec=body.V1SubjectAccessReviewSpec(
            user="somebody", groups=[OPERATOR, "system:authenticated"], resource_attributes=asked))
        return bool(api.create_subject_access_review(review).status.allowed)

    asked = {right(r) for stage in ("taint", "gpu_operator") for r in walked.asked(stage) if "resource" in r.get("objectRef", {})}
    assert len(asked) > 30
    assert {("", "", "nodes", name, "patch") for _, _, _, name, _ in asked} & asked, "04 took a taint off a node"
    assert sorted(one for one in asked if not may(*one)) == []
    assert not may("", "*", "*", "", "*")
    walked.cluster.kubectl("create", "--as=somebody", f"--as-group={OPERATOR}", "-f", "-", input=greed(OPERATOR))
    try:
        assert may("", "*", "*", "", "*"), "so role B amounts to admin"
    finally:
        walked.cluster.kubectl("delete", "clusterrolebinding", "greed")


# Files

def test_no_file_of_the_run_was_ever_open_to_others(walked: Walked) -> None:
    folder = str(walked.folder)
    seen = {path for path in walked.watcher.seen if str(path).startswith((folder, str(walked.temporary / "gpurunbook-")))}
    names = {path.name for path in seen}
    assert {"kubeconfig", "journal.jsonl", "lock", "03_nodes.ipynb", "model.log", "report.html", "top10.png", "next_tokens.json",
            "logits.reference.f32", "cache", "kubelet.key", "ca.key", f"{USER}.key", "etcd.sock", "audit.log",
            "pod-host.log", "run"} <= names
    # kubectl gives its cached lists of resources 0660 itself, in a folder that nobody else may enter; pods' uids pass
    # through `pods`, below folders that nobody else may enter.
    spared = f"{folder}/cache/", f"{folder}/rehearsal/pods"
    opened = {path: modes for path, modes in walked.watcher.open_to_others().items()
              if Path(path) in seen and not path.startswith(spared)}
    assert opened == {}
    for closed in (walked.folder, walked.folder / "cache", walked.folder / "rehearsal"):
        assert walked.watcher.seen[closed] == {0o700}


# Pods

def pods() -> dict[str, Record]:
    """Every pod that the runbook's own manifests make."""
    found = {}
    for file in ("model/deployment.yaml", "model/prepull.yaml", "gpu-operator/smoke.yaml"):
        for document in yaml.safe_load_all((REPOSITORY / "manifests" / file).read_text()):
            if "template" in document.get("spec", {}):
                found[file] = document["spec"]["template"]["spec"]
            elif document["kind"] == "Pod":
                found[file] = document["spec"]
    return found


def pod(spec: Record, namespace: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "namespace": namespace}, "spec": spec})


def test_every_pod_meets_the_restricted_standard(walked: Walked) -> None:
    walked.cluster.kubectl("create", "namespace", "restricted")
    walked.cluster.kubectl("label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted")
    assert len(pods()) == 3
    for file, spec in pods().items():
        done = walked.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=pod(spec, "restricted"), check=False)
        assert done.returncode == 0, f"{file}: {done.stderr.decode()}"
        less = copy.deepcopy(spec)
        del less["securityContext"]["runAsNonRoot"]
        done = walked.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=pod(less, "restricted"), check=False)
        assert b"violates PodSecurity" in done.stderr, "the standard is enforced there"


def test_a_privileged_pod_is_refused_where_role_a_may_create_deployments(walked: Walked) -> None:
    spec = copy.deepcopy(pods()["model/deployment.yaml"])
    spec["containers"][0]["securityContext"] = {"privileged": True}
    done = walked.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=pod(spec, "default"), check=False)
    assert b'violates PodSecurity "baseline' in done.stderr
