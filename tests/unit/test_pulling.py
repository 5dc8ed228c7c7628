"""The pull of the model's image ahead of time, and what a waiting pod is said to wait for."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gpurunbook import preview
from gpurunbook.config import Taint, load_cluster
from gpurunbook.deployment import RUN_LABEL, derive, names
from gpurunbook.errors import ConfigError, RunbookError
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
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dolly:1"
AT = datetime(2026, 11, 22, 12, 3, 4, tzinfo=UTC)


# The manifest

def test_it_has_the_models_image_and_place_and_none_of_its_labels() -> None:
    assert DOCUMENT["kind"] == "DaemonSet"
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
    named = "dolly-prepull"
    hidden = False
    events: tuple[Any, ...] = ()

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
                               list_namespaced_event=lambda *args, **options: SimpleNamespace(items=list(self.events)))

    def client(self, group: str) -> Any:
        from kubernetes.client import ApiException

        def daemonset(name: str, *args: Any, **options: Any) -> Any:
            if self.hidden:
                raise ApiException(status=403, reason="Forbidden")
            if not self.pulls or name != self.named:
                raise ApiException(status=404)
            spec = SimpleNamespace(template=SimpleNamespace(spec=SimpleNamespace(containers=[SimpleNamespace(image=self.pulls)])))
            return SimpleNamespace(metadata=SimpleNamespace(name=name, labels=self.labels), spec=spec)

        def none(*args: Any, **options: Any) -> Any:
            raise ApiException(status=404)

        return SimpleNamespace(read_namespaced_daemon_set=daemonset, read_namespaced_deployment=none)

    def ask(self, command: Any, check: bool = True) -> Any:
        assert "diff" in command.argv
        assert not (self.hidden and "prepull" in f"{command.short}{command.stdin}"), "who may not read may not compare"
        return SimpleNamespace(code=self.diff)


def cluster(folder: Path, stage: str = "taint", *, ours: bool = True, nodes: int = 1, has: str = "", ready: str = "",
            pulls: str = "", labels: dict[str, str] | None = None, diff: int = 0, hidden: bool = False) -> Cluster:
    folder.mkdir(exist_ok=True)
    made = Cluster(ROOT, folder, Rehearsal() if ours else Existing(), CLUSTER, stage)
    made.kubeconfig.touch()
    made.images = {f"n{i}": [has] if has else [] for i in range(nodes)}
    made.ready, made.pulls, made.labels, made.diff, made.hidden = ready, pulls, labels or {}, diff, hidden
    return made


def noted(run: Run, **given: Any) -> pulling.Facts:
    """What the cell of 04 does before it plans."""
    facts = pulling.observe(run, **given)
    pulling.noted(run, facts)
    return facts


def test_the_manifest_is_applied_as_it_is_and_a_failure_does_not_end_the_plan(tmp_path: Path) -> None:
    run = cluster(tmp_path)
    (command,) = made = plan(run, pulling.observe(run, image=""))
    assert command.short == f"kubectl apply -f {ROOT}/manifests/model/prepull.yaml"
    assert command.otherwise
    assert f"{OURS} is pulled on n0 while" in made.reason
    assert made.files == {}


def test_the_daemonset_goes_by_the_name_that_its_manifest_gives_it(tmp_path: Path) -> None:
    """In the plans, in what a teardown takes, and in what 06 ends."""
    for folder in ("model", "gpu-operator"):
        shutil.copytree(ROOT / "manifests" / folder, tmp_path / "manifests" / folder)
    file = tmp_path / "manifests/model/prepull.yaml"
    file.write_text(file.read_text().replace("name: dolly-prepull", "name: early", 1))
    run = cluster(tmp_path / "r", "model", pulls="other:1", diff=1)
    run.root, run.named = tmp_path, "early"
    assert pulling.made(run) == "early"
    assert [c.shown[3] for c in end(run, pulling.look(run))] == ["early"]
    assert [c.shown[3] for c in model.plan(run, model.observe(run, image="mine:1", weights="image"))][:1] == ["early"]
    assert [c.shown[3] for c in plan(run, noted(run, image=""))] == [str(file)]


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
    ({"nodes": 4}, "", True, 1, "is pulled on n0 and n1 and n2 and n3 while"),
    ({"nodes": 5}, "", True, 0, "5 nodes would pull what one needs"),
    ({"nodes": 1, "ours": False}, "", True, 1, "is pulled on n0 while"),
    ({"nodes": 2, "ours": False}, "", True, 0, "2 nodes of somebody else's would pull what one needs"),
    ({"nodes": 0}, "", True, 0, "no GPU node is there"),
    ({"hidden": True}, "", True, 0, "does not let DaemonSets be read"),
    ({"hidden": True, "ours": False}, "mine:1", True, 0, "does not let DaemonSets be read"),
    ({}, "", False, 0, "not asked for"),
    ({"pulls": OURS}, "", False, 1, "not asked for"),
    ({"pulls": OURS, "ours": False}, "", True, 0, "did not make"),
    ({"pulls": OURS, "ours": False}, "", False, 0, "did not make"),
])
def test_nothing_is_pulled_without_need(tmp_path: Path, there: dict[str, Any], image: str, wanted: bool, commands: int,
                                        words: str) -> None:
    run = cluster(tmp_path, **there)
    noted(run)
    made = plan(run, pulling.observe(run, image=image, wanted=wanted))
    assert len(made.commands) == commands
    assert words in made.reason


def test_what_nobody_wanted_or_wants_is_not_asked_for(tmp_path: Path) -> None:
    class Deaf(Cluster):
        core = property(lambda self: pytest.fail("asked"))  # type: ignore[assignment]

        def client(self, group: str) -> Any:
            pytest.fail("asked")

    run = cluster(tmp_path)
    run.__class__ = Deaf
    made = plan(run, noted(run, image="mine:1", wanted=False))
    assert (made.commands, made.reason.partition(";")[0]) == ((), "not asked for")
    assert run.journal.last("prepull") is None


def test_somebody_who_may_not_read_daemonsets_gets_through_06_and_the_teardown(tmp_path: Path) -> None:
    run = cluster(tmp_path, "model", hidden=True, diff=1)
    facts = model.observe(run, image="mine:1", weights="image")
    assert [c.shown[1] for c in model.plan(run, facts)] == ["apply"]
    assert not end(run, pulling.look(run))
    assert pulling.made(run) is None
    run.journal.append("prepull", image="*/mine:1")
    with pytest.raises(RunbookError, match="not known any more"):
        pulling.observe(run)


@pytest.mark.parametrize("kind", [Rehearsal(), Existing()])
def test_other_refusals_than_of_reading_daemonsets_are_errors(tmp_path: Path, kind: Any) -> None:
    from kubernetes.client import ApiException

    def broken(*args: Any, **options: Any) -> Any:
        raise ApiException(status=500, reason="Internal")

    def refused(*args: Any, **options: Any) -> Any:
        raise ApiException(status=403, reason="Forbidden")

    run = cluster(tmp_path)
    run.client = lambda group: SimpleNamespace(  # type: ignore[method-assign]
        read_namespaced_daemon_set=broken, read_namespaced_deployment=refused)
    with pytest.raises(RunbookError, match="the daemonset dolly-prepull cannot be read: Internal"):
        pulling.made(run)
    with pytest.raises(RunbookError, match="the deployment dolly-v2-deployment cannot be read: Forbidden"):
        model.made(run)


# What `gpurunbook plan` tells

def shown(run: Run) -> list[str]:
    return [command.short for one in preview.beside(run) for command in one]


def test_the_preview_of_04_goes_by_the_image_that_04_was_given(tmp_path: Path) -> None:
    noted(cluster(tmp_path), image="mine:1")
    run = cluster(tmp_path)
    assert shown(run) == [f"kubectl apply -f {tmp_path}/artifacts/prepull.yaml"]
    there = cluster(tmp_path, pulls="mine:1")
    assert shown(there) == []
    assert [r["kind"] for r in run.journal.records()] == ["prepull"]


def test_the_preview_of_06_tells_that_the_pull_ends_and_no_command_twice(tmp_path: Path) -> None:
    run = cluster(tmp_path, "model", pulls=OURS)
    assert shown(run) == ["kubectl delete daemonset dolly-prepull -n default --ignore-not-found"]
    other = cluster(tmp_path, "model", pulls="other:1", diff=1)
    row = preview.joined([model.plan(other, model.observe(other)), *preview.beside(other)])
    assert [words.split()[1] for words in row["shown"]] == ["delete", "apply"]
    assert [argv[3] for argv in row["commands"]] == ["delete", "apply"]
    assert "nothing has to be pulled any more" in row["reason"]


def test_what_the_preview_cannot_know_does_not_hide_the_rest(tmp_path: Path) -> None:
    noted(cluster(tmp_path), image=ECR)
    (told,) = preview.beside(cluster(tmp_path))
    assert not told
    assert told.reason.startswith("known later: which account's registry")


def test_without_an_image_04_goes_by_the_one_it_was_given_before(tmp_path: Path) -> None:
    """As `gpurunbook plan` asks."""
    assert pulling.observe(cluster(tmp_path)).pull.image == OURS
    noted(cluster(tmp_path), image="mine:1")
    assert pulling.observe(cluster(tmp_path)).pull.image == "mine:1"
    assert pulling.observe(cluster(tmp_path), image="").pull.image == OURS


def test_to_look_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    run = cluster(tmp_path, "model", pulls=OURS)
    run.events = tuple(SimpleNamespace(reason=reason, message=reason, event_time=None,
                                       first_timestamp=AT.replace(hour=hour - 1), last_timestamp=AT.replace(hour=hour))
                       for hour, reason in ((1, "Pulling"), (2, "Pulled")))
    run.stage = "taint"
    for wanted in (True, False):
        plan(run, pulling.observe(run, image="mine:1", wanted=wanted))
    pull = pulling.look(run)
    end(run, pull)
    assert list(run.journal.records()) == []
    noted(run, image="mine:1", wanted=True)
    pulling.timed(run, pull)
    pulling.timed(run, pull)
    record, again = run.journal.records()
    assert (record["kind"], record["image"]) == ("prepull", "mine:1")
    assert {key: again[key] for key in ("kind", "stage", "node", "image", "began", "ended")} == {
        "kind": "pull", "stage": "taint", "node": "n0", "image": OURS, "began": "2026-11-22T00:03:04+00:00",
        "ended": "2026-11-22T02:03:04+00:00"}


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
    noted(cluster(tmp_path), image="mine:1")
    later = cluster(tmp_path, "model", pulls="mine:1")
    assert model.image_of(model.wanted(later, "", "image")) == "mine:1"
    assert model.image_of(model.wanted(later, "other:1", "image")) == "other:1"
    assert pulling.look(later).image == "other:1"
    noted(cluster(tmp_path), image="unwanted:1", wanted=False)
    assert model.image_of(model.wanted(later, "", "image")) == "other:1", "what 06 was given since then"
    noted(cluster(tmp_path), image="mine:1")
    assert model.image_of(model.wanted(later, "", "image")) == "mine:1"
    noted(cluster(tmp_path), image="")
    assert model.image_of(model.wanted(cluster(tmp_path, "model"), "", "image")) == OURS


def test_06_does_not_need_an_image_that_04_was_given_before_it(tmp_path: Path) -> None:
    """The journal hides the account id in it, and no object has it any more."""
    noted(cluster(tmp_path), image=ECR)
    with pytest.raises(RunbookError, match="not known any more"):
        model.wanted(cluster(tmp_path, "model"), "")
    run = cluster(tmp_path, "model")
    model.wanted(run, "other:1")
    assert model.image_of(model.wanted(run, "")) == "other:1"
    assert model.image_of(model.wanted(cluster(tmp_path, "model"))) == "other:1"
    noted(cluster(tmp_path), image="mine:1")
    model.wanted(run, "other:1")
    assert model.image_of(model.wanted(run, "")) == "other:1", "06 was told so once more, after 04"


def test_a_wrong_image_is_refused_and_not_noted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name of an image"):
        noted(cluster(tmp_path), image="A B")
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
    ("registry.example/irbull/dolly:0.2", OURS, True), (OURS, OURS, True), ("registry.example/x/irbull/dolly:0.2", OURS, False),
    ("x/irbull/dolly:0.2", OURS, False), ("registry.example/evil/dolly:1", "dolly:1", False),
    ("registry.example/x/evil/dolly:1", "dolly:1", False), ("registry.example/library/dolly:1", "dolly:1", True),
    ("localhost/library/dolly:1", "dolly:1", True), ("registry.example/dolly:1", "dolly:1", False),
    ("host:5000/mine:1", "host:5000/mine:1", True), ("other.example/host/mine:1", "host.example/mine:1", False),
    ("registry.example/host.example/mine:1", "host.example/mine:1", False),
    ("registry.example/notirbull/dolly:0.2", OURS, False), ("registry.example/irbull/dolly:0.20", OURS, False),
    ("registry.example/library/mine:latest", "mine", True), ("registry.example/library/mine:1", "mine", False),
    ("host:5000/mine:latest", "host:5000/mine", True), ("a@sha256:00", "a@sha256:00", True),
    ("r.example/x@sha256:00", "r.example/x:1@sha256:00", True), ("r.example/x@sha256:11", "r.example/x:1@sha256:00", False),
    ("r.example/x:1", "r.example/x:1@sha256:00", False), ("r.example/library/x@sha256:00", "x:1@sha256:00", True),
    ("r.example:5000/x@sha256:00", "r.example:5000/x@sha256:00", True),
])
def test_a_nodes_image_is_known_by_its_whole_name(there: str, image: str, found: bool) -> None:
    assert has([there], image) == found


def test_the_table_shows_each_node(tmp_path: Path) -> None:
    run = cluster(tmp_path, "model", nodes=2, pulls=OURS)
    run.images["n1"] = [OURS]
    assert dict(pulling.look(run).nodes) == {"n0": "scheduled on n0; no event says more", "n1": "pulled"}
    assert "nothing pulls it ahead" in repr(pulling.look(cluster(tmp_path, "model")).table)


# What a pod waits for

PULLING = Event("Pulling", 'Pulling image "mine:1"', AT)


@pytest.mark.parametrize(("node", "why", "events", "said"), [
    ("", "Unschedulable: 0/3 nodes are available", [], "Unschedulable: 0/3 nodes are available"),
    ("n", "ContainerCreating", [], "scheduled on n; no event says more"),
    ("n", "ContainerCreating", None, "scheduled on n; its events cannot be read"),
    ("n", "ContainerCreating", [Event("Scheduled", "x", AT)], "scheduled on n; its image is not being pulled yet"),
    ("n", "ContainerCreating", [PULLING], 'pulling image "mine:1", since 12:03:04 UTC'),
    ("n", pod_events.STARTING, [PULLING, Event("Pulled", "x", AT)], "its image is there; the container is starting"),
    ("n", pod_events.STARTING, [PULLING, Event("Pulled", "x", AT), Event("Started", "x", AT)], "started, and not ready yet"),
    ("n", "ContainerCreating", [Event("Pulled", "x", AT), PULLING], 'pulling image "mine:1", since 12:03:04 UTC'),
    ("n", "ImagePullBackOff: no space left on device", [PULLING], "ImagePullBackOff: no space left on device"),
])
def test_progress_tells_scheduled_pulling_and_starting(node: str, why: str, events: list[Event] | None, said: str) -> None:
    assert progress(node, why, lambda: events) == said


def test_events_are_read_in_order_and_may_be_forbidden(tmp_path: Path) -> None:
    from kubernetes.client import ApiException
    run = cluster(tmp_path)

    class Core(Cluster):
        @property
        def core(self) -> Any:  # type: ignore[override]
            def event(reason: str, hour: int) -> Any:
                return SimpleNamespace(reason=reason, message=reason, last_timestamp=None, first_timestamp=None,
                                       event_time=AT.replace(hour=hour))

            def listed(namespace: str, field_selector: str, **options: Any) -> Any:
                if field_selector != "involvedObject.uid=u":
                    raise ApiException(status=403)
                return SimpleNamespace(items=[event("Pulled", 2), event("Pulling", 1)])

            return SimpleNamespace(list_namespaced_event=listed)

    run.__class__ = Core
    assert [e.reason for e in pod_events.of(run, "u")] == ["Pulling", "Pulled"]
    assert pod_events.of(run, "v") is None
