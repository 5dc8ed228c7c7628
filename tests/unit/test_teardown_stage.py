"""What a teardown takes away besides the cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.config import load_cluster
from gpurunbook.plan import Plan
from gpurunbook.runbook import Run
from gpurunbook.stages import teardown
from gpurunbook.targets import ClusterState
from gpurunbook.targets.existing import Existing
from gpurunbook.targets.rehearsal.cluster import Rehearsal

ROOT = Path(__file__).resolve().parents[2]
STATE = ClusterState((), True, ("n",), ())


class Ours(Rehearsal):
    """A cluster that goes without a command."""

    def delete(self, run: Run, state: ClusterState) -> Plan:
        return run.plan((), "gone")


class Theirs(Existing):
    def delete(self, run: Run, state: ClusterState) -> Plan:
        return run.plan((), "left")


class Quiet(Run):
    """A run without programs or a cluster."""

    def program(self, name: str) -> str:
        return f"/bin/{name}"


def opened(folder: Path, target: Any) -> Run:
    folder.mkdir()
    run = Quiet(ROOT, folder, target, load_cluster(ROOT / "cluster.yaml"), "teardown")
    run.kubeconfig.touch()
    return run


@pytest.mark.parametrize("target", [Ours(), Theirs()])
def test_smoke_pods_go_by_name(tmp_path: Path, target: Any) -> None:
    run = opened(tmp_path / "r", target)
    (command,) = teardown.plan(run, teardown.Facts(STATE, None, False, smoke=("pod/gpu-smoke-1", "configmap/gpu-smoke")))
    assert command.short == "kubectl delete pod/gpu-smoke-1 configmap/gpu-smoke -n default --ignore-not-found"
    assert command.guarded


def test_somebody_who_may_not_read_daemonsets_can_take_the_rest_down(tmp_path: Path) -> None:
    from kubernetes.client import ApiException

    def refused(*args: Any, **options: Any) -> Any:
        raise ApiException(status=403, reason="Forbidden")

    def none(*args: Any, **options: Any) -> Any:
        raise ApiException(status=404)

    class Restricted(Quiet):
        core: Any = SimpleNamespace(list_namespaced_pod=lambda *args, **options: SimpleNamespace(items=[]),
                                    list_namespaced_config_map=lambda *args, **options: SimpleNamespace(items=[]))

        def client(self, group: str) -> Any:
            return SimpleNamespace(read_namespaced_daemon_set=refused, read_namespaced_deployment=none)

        def ask(self, command: Any, check: bool = True) -> Any:
            assert "list" in command.argv
            return SimpleNamespace(stdout="[]")

    class There(Theirs):
        def observe(self, run: Run) -> ClusterState:
            return STATE

    run = opened(tmp_path / "r", There())
    run.__class__ = Restricted
    facts = teardown.observe(run)
    assert facts.puller == ""
    assert not teardown.plan(run, facts)


def test_the_pull_goes_after_the_model_and_before_the_operator(tmp_path: Path) -> None:
    from gpurunbook.programs.helm import Release
    run = opened(tmp_path / "r", Ours())
    release = Release("gpu-operator", "deployed", "gpu-operator-v1", 1)
    shown = [c.short for c in teardown.plan(run, teardown.Facts(STATE, release, True, puller="dolly-prepull", smoke=("pod/s",)))]
    assert [words.split()[:3] for words in shown] == [
        ["kubectl", "delete", "deployment"], ["kubectl", "delete", "daemonset"], ["kubectl", "delete", "pod/s"],
        ["helm", "uninstall", "gpu-operator"]]
    assert not teardown.plan(run, teardown.Facts(STATE, None, False))
