"""The pull of the model's image ahead of time, and what a waiting pod is said to wait for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gpurunbook.config import Taint, load_cluster
from gpurunbook.deployment import RUN_LABEL, derive, names
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal
from gpurunbook.runbook import Run
from gpurunbook.stages import model, pod_events, pulling, taint
from gpurunbook.stages.pod_events import Event, progress
from gpurunbook.stages.pulling import end, has, plan
from gpurunbook.targets.existing import Existing
from gpurunbook.targets.rehearsal.cluster import Rehearsal

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = load_cluster(ROOT / "cluster.yaml")
DOCUMENT = yaml.safe_load((ROOT / "manifests/model/prepull.yaml").read_text())
MODEL = yaml.safe_load((ROOT / "manifests/model/deployment.yaml").read_text())
POD = DOCUMENT["spec"]["template"]["spec"]
OURS = "irbull/dolly:0.2"


# The manifest

def test_it_has_the_models_image_and_place_and_none_of_its_labels() -> None:
    assert DOCUMENT["kind"] == "DaemonSet"
    assert DOCUMENT["metadata"]["name"] == model.PREPULL
    assert DOCUMENT["metadata"]["namespace"] == model.NAMESPACE
    assert (names(DOCUMENT).image, names(DOCUMENT).selector) == (names(MODEL).image, names(MODEL).selector)
    assert names(DOCUMENT).label != names(MODEL).label


def test_it_asks_for_no_gpu_next_to_nothing_and_no_rights() -> None:
    (container,) = POD["containers"]
    assert "nvidia" not in str(container["resources"])
    assert container["resources"]["requests"] == {"cpu": "1m", "memory": "8Mi"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert POD["securityContext"] == {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}}
    assert POD["automountServiceAccountToken"] is False
    assert POD["terminationGracePeriodSeconds"] == 0


def test_it_tolerates_what_the_model_does_and_not_an_uninitialized_node() -> None:
    group = CLUSTER.gpu_group.model_copy(update={"taints": (Taint(key="nvidia.com/gpu", effect="NoSchedule"),)})
    made, of_model = (derive(document, group)["spec"]["template"]["spec"]["tolerations"] for document in (DOCUMENT, MODEL))
    assert made == of_model == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert taint.UNINITIALIZED not in str(derive(DOCUMENT, group))
    assert derive(DOCUMENT, CLUSTER.gpu_group) == DOCUMENT


def test_on_a_cluster_that_is_not_ours_it_carries_the_runs_label() -> None:
    made = derive(DOCUMENT, CLUSTER.gpu_group, run_id="otter")
    spec = made["spec"]
    for labels in (made["metadata"]["labels"], spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
        assert labels == {"app": "dolly-prepull", RUN_LABEL: "otter"}


# The plans

class Cluster(Run):
    """A run on a cluster with some GPU nodes, perhaps a model's pod, and perhaps a DaemonSet that pulls an image."""

    images: dict[str, list[str]]
    ready: str = ""
    pulls: str = ""
    labels: dict[str, str]
    diff = 0

    def program(self, name: str) -> str:
        return f"/bin/{name}"

    @property
    def core(self) -> Any:  # type: ignore[override]
        def pods(namespace: str, label_selector: str, **options: Any) -> Any:
            image = self.ready if "dolly-v2" in label_selector else self.pulls
            on = [SimpleNamespace(
                metadata=SimpleNamespace(name="p", uid="u", deletion_timestamp=None),
                spec=SimpleNamespace(node_name=node, containers=[SimpleNamespace(image=image)]),
                status=SimpleNamespace(phase="Running", container_statuses=[], conditions=[
                    SimpleNamespace(type="Ready", status="True" if "dolly-v2" in label_selector else "False")]))
                for node in self.images]
            return SimpleNamespace(items=on if image else [])

        nodes = [SimpleNamespace(metadata=SimpleNamespace(name=name), status=SimpleNamespace(images=[SimpleNamespace(names=its)]))
                 for name, its in self.images.items()]
        return SimpleNamespace(list_namespaced_pod=pods, list_node=lambda **options: SimpleNamespace(items=nodes),
                               list_namespaced_event=lambda *args, **options: SimpleNamespace(items=[]))

    def client(self, group: str) -> Any:
        from kubernetes.client import ApiException

        def daemonset(name: str, *args: Any, **options: Any) -> Any:
            if not self.pulls:
                raise ApiException(status=404)
            spec = SimpleNamespace(template=SimpleNamespace(spec=SimpleNamespace(containers=[SimpleNamespace(image=self.pulls)])))
            return SimpleNamespace(metadata=SimpleNamespace(name=name, labels=self.labels), spec=spec)

        def none(*args: Any, **options: Any) -> Any:
            raise ApiException(status=404)

        return SimpleNamespace(read_namespaced_daemon_set=daemonset, read_namespaced_deployment=none)

    def ask(self, command: Any, check: bool = True) -> Any:
        assert "diff" in command.argv
        return SimpleNamespace(code=self.diff)


def cluster(folder: Path, stage: str = "taint", *, ours: bool = True, nodes: int = 1, has: str = "", ready: str = "",
            pulls: str = "", labels: dict[str, str] | None = None, diff: int = 0) -> Cluster:
    folder.mkdir(exist_ok=True)
    made = Cluster(ROOT, folder, Rehearsal() if ours else Existing(), CLUSTER, stage)
    made.kubeconfig.touch()
    made.images = {f"n{i}": [has] if has else [] for i in range(nodes)}
    made.ready, made.pulls, made.labels, made.diff = ready, pulls, labels or {}, diff
    return made


def test_the_manifest_is_applied_as_it_is_and_a_failure_does_not_end_the_plan(tmp_path: Path) -> None:
    run = cluster(tmp_path)
    (command,) = made = plan(run, pulling.observe(run, image=""))
    assert command.short == f"kubectl apply -f {ROOT}/manifests/model/prepull.yaml"
    assert command.otherwise
    assert "1 GPU node" in made.reason
    assert made.files == {}


def test_another_image_is_pulled_from_a_file_of_the_run(tmp_path: Path) -> None:
    run = cluster(tmp_path)
    (command,) = made = plan(run, pulling.observe(run, image="mine:1"))
    assert command.short == f"kubectl apply -f {tmp_path}/artifacts/prepull.yaml"
    assert yaml.safe_load(made.files[tmp_path / "artifacts/prepull.yaml"])["spec"]["template"]["spec"]["containers"][0][
        "image"] == "mine:1"


@pytest.mark.parametrize(("there", "image", "wanted", "commands", "words"), [
    ({"pulls": OURS}, "", True, 0, "as the manifest says"),
    ({"pulls": OURS, "diff": 1}, "", True, 1, "is pulled"),
    ({"has": f"registry.example/{OURS}"}, "", True, 0, "is on every GPU node"),
    ({"ready": OURS}, "", True, 0, "runs already"),
    ({"ready": "other:1"}, "", True, 0, "runs already"),
    ({"ready": "other:1"}, "other:1", True, 0, "runs already"),
    ({"ready": "other:1"}, "mine:1", True, 1, "mine:1 is pulled"),
    ({"nodes": 5}, "", True, 0, "5 nodes would pull what one needs"),
    ({}, "", False, 0, "not asked for"),
    ({"pulls": OURS}, "", False, 1, "not asked for"),
    ({"pulls": OURS, "ours": False}, "", True, 0, "did not make"),
    ({"pulls": OURS, "ours": False}, "", False, 0, "did not make"),
])
def test_nothing_is_pulled_without_need(tmp_path: Path, there: dict[str, Any], image: str, wanted: bool, commands: int,
                                        words: str) -> None:
    run = cluster(tmp_path, **there)
    made = plan(run, pulling.observe(run, image=image, wanted=wanted))
    assert len(made.commands) == commands
    assert words in made.reason


@pytest.mark.parametrize(("there", "commands"), [
    ({}, 0), ({"pulls": OURS}, 1), ({"pulls": OURS, "ours": False}, 0),
    ({"pulls": OURS, "ours": False, "labels": {RUN_LABEL: "r"}}, 1),
])
def test_it_is_taken_away_when_the_model_is_ready(tmp_path: Path, there: dict[str, Any], commands: int) -> None:
    run = cluster(tmp_path / "r", "model", **there)
    assert [c.short for c in end(run, pulling.look(run))] == [
        "kubectl delete daemonset dolly-prepull -n default --ignore-not-found"][:commands]
    assert pulling.made(run) == ("dolly-prepull" if commands else "")


def test_06_deploys_the_image_that_04_was_given_unless_told_otherwise(tmp_path: Path) -> None:
    pulling.observe(cluster(tmp_path), image="mine:1")
    later = cluster(tmp_path, "model", pulls="mine:1")
    assert model.image_of(model.wanted(later, "", "image")) == "mine:1"
    assert model.image_of(model.wanted(later, "other:1", "image")) == "other:1"
    assert pulling.look(later).image == "other:1"
    again = cluster(tmp_path)
    pulling.observe(again, image="")
    assert model.image_of(model.wanted(cluster(tmp_path, "model"), "", "image")) == OURS


def test_a_wrong_image_is_refused_and_not_noted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name of an image"):
        pulling.observe(cluster(tmp_path), image="A B")
    assert not list(Journal(tmp_path).records())


@pytest.mark.parametrize(("pulls", "image", "commands"), [
    ("", "", ["apply"]), (OURS, "", ["apply"]), ("mine:1", "", ["delete", "apply"]), (OURS, "mine:1", ["delete", "apply"]),
])
def test_06_ends_the_pull_of_another_image(tmp_path: Path, pulls: str, image: str, commands: list[str]) -> None:
    run = cluster(tmp_path, "model", pulls=pulls, diff=1)
    made = model.plan(run, model.observe(run, image=image, weights="image"))
    assert [c.shown[1] for c in made] == commands
    assert ("04 had another image pulled" in made.reason) == (len(commands) == 2)


@pytest.mark.parametrize(("there", "image", "found"), [
    ("registry.example/irbull/dolly:0.2", OURS, True), (OURS, OURS, True), ("registry.example/x/irbull/dolly:0.2", OURS, True),
    ("registry.example/notirbull/dolly:0.2", OURS, False), ("registry.example/irbull/dolly:0.20", OURS, False),
    ("registry.example/library/mine:latest", "mine", True), ("registry.example/library/mine:1", "mine", False),
    ("host:5000/mine:latest", "host:5000/mine", True), ("a@sha256:00", "a@sha256:00", True),
])
def test_a_nodes_image_is_known_by_its_end(there: str, image: str, found: bool) -> None:
    assert has([there], image) == found


def test_the_table_shows_each_node(tmp_path: Path) -> None:
    run = cluster(tmp_path, "model", nodes=2, pulls=OURS)
    run.images["n1"] = [OURS]
    assert dict(pulling.look(run).nodes) == {"n0": "scheduled on n0; its image is not being pulled yet", "n1": "pulled"}
    assert "nothing pulls it ahead" in repr(pulling.look(cluster(tmp_path, "model")).table)


# What a pod waits for

AT = datetime(2026, 11, 22, 12, 3, 4, tzinfo=UTC)
PULLING = Event("Pulling", 'Pulling image "mine:1"', AT)


@pytest.mark.parametrize(("node", "why", "events", "said"), [
    ("", "Unschedulable: 0/3 nodes are available", [], "Unschedulable: 0/3 nodes are available"),
    ("n", "ContainerCreating", [], "scheduled on n; its image is not being pulled yet"),
    ("n", "ContainerCreating", [Event("Scheduled", "x", AT)], "scheduled on n; its image is not being pulled yet"),
    ("n", "ContainerCreating", [PULLING], 'pulling image "mine:1", since 12:03:04 UTC'),
    ("n", pod_events.STARTING, [PULLING, Event("Pulled", "x", AT)], "its image is there; the container is starting"),
    ("n", pod_events.STARTING, [PULLING, Event("Pulled", "x", AT), Event("Started", "x", AT)], "started, and not ready yet"),
    ("n", "ContainerCreating", [Event("Pulled", "x", AT), PULLING], 'pulling image "mine:1", since 12:03:04 UTC'),
    ("n", "ImagePullBackOff: no space left on device", [PULLING], "ImagePullBackOff: no space left on device"),
])
def test_progress_tells_scheduled_pulling_and_starting(node: str, why: str, events: list[Event], said: str) -> None:
    assert progress(node, why, lambda: events) == said


def test_events_are_read_in_order_and_may_be_forbidden(tmp_path: Path) -> None:
    from kubernetes.client import ApiException
    run = cluster(tmp_path)

    class Core(Cluster):
        @property
        def core(self) -> Any:  # type: ignore[override]
            def event(reason: str, hour: int) -> Any:
                return SimpleNamespace(reason=reason, message=reason, last_timestamp=None, event_time=AT.replace(hour=hour))

            def listed(namespace: str, field_selector: str, **options: Any) -> Any:
                if field_selector != "involvedObject.uid=u":
                    raise ApiException(status=403)
                return SimpleNamespace(items=[event("Pulled", 2), event("Pulling", 1)])

            return SimpleNamespace(list_namespaced_event=listed)

    run.__class__ = Core
    assert [e.reason for e in pod_events.of(run, "u")] == ["Pulling", "Pulled"]
    assert pod_events.of(run, "v") == []
