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


def opened(stage: str, cluster: Cluster) -> Run:
    return open_run(stage, run_id=cluster.run_id)


def writes(folder: Path) -> int:
    return sum(record["kind"] == "intent" and record["changes"] for record in Journal(folder).records())


def refused(stage: str, cluster: Cluster) -> str:
    before = writes(cluster.folder)
    with pytest.raises(RunbookError) as caught:
        opened(stage, cluster)
    assert writes(cluster.folder) == before
    return str(caught.value)


def test_03_without_02(here: Cluster) -> None:
    with pytest.raises(RunbookError, match="there is no run nobody") as caught:
        open_run("nodes", run_id="nobody")
    assert "01_preflight.ipynb" in caught.value.next
    here.checkout("run", "--run-id", "bare", "--until", "preflight")
    with pytest.raises(RunbookError, match="has no cluster yet") as caught:
        open_run("nodes", run_id="bare")
    assert "02_provision.ipynb" in caught.value.next


def test_05_and_06_before_04(here: Cluster) -> None:
    here.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}=true:NoSchedule")
    for stage in ("gpu_operator", "model"):
        said = refused(stage, here)
        assert said.startswith("too early: 04_taint has not been done in this cluster: ip-")
        assert "next:  run notebooks/04_taint.ipynb first, or: gpurunbook run --run-id shared --from taint" in said
    here.kubectl("taint", "nodes", "-l", GROUP, f"{taint.UNINITIALIZED}-")
    assert opened("gpu_operator", here).stage == "gpu_operator", "by hand is as good as by notebook"


def test_06_before_05(here: Cluster) -> None:
    said = "too early: 05_gpu_operator has not been done in this cluster: no node of gpu-workers has a GPU to give"
    assert refused("model", here).startswith(said)


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
