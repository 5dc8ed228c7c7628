"""A notebook that is opened before the ones it stands on says which is missing, and changes nothing: on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal
from gpurunbook.runbook import Run, open_run
from gpurunbook.stages import gpu_operator, latency, next_token, taint
from tests.e2e.conftest import Cluster

GROUP = "alpha.eksctl.io/nodegroup-name=gpu-workers"


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The shared cluster, at its end without the taint, as it was."""
    monkeypatch.chdir(cluster.checkout.root)
    for name, value in cluster.checkout.environment.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}-", check=False)


@pytest.fixture
def early(here: Cluster) -> Iterator[Cluster]:
    """A cluster in which 02 was the last that was done: its GPU node has the taint."""
    here.checkout("run", "--run-id", "early", "--until", "provision")
    yield Cluster(here.checkout, "early")
    here.checkout("teardown", "--run-id", "early")


def opened(stage: str, cluster: Cluster) -> Run:
    return open_run(stage, run_id=cluster.run_id)


def writes(folder: Path) -> int:
    return sum(record["kind"] == "intent" and record["changes"] for record in Journal(folder).records())


def refused(stage: str, cluster: Cluster) -> str:
    before, known = writes(cluster.folder), stage_records(cluster)
    with pytest.raises(RunbookError) as caught:
        opened(stage, cluster)
    assert writes(cluster.folder) == before
    assert stage_records(cluster) == known, "it was not begun"
    return str(caught.value)


def stage_records(cluster: Cluster) -> int:
    return sum(record["kind"] == "stage" for record in Journal(cluster.folder).records())


def test_03_without_02(here: Cluster) -> None:
    with pytest.raises(RunbookError, match="there is no run nobody") as caught:
        open_run("nodes", run_id="nobody")
    assert "01_preflight.ipynb" in caught.value.next
    here.checkout("run", "--run-id", "bare", "--until", "preflight")
    bare = Cluster(here.checkout, "bare")
    for stage in ("nodes", "taint", "gpu_operator", "model", "next_token", "latency"):
        said = refused(stage, bare)
        assert said.startswith("too early: 02_provision has not been done: this run has no cluster yet")
        assert "notebooks/02_provision.ipynb" in said


def test_05_and_06_before_04(early: Cluster) -> None:
    for stage in ("gpu_operator", "model"):
        said = refused(stage, early)
        assert said.startswith("too early: 04_taint has not been done in this cluster: ip-")
        assert "next:  run notebooks/04_taint.ipynb first, or: gpurunbook run --run-id early --from taint" in said
    early.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}-")
    assert opened("gpu_operator", early).stage == "gpu_operator", "by hand is as good as by notebook"
    early.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}=true:NoSchedule")
    Journal(early.folder).append("drill", seed=1)
    assert opened("model", early).stage == "model", "what holds a drill is to be found out"


def test_06_before_05_and_after_it(here: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    said = "no node of gpu-workers has a GPU to give"
    assert refused("model", here).startswith(f"too early: 05_gpu_operator has not been done in this cluster: {said}")
    here.kubectl("create", "deployment", "dolly-v2-deployment", "--image=x", "--replicas=0")
    assert opened("model", here).stage == "model", "somebody has deployed already"
    here.kubectl("delete", "deployment", "dolly-v2-deployment")
    Journal(here.folder).append("stage", stage="gpu_operator", state="done")
    capsys.readouterr()
    assert opened("model", here).stage == "model", "05 was done, and its plug-in broke since"
    told = capsys.readouterr().out
    assert said in told
    assert "though 05_gpu_operator was done" in told
    assert "why: gpurunbook gpu" in told


def test_05_after_04_when_the_taint_is_back(here: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    here.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}=true:NoSchedule")
    assert opened("gpu_operator", here).stage == "gpu_operator"
    assert "though 04_taint was done" in capsys.readouterr().out


def test_07_and_08_before_06(here: Cluster) -> None:
    before = writes(here.folder)
    for stage, first in (("next_token", lambda run: next_token.observe(run, next_token.question(run))),
                         ("latency", latency.observe)):
        with pytest.raises(RunbookError, match=r"no pod of dolly-v2-deployment is ready[^!]*06_model\.ipynb first"):
            first(opened(stage, here))
    assert writes(here.folder) == before


def test_who_only_looks_is_not_refused(here: Cluster) -> None:
    here.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}=true:NoSchedule")
    looking = open_run("gpu_operator", run_id=here.run_id, quiet=True)
    assert gpu_operator.plan(looking, gpu_operator.observe(looking, chart="stand-in")).commands
