"""Target `existing`: whose is what, which nodes have GPUs, and what the run takes over. The API's objects are fakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gpurunbook.command import Command, Result
from gpurunbook.config import ClusterConfig, NodeGroup, load_cluster
from gpurunbook.deployment import RUN_LABEL
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.programs.helm import Release
from gpurunbook.runbook import Run
from gpurunbook.stages import gpu_operator, nodes, pulling, taint
from gpurunbook.targets import ClusterState, Part, Wishes, adoption
from gpurunbook.targets.existing import Existing
from gpurunbook.targets.rehearsal.cluster import Rehearsal

ROOT = Path(__file__).resolve().parents[2]
TYPE = "node.kubernetes.io/instance-type"
PCI = "feature.node.kubernetes.io/pci-10de.present"
ADOPTED = {"file": "/their.config", "context": "work", "server": "https://s", "selector": "pool=gpu", "os": "Ubuntu 24.04 LTS",
           "version": "1.36.3", "gpu_taints": ["NoSchedule"]}
THERE = ClusterState((Part("context work", "running"),), True, ("a",), ())


def node(name: str, gpus: int = 0, taints: tuple[tuple[str, str], ...] = (), **labels: str) -> adoption.Node:
    both = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels}
    return adoption.Node(name, both, gpus, taints, "Ubuntu", "1.36")


def meta(name: str, namespace: str = "", labels: Any = None, annotations: Any = None, owners: tuple[Any, ...] = (),
         going: Any = None) -> Any:
    """`owners`: (apiVersion, kind, uid) each; the uid of an object is its name."""
    refs = [SimpleNamespace(api_version=version, kind=kind, uid=uid) for version, kind, uid in owners]
    return SimpleNamespace(name=name, namespace=namespace, labels=labels, annotations=annotations, uid=name,
                           owner_references=refs or None, deletion_timestamp=going)


class Api:
    """Answers `list_*` with the objects given; what was not given is an empty list."""

    def __init__(self, **lists: list[Any]) -> None:
        self.lists = lists

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: SimpleNamespace(items=[SimpleNamespace(metadata=m, type=(m.labels or {}).get("type", ""))
                                                               for m in self.lists.get(name, [])])

    def read_namespaced_deployment(self, name: str, namespace: str, **options: Any) -> Any:
        return self.read("deployment", name, namespace)

    def read_namespaced_daemon_set(self, name: str, namespace: str, **options: Any) -> Any:
        return self.read("daemon_set", name, namespace)

    def read(self, kind: str, name: str, namespace: str) -> Any:
        from kubernetes.client import ApiException
        found = [m for m in self.lists.get(f"list_{kind}_for_all_namespaces", []) if (m.name, m.namespace) == (name, namespace)]
        if not found:
            raise ApiException(status=404)
        return SimpleNamespace(metadata=found[0])

    def list_custom_resource_definition(self, **options: Any) -> Any:
        versions = [SimpleNamespace(name="v0", served=False), SimpleNamespace(name="v1", served=True)]
        return SimpleNamespace(items=[SimpleNamespace(metadata=m, spec=SimpleNamespace(
            group=m.namespace, versions=versions, names=SimpleNamespace(plural=m.name.partition(".")[0])))
            for m in self.lists.get("crds", [])])

    def list_cluster_custom_object(self, group: str, version: str, plural: str, **options: Any) -> Any:
        assert version == "v1"
        return {"items": self.lists.get(f"{plural}.{group}", [])}


class Guest(Run):
    """A run on somebody's cluster, whose API answers from `api`."""

    def __init__(self, folder: Path, stage: str, api: Api, *, adopted: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(ROOT, folder, Existing(), load_cluster(ROOT / "cluster.yaml"), stage)
        self.api = api
        self.__dict__["core"] = api
        if adopted:
            self.kubeconfig.write_text("current-context: work\n")
            self.journal.append("existing", **ADOPTED)

    def client(self, group: str) -> Any:
        return self.api

    def program(self, name: str) -> str:
        return f"/bin/{name}"

    def ask(self, command: Command, check: bool = True) -> Result:
        raise AssertionError(f"nothing is to be asked: {command.short}")


@pytest.fixture
def guest(tmp_path: Path) -> Callable[..., Guest]:
    def make(stage: str = "teardown", *, adopted: bool = True, **lists: list[Any]) -> Guest:
        return Guest(tmp_path / "guest", stage, Api(**lists), adopted=adopted)
    return make


def installed(run: Guest, *, release: bool = False, namespace: bool = False, definitions: tuple[str, ...] = ()) -> None:
    """The journal of a run whose 05 found this, and installed the release."""
    run.journal.append("operator", release=release, namespace=namespace, definitions=list(definitions))
    run.journal.append("intent", id="i", stage="gpu_operator", changes=True, shown="",
                       argv=["helm", "upgrade", "--install", "gpu-operator", "nvidia/gpu-operator"])
    run.journal.append("result", id="i", code=0)


# The kubeconfig

def kubeconfig(folder: Path, **changes: Any) -> Path:
    file = folder / "theirs"
    contexts = [{"name": "work", "context": {"cluster": "c"}}, {"name": "torn", "context": {"cluster": "gone"}}]
    file.write_text(yaml.safe_dump({"clusters": [{"name": "c", "cluster": {"server": "https://s"}}], "current-context": "work",
                                    "contexts": contexts, **changes}))
    return file


def test_a_context_is_found_by_name_or_is_the_current_one(tmp_path: Path) -> None:
    assert adoption.find(kubeconfig(tmp_path), "work") == ("work", "https://s")
    assert adoption.find(kubeconfig(tmp_path), "") == ("work", "https://s")


@pytest.mark.parametrize(("changes", "context", "what", "next"), [
    ({}, "wrok", "no context 'wrok'", "one of: work"),
    ({}, "torn", "no context 'torn'", "one of: torn"),
    ({"current-context": None}, "", "no current context", "one of: work, torn"),
    ({"contexts": None}, "work", "no context 'work'", "none at all"),
    ({"clusters": "secret"}, "work", "no kubeconfig", "~/.kube/config"),
])
def test_a_context_that_cannot_be_had_is_said(tmp_path: Path, changes: dict[str, Any], context: str, what: str,
                                                  next: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adoption.find(kubeconfig(tmp_path, **changes), context)
    assert what in caught.value.what
    assert next in caught.value.next
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        adoption.find(tmp_path / "none", "")


def keep(file: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gpurunbook.targets.existing", str(file), "--", *argv], cwd=ROOT, text=True,
                          capture_output=True, timeout=60, check=False)


def test_what_a_command_prints_is_kept_privately_and_not_shown(tmp_path: Path) -> None:
    done = keep(tmp_path / "kubeconfig", "echo", "token: s3cret")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "kubeconfig").read_text() == "token: s3cret\n"
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o777 == 0o600
    assert [f.name for f in tmp_path.iterdir()] == ["kubeconfig"]


def test_a_command_that_fails_keeps_nothing(tmp_path: Path) -> None:
    done = keep(tmp_path / "kubeconfig", "cat", "/no/such/file")
    assert done.returncode == 1
    assert "/no/such/file" in done.stderr
    assert not list(tmp_path.iterdir())


# The GPU nodes

@pytest.mark.parametrize(("found", "selector"), [
    ([node("a", **{PCI: "true"}), node("b", 1)], f"{PCI}=true"),
    ([node("a", **{"feature.node.kubernetes.io/pci-0302_10de.present": "true"})],
     "feature.node.kubernetes.io/pci-0302_10de.present=true"),
    ([node("a", **{PCI: "false"}), node("b", **{"nvidia.com/gpu.present": "true"})], "nvidia.com/gpu.present=true"),
    ([node("a", 1), node("b")], "kubernetes.io/hostname=a"),
    ([node("a", 1, **{TYPE: "g"}), node("b", 2, **{TYPE: "g"}), node("c")], f"{TYPE}=g"),
    ([node("a", 1, zz="1", pool="gpu"), node("b", 1, zz="1", pool="gpu"), node("c", zz="0")], "pool=gpu"),
])
def test_gpu_nodes_are_found_by_a_label(found: list[adoption.Node], selector: str) -> None:
    assert adoption.choose(found, "") == selector


@pytest.mark.parametrize(("found", "selector", "what"), [
    ([node("a"), node("b")], "", "no node says that it has an NVIDIA GPU"),
    ([node("a", 1), node("b", 1), node("c")], "", "no label tells the 2 nodes"),
    ([node("a", pool="gpu")], "pool=cpu", "no node carries pool=cpu"),
    ([node("a", pool="gpu")], "pool", "is no selector"),
    ([node("a", pool="gpu")], "pool=gpu,", "is no selector"),
    ([node("a", pool="gpu")], "pool=gpu -A", "is no selector"),
])
def test_a_selector_that_cannot_be_had_is_said(found: list[adoption.Node], selector: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        adoption.choose(found, selector)


def test_a_selector_of_two_labels_picks_nodes_with_both() -> None:
    found = [node("a", pool="gpu", zone="x"), node("b", pool="gpu"), node("c", zone="x")]
    assert [n.name for n in adoption.picked(found, adoption.choose(found, "pool=gpu,zone=x"))] == ["a"]


# What later stages see

def test_before_a_cluster_is_taken_over_cluster_yaml_counts_without_its_dates(tmp_path: Path) -> None:
    cluster = load_cluster(ROOT / "cluster.yaml").model_copy(update={"warnings": ("old",)})
    described = Existing().describe(tmp_path, cluster)
    assert (described.groups, described.warnings) == (cluster.groups, ())


def test_a_cluster_taken_over_is_one_group_of_gpu_nodes(guest: Callable[..., Guest]) -> None:
    run = guest()
    cluster = run.target.describe(run.folder, run.cluster)
    assert (cluster.name, cluster.region, cluster.version) == ("work", "", "1.36.3")
    group = cluster.gpu_group
    assert (group.selector, group.picks, cluster.gpu_stack) == ("pool=gpu", {"pool": "gpu"}, "ubuntu")
    assert [(t.key, t.effect) for t in group.taints] == [("nvidia.com/gpu", "NoSchedule")]
    seen = [nodes.Node(name, group.name, True, True, "", "", 1, (), {}, "", "") for name in "abc"]
    assert nodes.check(group, seen).state == "pass"
    assert nodes.check(group, []).state == "fail"


def v1_node(**labels: str) -> Any:
    none = SimpleNamespace(conditions=[], allocatable={"nvidia.com/gpu": "2"}, node_info=SimpleNamespace(kubelet_version="v1"))
    return SimpleNamespace(metadata=SimpleNamespace(name="n", labels=labels), status=none,
                           spec=SimpleNamespace(taints=None, provider_id=None))


def test_a_node_belongs_to_the_group_whose_selector_picks_it(guest: Callable[..., Guest]) -> None:
    run, file = guest(), load_cluster(ROOT / "cluster.yaml")
    adopted = run.target.describe(run.folder, file)

    def groups(cluster: ClusterConfig, **labels: str) -> tuple[str, bool]:
        found = nodes._node(v1_node(**labels), cluster.groups)
        return found.group, found.gpu

    assert groups(adopted, pool="gpu") == ("pool=gpu", True)
    assert groups(adopted, pool="cpu") == ("", False)
    assert groups(file, **{"alpha.eksctl.io/nodegroup-name": "gpu-workers"}) == ("gpu-workers", True)
    assert groups(file, **{"alpha.eksctl.io/nodegroup-name": "cpu-workers"}) == ("cpu-workers", False)
    assert groups(file, **{"eks.amazonaws.com/nodegroup": "gpu-workers"}) == ("gpu-workers", True)
    assert groups(file, **{"eks.amazonaws.com/nodegroup": "unknown"}) == ("unknown", False)


def test_a_group_of_cluster_yaml_has_exactly_its_nodes_unless_it_may_grow() -> None:
    fixed = load_cluster(ROOT / "cluster.yaml").groups[1]
    growing = fixed.model_copy(update={"max": 3})

    def state(group: NodeGroup, count: int) -> str:
        seen = [nodes.Node(str(i), group.name, False, True, "", "", 0, (), {}, "", "") for i in range(count)]
        return nodes.check(group, seen).state

    assert [state(fixed, n) for n in (1, 2, 3)] == ["fail", "pass", "fail"]
    assert [state(growing, n) for n in (1, 2, 3, 4)] == ["fail", "pass", "pass", "fail"]


def test_credentials_of_every_cloud_are_passed_on_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AZURE_CONFIG_DIR", "CLOUDSDK_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "MY_AWS_KEY"):
        monkeypatch.setenv(name, "x")
    passed = Existing().passes_on
    assert {"AWS_PROFILE", "AZURE_CONFIG_DIR", "CLOUDSDK_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"} <= set(passed)
    assert "MY_AWS_KEY" not in passed


# Taking over

def test_without_a_kubeconfig_it_is_said_how_one_is_given(guest: Callable[..., Guest]) -> None:
    run = guest("provision", adopted=False)
    state = run.target.observe(run)
    assert not state.complete
    with pytest.raises(ConfigError, match="which cluster") as caught:
        run.target.create(run, state, Wishes())
    assert "--kubeconfig FILE --context NAME" in caught.value.next


@pytest.mark.parametrize("wishes", [Wishes(context="other"), Wishes(kubeconfig="/other")])
def test_a_run_has_one_cluster(guest: Callable[..., Guest], wishes: Wishes) -> None:
    run = guest("provision")
    with pytest.raises(ConfigError, match="walks through context work of /their"):
        run.target.create(run, THERE, wishes)


def test_a_context_that_holds_an_account_id_is_read_from_the_kubeconfig(guest: Callable[..., Guest]) -> None:
    run = guest()
    run.kubeconfig.write_text("current-context: arn:aws:eks:eu-central-1:123456789012:cluster/theirs\n")
    assert run.target.context(run) == "arn:aws:eks:eu-central-1:123456789012:cluster/theirs"


# The taint

STUCK = f"{taint.UNINITIALIZED}:NoSchedule"


def tainted(name: str, *taints: str, where: str = "aws:///a/i", **labels: str) -> nodes.Node:
    return nodes.Node(name, "pool=gpu", True, True, "", "a", 0, taints, {"pool": "gpu", **labels}, where, "")


@pytest.mark.parametrize(("found", "shown"), [
    ([tainted("a", STUCK), tainted("b", STUCK)], f"kubectl taint nodes -l pool=gpu {taint.UNINITIALIZED}-"),
    ([tainted("a", STUCK), tainted("b")], f"kubectl taint nodes a {taint.UNINITIALIZED}-"),
    ([tainted("a"), tainted("b", STUCK), tainted("c", STUCK)], f"kubectl taint nodes b c {taint.UNINITIALIZED}-"),
    ([tainted("a", STUCK, pool="other")], f"kubectl taint nodes a {taint.UNINITIALIZED}-"),
])
def test_the_selector_is_used_only_where_each_of_its_nodes_is_stuck(guest: Callable[..., Guest], found: list[nodes.Node],
                                                                    shown: str) -> None:
    run = guest("taint")
    run.cluster = run.target.describe(run.folder, run.cluster)
    assert [c.short for c in taint.plan(run, found)] == [shown]


def aged(name: str, seconds: float) -> Any:
    return SimpleNamespace(name=name, labels={}, creation_timestamp=datetime.now(UTC) - timedelta(seconds=seconds))


def test_a_new_node_is_left_to_the_clusters_own_cloud_controller(guest: Callable[..., Guest]) -> None:
    run = guest("taint", list_node=[aged("new", 5), aged("old", 600), aged("placed", 5)])
    run.cluster = run.target.describe(run.folder, run.cluster)
    new, old, placed = tainted("new", STUCK, where=""), tainted("old", STUCK, where=""), tainted("placed", STUCK)
    plan = taint.plan(run, [new, old, placed])
    assert [c.short for c in plan] == [f"kubectl taint nodes old placed {taint.UNINITIALIZED}-"]
    assert "left to the cloud controller, since younger than 60 s: new" in plan.reason
    only = taint.plan(run, [new, tainted("free")])
    assert (only.commands, only.reason) == ((), "left to the cloud controller, since younger than 60 s: new")
    assert taint.young(run, [new, old, placed]) == [new]
    run.target = Rehearsal()
    assert taint.young(run, [new, old, placed]) == [], "on a cluster of our own we know that nobody comes"


@pytest.mark.parametrize(("age", "state"), [(5, "warn"), (600, "fail")])
def test_a_taint_that_is_left_warns_while_its_node_is_new(guest: Callable[..., Guest], age: float, state: str) -> None:
    run = guest("taint")
    run.cluster = run.target.describe(run.folder, run.cluster)
    item = v1_node(pool="gpu")
    item.metadata.creation_timestamp = aged("n", age).creation_timestamp
    item.spec.taints = [SimpleNamespace(key=taint.UNINITIALIZED, effect="NoSchedule")]
    run.api.list_node = lambda **options: SimpleNamespace(items=[item])  # type: ignore[attr-defined]
    check = taint.verify(run)[0]
    assert (check.state, check.evidence.split()[0]) == (state, "n")
    item.spec.taints = None
    assert taint.verify(run)[0].state == "pass"


# Whose is the operator?

def test_a_release_is_ours_only_if_it_was_not_there_and_05_installed_it(guest: Callable[..., Guest]) -> None:
    run = guest("gpu_operator")
    assert not gpu_operator.made(run)
    run.journal.append("operator", release=False, namespace=True, definitions=[])
    assert not gpu_operator.made(run), "05 has only looked"
    installed(run, namespace=True)
    assert gpu_operator.made(run)
    assert not gpu_operator.made_namespace(run)
    run.journal.append("operator", release=True, namespace=True, definitions=[])
    assert not gpu_operator.made(run)


def test_what_an_earlier_life_of_the_run_installed_is_not_ours_now(guest: Callable[..., Guest]) -> None:
    run = guest("gpu_operator")
    installed(run)
    run.journal.append("run", state="finished")
    run.journal.append("operator", release=False, namespace=False, definitions=[])
    assert not gpu_operator.made(run)
    assert not gpu_operator.made_namespace(run)
    assert "has its own" in gpu_operator._others(run, None, "ready", [])


@pytest.mark.parametrize(("release", "policy", "gpus", "said"), [
    (True, "ready", 1, "was there before this run"),
    (False, "", 1, "has its own: 1 nvidia.com/gpu allocatable, ClusterPolicy absent"),
    (False, "notReady", 0, "ClusterPolicy notReady"),
    (False, "", 0, ""),
])
def test_what_others_have_seen_to_is_left_to_them(guest: Callable[..., Guest], release: bool, policy: str, gpus: int,
                                                  said: str) -> None:
    run = guest("gpu_operator")
    found = Release("gpu-operator", "deployed", "gpu-operator-v26.7.0", 1) if release else None
    seen = [nodes.Node("a", "g", True, True, "", "", gpus, (), {}, "", "")]
    others = gpu_operator._others(run, found, policy, seen)
    assert said in others
    assert bool(others) is bool(said)
    installed(run)
    assert gpu_operator._others(run, found, policy, seen) == ""


def test_objects_of_nvidias_kinds_are_somebodys_operator(guest: Callable[..., Guest]) -> None:
    kinds = [meta("gpuclusters.nvidia.com", "nvidia.com"), meta("nvidiadrivers.nvidia.com", "nvidia.com"),
             meta("nodefeatures.nfd.k8s-sigs.io", "nfd.k8s-sigs.io")]
    seen: dict[str, list[Any]] = {"crds": kinds, "nodefeatures.nfd.k8s-sigs.io": [{}]}
    run = guest("gpu_operator", **seen)
    assert gpu_operator._others(run, None, "", []) == ""
    run.api.lists = {**seen, "gpuclusters.nvidia.com": [{}]}
    others = gpu_operator._others(run, None, "", [])
    assert others == "others have objects of NVIDIA's in the cluster: gpuclusters.nvidia.com"
    facts = gpu_operator.Facts(CHART, None, {}, "", (), others)
    plan = gpu_operator.plan(run, facts)
    assert not plan
    assert "gpuclusters.nvidia.com: nothing is installed" in plan.reason


def test_kinds_that_may_not_be_looked_into_stop_05(guest: Callable[..., Guest]) -> None:
    from kubernetes.client import ApiException

    def refused(*args: Any, **options: Any) -> Any:
        raise ApiException(status=403, reason="Forbidden")

    run = guest("gpu_operator", crds=[meta("gpuclusters.nvidia.com", "nvidia.com")])
    run.api.list_cluster_custom_object = refused  # type: ignore[method-assign]
    with pytest.raises(RunbookError, match=r"whether others use gpuclusters\.nvidia\.com cannot be read: Forbidden"):
        gpu_operator._others(run, None, "", [])


CHART = gpu_operator.Chart("nvidia", "u", "v26.7.0", "gpu-operator", "gpu-operator", "/chart", "", True)
KEEP = ["--set", "operator.cleanupCRD=false"]


@pytest.mark.parametrize(("known", "flags", "values"), [
    ([], [], {"operator": {"cleanupCRD": True}}),
    (None, KEEP, {"operator": {"cleanupCRD": False}}),
    (["gpuclusters.nvidia.com"], KEEP, {"operator": {"cleanupCRD": False}}),
    (["nodefeatures.nfd.k8s-sigs.io"], [*KEEP, "--set", "nfd.enabled=false"],
     {"operator": {"cleanupCRD": False}, "nfd": {"enabled": False}}),
])
def test_the_chart_removes_its_crds_only_where_there_were_none(guest: Callable[..., Guest], known: list[str] | None,
                                                               flags: list[str], values: dict[str, Any]) -> None:
    run = guest("gpu_operator")
    run.cluster = run.target.describe(run.folder, run.cluster)
    run.journal.append("operator", release=False, namespace=False, definitions=known)
    (install,) = gpu_operator.plan(run, gpu_operator.Facts(CHART, None, {}, "", ()))
    after = next(i for i, word in enumerate(install.argv, 1) if word.startswith("--timeout="))
    assert list(install.argv[after:]) == flags
    assert install.short.endswith(" ".join([install.argv[after - 1], *flags]))
    file = yaml.safe_load((ROOT / "manifests" / "gpu-operator" / "ubuntu.yaml").read_text())
    there = Release("gpu-operator", "deployed", "gpu-operator-v26.7.0", 1)
    deployed = gpu_operator.Facts(CHART, there, {**file, **values}, "ready", ())
    assert not gpu_operator.plan(run, deployed), "a second run changes nothing"
    assert bool(gpu_operator.plan(run, gpu_operator.Facts(CHART, there, file, "ready", ()))) is bool(flags)


def test_before_05_has_looked_no_crd_is_given_up(guest: Callable[..., Guest]) -> None:
    run = guest()
    run.cluster = run.target.describe(run.folder, run.cluster)
    (install,) = gpu_operator.plan(run, gpu_operator.Facts(CHART, None, {}, "", ()))
    assert list(install.argv[-2:]) == KEEP


# Taking away

OPERATOR = {"meta.helm.sh/release-name": "gpu-operator"}


POLICY = ("nvidia.com/v1", "ClusterPolicy", "p")


def test_what_the_run_made_is_told_from_what_others_have() -> None:
    found = {"shop": meta("shop", "somebody"), "mine": meta("d", "default", {RUN_LABEL: "guest"}),
             "another run's": meta("d", "x", {RUN_LABEL: "other"}), "chart's": meta("c", "gpu-operator", annotations=OPERATOR),
             "operand": meta("o", "gpu-operator", owners=(POLICY,)), "stranger": meta("s", "gpu-operator"),
             "stranger's": meta("t", "gpu-operator", owners=(("example.com/v1", "Shop", "s"),)),
             "elsewhere": meta("e", "somebody", owners=(POLICY,))}
    strange = ["another run's", "elsewhere", "shop", "stranger", "stranger's"]
    assert adoption.foreign(found, "guest", "gpu-operator", "gpu-operator") == strange
    assert adoption.foreign(found, "guest", "gpu-operator", "") == sorted([*strange, "chart's", "operand"])


@pytest.mark.parametrize(("owners", "goes"), [
    ((POLICY,), True), ((("apps/v1", "ReplicaSet", "rs"),), True), ((("nfd.k8s-sigs.io/v1alpha1", "NodeFeature", "n"),), True),
    ((), False), ((("apps/v1", "ReplicaSet", "theirs"),), False), ((("example.com/v1", "ClusterPolicy", "p"),), False),
    ((("v1", "Node", "n"),), False), ((POLICY, ("example.com/v1", "Shop", "s")), False),
])
def test_owners_must_lead_to_the_release(owners: tuple[Any, ...], goes: bool) -> None:
    found = {"chart's": meta("d", annotations=OPERATOR), "rs": meta("rs", owners=(("apps/v1", "Deployment", "d"),)),
             "theirs": meta("theirs"), "it": meta("it", owners=owners)}
    assert ("it" in adoption.of_release(found, "gpu-operator")) is goes
    assert "it" not in adoption.of_release({**found, "it": meta("it", annotations={
        "meta.helm.sh/release-name": "theirs"})}, "gpu-operator")


def shown(run: Guest) -> list[str]:
    return [command.short for command in run.target.delete(run, THERE)]


def away(run: Guest) -> str:
    return f"rm -f {run.kubeconfig} {run.kubeconfig}.making"


def test_the_namespace_goes_if_the_run_made_it_and_the_kubeconfig_goes_last(guest: Callable[..., Guest]) -> None:
    run = guest(list_namespace=[meta("gpu-operator")],
                list_deployment_for_all_namespaces=[meta("o", "gpu-operator", annotations=OPERATOR), meta("shop", "somebody")])
    assert shown(run) == [away(run)], "05 did not run"
    installed(run, namespace=True)
    assert shown(run) == [away(run)]
    run.journal.append("operator", release=False, namespace=False, definitions=[])
    assert shown(run) == ["kubectl delete namespace gpu-operator --ignore-not-found", away(run)]


NAMESPACED = ["deployment", "daemon_set", "stateful_set", "replica_set", "job", "cron_job", "pod", "service", "config_map",
              "secret", "persistent_volume_claim"]


@pytest.mark.parametrize("kind", NAMESPACED)
def test_a_namespace_that_others_use_stays(guest: Callable[..., Guest], kind: str) -> None:
    theirs = meta("theirs", "gpu-operator", owners=(("example.com/v1", "Shop", "s"),))
    run = guest(list_namespace=[meta("gpu-operator")], **{f"list_namespaced_{kind}": [theirs]})
    installed(run)
    plan = run.target.delete(run, THERE)
    assert [c.short for c in plan] == [away(run)]
    assert "the namespace gpu-operator stays, since others use it" in plan.reason
    assert "theirs" in plan.reason
    check = next(c for c in run.target.left(run) if c.name == "the run's namespace is gone")
    assert check.state == "warn"
    assert "theirs" in check.evidence


def test_a_namespace_with_what_may_not_be_listed_stays(guest: Callable[..., Guest]) -> None:
    from kubernetes.client import ApiException

    def refused(*args: Any, **options: Any) -> Any:
        raise ApiException(status=403)

    run = guest(list_namespace=[meta("gpu-operator")])
    installed(run)
    run.api.list_namespaced_secret = refused  # type: ignore[attr-defined]
    plan = run.target.delete(run, THERE)
    assert [c.short for c in plan] == [away(run)]
    assert "every Secret (403: they cannot be listed)" in plan.reason


def test_what_comes_and_goes_with_a_namespace_or_a_release_does_not_keep_it(guest: Callable[..., Guest]) -> None:
    def kept(release: str, kind: str = "helm.sh/release.v1") -> Any:
        return meta(release, labels={"type": kind, "owner": "helm", "name": release})

    lists = {"list_namespaced_config_map": [meta("kube-root-ca.crt")], "list_namespaced_pod": [meta("old", going="now")],
             "list_namespaced_secret": [kept("gpu-operator"), kept("x", "kubernetes.io/service-account-token")]}
    run = guest(**lists)
    assert adoption.beside(run.client, "gpu-operator", "gpu-operator") == []
    run.api.lists = {**lists, "list_namespaced_secret": [kept("another"), kept("gpu-operator", "Opaque")]}
    assert adoption.beside(run.client, "gpu-operator", "gpu-operator") == ["Secret another", "Secret gpu-operator"]


def test_a_cluster_that_does_not_answer_keeps_its_kubeconfig(guest: Callable[..., Guest]) -> None:
    run = guest()
    with pytest.raises(RunbookError, match="does not answer: timed out"):
        run.target.delete(run, ClusterState((Part("context work", "dead", "timed out"),), False, (), ()))


def test_a_taint_that_was_removed_is_said_to_stay_so(guest: Callable[..., Guest]) -> None:
    run = guest()
    assert "put back" not in run.target.delete(run, THERE).reason
    run.journal.append("intent", id="p", stage="taint", changes=True, argv=["kubectl", "apply", "-f", "prepull.yaml"], shown="")
    run.journal.append("result", id="p", code=0)
    run.journal.append("intent", id="t", stage="taint", changes=True, argv=["kubectl", "taint", "nodes", "a"], shown="")
    assert "put back" not in run.target.delete(run, THERE).reason
    run.journal.append("result", id="t", code=0)
    assert "is not put back" in run.target.delete(run, THERE).reason


def states(run: Guest) -> dict[str, str]:
    return {check.name: check.state for check in run.target.left(run)}


def test_what_is_left_of_the_run_fails_the_teardown(guest: Callable[..., Guest]) -> None:
    run = guest(list_deployment_for_all_namespaces=[meta("dolly-v2-deployment", "default", {RUN_LABEL: "guest"})],
                list_daemon_set_for_all_namespaces=[meta("dolly-prepull", "default", {RUN_LABEL: "guest"})],
                list_namespaced_secret=[meta("sh.helm.release.v1.gpu-operator.v1", labels={
                    "type": "helm.sh/release.v1", "owner": "helm", "name": "gpu-operator"})],
                list_namespace=[meta("gpu-operator")],
                crds=[meta("clusterpolicies.nvidia.com", "nvidia.com"), meta("shops.example.com", "example.com")])
    installed(run)
    assert states(run) == {
        "the run's Deployment is gone": "fail", "its pre-pull and its smoke pods are gone": "fail",
        "the run's release is gone": "fail", "the chart's CRDs are gone": "warn", "the run's namespace is gone": "fail",
        "what others have in the cluster is there": "unknown", "the run's own kubeconfig is gone": "fail"}


def test_what_may_not_be_listed_is_unknown_and_never_ours(guest: Callable[..., Guest]) -> None:
    from kubernetes.client import ApiException

    def refused(**options: Any) -> Any:
        raise ApiException(status=403)

    run = guest("gpu_operator")
    run.api.list_namespace = refused  # type: ignore[method-assign]
    gpu_operator._note(run, "gpu-operator", None)
    argv = ["upgrade", "--install", "gpu-operator"]
    run.journal.append("intent", id="i", stage="gpu_operator", changes=True, shown="", argv=argv)
    assert gpu_operator.made(run)
    assert not gpu_operator.made_namespace(run)
    run = guest()
    run.api.list_namespace = refused  # type: ignore[method-assign]
    assert shown(run) == [away(run)]
    found = states(run)
    assert found["the chart's CRDs are gone"] == "unknown"
    assert found["what others have in the cluster is there"] == "unknown"


def beside(run: Run) -> tuple[str, str]:
    found = {check.name: check for check in run.target.left(run)}["its pre-pull and its smoke pods are gone"]
    return found.state, found.evidence


def test_somebody_who_may_not_read_daemonsets_is_told_that_and_goes_on(guest: Callable[..., Guest]) -> None:
    from kubernetes.client import ApiException

    def refused(*args: Any, **options: Any) -> Any:
        raise ApiException(status=403, reason="Forbidden")

    run = guest()
    assert beside(run)[0] == "pass"
    run.api.read_namespaced_daemon_set = refused  # type: ignore[method-assign]
    assert beside(run) == ("unknown", "none; DaemonSets: may not be read")
    assert pulling.made(run) is None


def test_an_image_that_was_pulled_is_said_to_stay(guest: Callable[..., Guest]) -> None:
    run = guest()
    assert "stays on its node" not in beside(run)[1]
    run.journal.append("intent", id="p", stage="taint", changes=True, argv=[], shown="kubectl apply -f prepull.yaml")
    assert beside(run) == ("pass", "none; an image that was pulled stays on its node until the kubelet needs the room")


def test_what_was_there_before_is_not_counted_as_left(guest: Callable[..., Guest]) -> None:
    run = guest(list_deployment_for_all_namespaces=[meta("dolly-v2-deployment", "default")],
                crds=[meta("clusterpolicies.nvidia.com", "nvidia.com")])
    installed(run, definitions=("clusterpolicies.nvidia.com",))
    run.target.delete(run, THERE)
    run.kubeconfig.unlink()
    assert set(states(run).values()) == {"pass"}


def theirs(run: Guest) -> tuple[str, str]:
    check = next(c for c in run.target.left(run) if c.name == "what others have in the cluster is there")
    return check.state, check.evidence


@pytest.mark.parametrize(("kind", "lost", "made", "state"), [
    ("list_namespace", meta("somebody"), True, "warn"),
    ("list_namespace", meta("gpu-operator"), True, "fail"),
    ("list_namespace", meta("gpu-operator"), False, "warn"),
    ("list_deployment_for_all_namespaces", meta("shop", "somebody"), True, "warn"),
    ("list_deployment_for_all_namespaces", meta("shop", "gpu-operator"), True, "fail"),
    ("list_deployment_for_all_namespaces", meta("shop", "gpu-operator"), False, "warn"),
    ("list_deployment_for_all_namespaces", meta("dolly-v2-deployment", "default"), False, "fail"),
    ("crds", meta("gpuclusters.nvidia.com", "nvidia.com"), True, "fail"),
    ("crds", meta("gpuclusters.nvidia.com", "nvidia.com"), False, "warn"),
])
def test_what_others_lost_is_named_and_fails_where_we_may_have_taken_it(guest: Callable[..., Guest], kind: str, lost: Any,
                                                                        made: bool, state: str) -> None:
    run = guest(**{kind: [lost]})
    known = [lost.name] if kind == "crds" else []
    if made:
        installed(run, namespace=True, definitions=tuple(known))
    else:
        run.journal.append("operator", release=True, namespace=True, definitions=known)
    run.target.delete(run, THERE)
    assert theirs(run)[0] == "pass"
    run.api.lists = {}
    found, evidence = theirs(run)
    assert found == state
    assert lost.name in evidence
    assert ("none of the run's commands" in evidence) is (state == "warn")


def test_a_crd_that_is_gone_fails_even_where_nothing_could_be_counted(guest: Callable[..., Guest]) -> None:
    run = guest(crds=[meta("gpuclusters.nvidia.com", "nvidia.com")])
    installed(run, definitions=("gpuclusters.nvidia.com", "nvidiadrivers.nvidia.com"))
    assert theirs(run) == ("fail", "gone since the run began: CRD nvidiadrivers.nvidia.com")


# Secrets

CANARIES = {"token": "tok-canary-1234", "password": "pass-canary-1234", "client-key-data": "a2V5LWNhbmFyeQ=="}
MORE = {"auth-provider": {"config": {"refresh-token": "ref-canary-1234", "client-id": "public-1234"}},
        "exec": {"env": [{"name": "MY_SECRET", "value": "env-canary-1234"}, {"name": "PROFILE", "value": "public-5678"}]}}


def unhidden(*values: str) -> list[str]:
    from gpurunbook.masking import hide
    return [value for value in values if hide(value) == value]


def test_what_a_kubeconfig_proves_itself_with_is_hidden_once_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpurunbook import masking
    monkeypatch.setattr(masking, "_known", set())
    secrets = [*CANARIES.values(), "ref-canary-1234", "env-canary-1234"]
    public = ["public-1234", "public-5678"]
    users = [{"name": "u", "user": {**CANARIES, **MORE}}, {"name": "none", "user": None}]
    file = kubeconfig(tmp_path, users=users)
    assert unhidden(*secrets) == secrets
    adoption.find(file, "work")
    assert unhidden(*secrets, *public) == public

    monkeypatch.setattr(masking, "_known", set())  # another process, which opens the run
    file.rename(tmp_path / "kubeconfig")
    Existing().describe(tmp_path, load_cluster(ROOT / "cluster.yaml"))
    assert unhidden(*secrets, *public) == public


@pytest.mark.parametrize(("server", "kept"), [
    ("https://me:s3cret@s:6443/x", "https://s:6443/x"), ("https://me@s", "https://s"), ("https://s/a@b", "https://s/a@b")])
def test_who_one_is_does_not_stay_in_the_servers_address(tmp_path: Path, server: str, kept: str) -> None:
    file = kubeconfig(tmp_path, clusters=[{"name": "c", "cluster": {"server": server}}])
    assert adoption.find(file, "work") == ("work", kept)


def test_half_a_copy_of_the_kubeconfig_goes_too(guest: Callable[..., Guest]) -> None:
    run = guest(adopted=False)
    assert shown(run) == []
    making = run.folder / "kubeconfig.making"
    making.touch()
    assert shown(run) == [away(run)]
    assert states(guest(adopted=False))["the run's own kubeconfig is gone"] == "fail"
    making.unlink()
    assert states(guest(adopted=False))["the run's own kubeconfig is gone"] == "pass"


def blind(run: Guest) -> Guest:
    """Without a way into the cluster."""
    run.__dict__.pop("core")
    run.client = lambda group: Run.client(run, group)  # type: ignore[method-assign]
    return run


NOTHING = {"the run made nothing in the cluster": "pass", "the run's own kubeconfig is gone": "pass"}
SOMETHING = {"what the run made is gone from the cluster": "fail", "the run's own kubeconfig is gone": "pass"}


@pytest.mark.parametrize(("begun", "result", "over", "expected"), [
    (False, None, False, NOTHING), (True, {"code": 0}, False, SOMETHING), (True, {"code": 1}, False, SOMETHING),
    (True, {"code": None}, False, SOMETHING), (True, None, False, SOMETHING), (True, {"code": 0}, True, NOTHING),
], ids=["nothing", "done", "failed", "ended", "killed", "torn down since"])
@pytest.mark.parametrize("stage", ["taint", "model"])
def test_without_a_way_into_the_cluster_only_a_run_that_began_nothing_is_clean(
        begun: bool, result: dict[str, Any] | None, over: bool, stage: str, expected: dict[str, str],
        guest: Callable[..., Guest]) -> None:
    """A server may have taken what a killed kubectl sent."""
    run = blind(guest(adopted=False))
    if begun:
        run.journal.append("intent", id="m", stage=stage, argv=["kubectl", "apply"], shown="kubectl apply", why="",
                           changes=True, by={"pid": 1, "started": 1.0})
    if result:
        run.journal.append("result", id="m", seconds=1.0, **result)
    if over:
        run.journal.append("run", state="finished")
    assert run.target.delete(run, run.target.observe(run)).commands == ()
    assert states(run) == expected


def test_what_nobody_could_look_at_is_asked_for_kind_by_kind(guest: Callable[..., Guest]) -> None:
    run = blind(guest(adopted=False))
    run.journal.append("intent", id="m", stage="taint", argv=["kubectl", "apply"], shown="kubectl apply -f x", changes=True)

    def fix() -> str:
        return next(c.fix for c in run.target.left(run) if c.state == "fail")

    assert fix() == ("with a kubeconfig of yours: kubectl get deployments,daemonsets,pods,configmaps -n default "
                     f"-l {RUN_LABEL}=guest")
    installed(run)
    assert fix().endswith("; kubectl get secrets -n gpu-operator -l owner=helm,name=gpu-operator; "
                          "kubectl get namespace gpu-operator")
