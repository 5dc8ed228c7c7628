"""What stage 06 deploys: the manifest as it is, or what a run makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gpurunbook.config import NodeGroup, Taint, load_cluster
from gpurunbook.deployment import RUN_LABEL, build, changes, derive, names
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.runbook import Run
from gpurunbook.stages import model
from gpurunbook.targets.existing import Existing
from gpurunbook.targets.rehearsal.cluster import Rehearsal

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "manifests" / "model"
DOCUMENT = yaml.safe_load((MODEL / "deployment.yaml").read_text())
GROUP = load_cluster(ROOT / "cluster.yaml").gpu_group
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dolly:1"


def pod(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]["template"]["spec"]
    return spec


# The manifest as data

def test_with_nothing_asked_for_the_manifest_is_used_as_it_is() -> None:
    assert derive(DOCUMENT, GROUP) == DOCUMENT
    assert changes(DOCUMENT, derive(DOCUMENT, GROUP)) == ()


def test_the_manifest_names_its_namespace() -> None:
    assert DOCUMENT["metadata"]["namespace"] == model.NAMESPACE


@pytest.mark.parametrize(("asked", "field", "before", "after"), [
    ({"image": "mine:1"}, "spec.template.spec.containers[0].image", "irbull/dolly:0.2", "mine:1"),
    ({"weights": "volume"}, "spec.template.spec.volumes[0].emptyDir.sizeLimit", "-", "15Gi"),
    ({"run_id": "otter"}, f"metadata.labels.{RUN_LABEL}", "-", "otter"),
])
def test_each_change_is_told_by_its_field(asked: dict[str, str], field: str, before: str, after: str) -> None:
    made = derive(DOCUMENT, GROUP, **asked)
    assert (field, before, after) in changes(DOCUMENT, made)
    assert names(made).name == names(DOCUMENT).name
    assert yaml.safe_load((MODEL / "deployment.yaml").read_text()) == DOCUMENT, "the manifest itself is not changed"


def test_weights_in_a_volume_are_where_the_hub_looks_for_them() -> None:
    made = pod(derive(DOCUMENT, GROUP, weights="volume"))
    (mount,) = made["containers"][0]["volumeMounts"]
    assert mount["name"] == made["volumes"][0]["name"]
    assert made["containers"][0]["env"] == [{"name": "HF_HOME", "value": mount["mountPath"]}]


def test_a_pod_is_placed_on_the_gpu_group_and_tolerates_its_taints() -> None:
    group = GROUP.model_copy(update={"label": "pool=gpu,zone=x", "taints": (Taint(key="nvidia.com/gpu", effect="NoSchedule"),)})
    made = pod(derive(DOCUMENT, group))
    assert made["nodeSelector"] == {"pool": "gpu", "zone": "x"}
    assert made["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    renamed: NodeGroup = GROUP.model_copy(update={"name": "accelerated"})
    assert pod(derive(DOCUMENT, renamed))["nodeSelector"] == {"alpha.eksctl.io/nodegroup-name": "accelerated"}


# The choice of a run

def run(folder: Path, stage: str = "model", *, ours: bool = True) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(ROOT, folder, Rehearsal() if ours else Existing(), load_cluster(ROOT / "cluster.yaml"), stage)


def test_a_later_look_asks_for_what_06_was_given(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    assert model.wanted(run(folder)).path == MODEL / "deployment.yaml"
    given = model.wanted(run(folder), "mine:1", "volume")
    assert given.path == folder / "artifacts" / "deployment.yaml"
    assert model.wanted(run(folder)) == given
    assert model.wanted(run(folder, "next_token")) == given
    assert model.wanted(run(folder), "", "image").changes == ()
    records = [r for r in Journal(folder).records() if r["kind"] == "model"]
    assert [(r["image"], r["weights"]) for r in records] == [("", "image"), ("mine:1", "volume"), ("", "image")]


def test_names_are_those_that_06_used(tmp_path: Path) -> None:
    used = run(tmp_path / "r")
    used.journal.append("model", image="", weights="image", deployment={
        "name": "old", "label": "app=old", "container": "c", "image": "i", "selector": "s"})
    assert model.manifest(run(tmp_path / "r", "teardown")).name == "old"
    used.journal.append("run", state="finished")
    assert model.manifest(run(tmp_path / "r", "teardown")).name == "dolly-v2-deployment"


def test_on_a_cluster_that_is_not_ours_the_deployment_says_whose_it_is(tmp_path: Path) -> None:
    made = yaml.safe_load(model.wanted(run(tmp_path / "r", ours=False)).text)
    both = {"app": "dolly-v2", RUN_LABEL: "r"}
    assert made["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"] == both
    assert made["spec"]["selector"] == {"matchLabels": both}
    assert "labels" not in str(changes(pod(DOCUMENT), pod(made)))


class Shared(Run):
    """A run whose cluster has two ready pods with the manifest's label; one of them also has the run's."""

    @property
    def core(self) -> Any:  # type: ignore[override]
        ready = [SimpleNamespace(type="Ready", status="True")]
        status = SimpleNamespace(conditions=ready, container_statuses=[], phase="Running")
        labels = {"theirs": {"app": "dolly-v2"}, "mine": {"app": "dolly-v2", RUN_LABEL: self.id}}

        def listed(namespace: str, label_selector: str, **options: Any) -> Any:
            wanted = dict(pair.split("=") for pair in label_selector.split(","))
            return SimpleNamespace(items=[
                SimpleNamespace(metadata=SimpleNamespace(name=name, deletion_timestamp=None, uid=name), status=status,
                                spec=SimpleNamespace(node_name="n", containers=[SimpleNamespace(image="i")]))
                for name, its in labels.items() if wanted.items() <= its.items()])

        return SimpleNamespace(list_namespaced_pod=listed)


@pytest.mark.parametrize("journalled", [True, False])
def test_on_a_cluster_that_is_not_ours_only_the_runs_own_pod_is_used(tmp_path: Path, journalled: bool) -> None:
    cluster = load_cluster(ROOT / "cluster.yaml")
    if journalled:
        model.wanted(run(tmp_path, ours=False))
    guest = Shared(ROOT, tmp_path, Existing(), cluster, "next_token")
    assert [p.name for p in model.pods(guest, model.manifest(guest))] == ["mine"]
    assert model.ready_pod(guest).name == "mine"


def test_on_our_own_cluster_a_pod_is_found_by_the_manifests_label() -> None:
    assert names(DOCUMENT).label == names(derive(DOCUMENT, GROUP)).label == "app=dolly-v2"
    assert names(derive(DOCUMENT, GROUP, run_id="otter")).label == f"app=dolly-v2,{RUN_LABEL}=otter"


@pytest.mark.parametrize(("image", "weights", "what"), [
    ("MINE", "image", "no name of an image"), ("a b", "image", "no name of an image"), ("a:1\nkind: x", "image", "no name of"),
    ("-a", "image", "no name of an image"), ("", "disk", "weights 'disk'"),
])
def test_a_wrong_choice_is_refused_before_anything_is_asked(tmp_path: Path, image: str, weights: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        model.wanted(run(tmp_path / "r"), image, weights)
    assert not list(Journal(tmp_path / "r").records())


@pytest.mark.parametrize("image", ["a", "a/b:1", "localhost:5000/a/b_c:v1.2", ECR, "a@sha256:" + "0" * 64])
def test_any_reference_is_an_image(tmp_path: Path, image: str) -> None:
    assert names(yaml.safe_load(model.wanted(run(tmp_path / "r"), image).text)).image == image


class Registry(Run):
    """A run whose cluster has the Deployment with some image, or none."""

    live = ""
    has = ("dolly-v2-deployment",)

    def client(self, group: str) -> Any:
        from kubernetes.client import ApiException

        def read(name: str, *args: Any, **options: Any) -> Any:
            if not self.live or name not in self.has:
                raise ApiException(status=404)
            spec = SimpleNamespace(template=SimpleNamespace(spec=SimpleNamespace(containers=[SimpleNamespace(image=self.live)])))
            return SimpleNamespace(spec=spec)

        return SimpleNamespace(read_namespaced_deployment=read, read_namespaced_daemon_set=read)

    def program(self, name: str) -> str:
        return f"/bin/{name}"


def test_no_account_id_is_written_and_the_cluster_gives_it_back(tmp_path: Path) -> None:
    one = Registry(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "model")
    one.kubeconfig.touch()
    asked = model.wanted(one, ECR)
    assert ECR in asked.text
    assert ECR not in asked.readable
    facts = model.Facts(model.manifest(one), asked, True, False, ())
    plan = model.plan(one, facts)
    (command,) = plan
    assert command.stdin == asked.text.encode()
    assert command.argv[-2:] == ("-f", "-")
    assert list(plan.files.values()) == [asked.readable]
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and "123456789012" in f.read_text()]

    with pytest.raises(RunbookError, match="not known any more"):
        model.wanted(one)
    one.live = "another:1"
    with pytest.raises(RunbookError, match="not known any more"):
        model.wanted(one)
    one.live = ECR
    assert model.wanted(one) == asked
    one.has = ("dolly-prepull",)
    assert model.wanted(one) == asked, "the DaemonSet that pulls it knows it too"


def test_the_plan_shows_what_differs_and_applies_the_file(tmp_path: Path) -> None:
    one = Registry(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "model")
    asked = model.wanted(one, "mine:1")
    plan = model.plan(one, model.Facts(model.manifest(one), asked, True, False, ()))
    assert [c.short for c in plan] == [f"kubectl apply -f {tmp_path}/artifacts/deployment.yaml"]
    assert "image mine:1" in plan.reason
    labelled = model.Manifest(asked.path, asked.text, changes(DOCUMENT, derive(DOCUMENT, GROUP, run_id="otter")))
    said = model.plan(one, model.Facts(model.manifest(one), labelled, True, False, ())).reason
    assert said.count("otter") == 1, "a label that stands in three places is said once"
    assert yaml.safe_load(plan.files[asked.path]) == yaml.safe_load(asked.text)
    as_it_is = model.wanted(one, "")
    plan = model.plan(one, model.Facts(model.manifest(one), as_it_is, True, False, ()))
    assert [c.short for c in plan] == [f"kubectl apply -f {MODEL}/deployment.yaml"]
    assert plan.files == {}
    assert not model.plan(one, model.Facts(model.manifest(one), as_it_is, False, False, ()))


def test_a_deployment_of_others_is_not_touched(tmp_path: Path) -> None:
    one = run(tmp_path / "r")
    facts = model.Facts(model.manifest(one), model.wanted(one), True, True, ())
    with pytest.raises(RunbookError, match="this run did not make") as caught:
        model.plan(one, facts)
    assert "kubectl delete deployment dolly-v2-deployment -n default" in caught.value.next


# A pod of the manifest before is not the answer

@pytest.mark.parametrize(("generation", "observed", "replicas", "updated", "behind"), [
    (1, 1, 1, 1, False), (2, 1, 1, 1, True), (2, 2, 1, 0, True), (2, 2, 2, 1, True), (2, 2, None, None, True),
    (1, None, 1, 1, True),
])
def test_a_deployment_is_behind_until_its_pods_are_the_new_ones(generation: int, observed: int | None, replicas: int | None,
                                                                updated: int | None, behind: bool) -> None:
    status = SimpleNamespace(observed_generation=observed, replicas=replicas, updated_replicas=updated)
    found = SimpleNamespace(metadata=SimpleNamespace(generation=generation), spec=SimpleNamespace(replicas=1), status=status)
    assert bool(model._behind(found)) is behind
    assert model._behind(None) == "no Deployment yet"


# The image

def test_the_lines_that_build_hold_no_account_id() -> None:
    create, login, make, push = build("eu-central-1", "image")
    registry = "$(aws sts get-caller-identity --query Account --output text).dkr.ecr.eu-central-1.amazonaws.com"
    assert make == f"docker build --platform linux/amd64 --target baked -t {registry}/dolly:1 manifests/model"
    assert push == f"docker push {registry}/dolly:1"
    assert login.endswith(registry)
    assert "create-repository" in create
    assert "--target slim" in build("eu-central-1", "volume")[2]
    assert "$AWS_REGION" in build("", "image")[3]
    assert build("cn-north-1", "image")[3].endswith("amazonaws.com.cn/dolly:1")


DOCKERFILE = (MODEL / "Dockerfile").read_text()
LOCK = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def test_the_image_has_the_locked_versions_in_layers_of_their_own() -> None:
    runs = re.findall(r"^RUN pip install (?:--no-deps )?((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    packages = [text.replace("\\", " ").split() for text in runs]
    assert len(packages) >= 6
    assert all("==" in package for layer in packages for package in layer)
    pinned = dict(package.split("==") for layer in packages for package in layer)
    assert {name: version for name, version in pinned.items() if LOCK.get(name) != version and name != "numpy"} == {}
    assert pinned["numpy"] in re.findall(r"^numpy==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {name for name in LOCK if name.startswith("nvidia-")} <= pinned.keys(), "a CUDA library would land in torch's layer"


def test_the_stages_that_we_name_are_there_and_the_base_is_pinned() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert [name for _, name in stages] == ["slim", "weights", "baked"]
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", stages[0][0])
    lines = "".join(build("r", weights)[2] for weights in model.WEIGHTS)
    assert set(re.findall(r"--target (\w+)", lines)) == {"slim", "baked"}
