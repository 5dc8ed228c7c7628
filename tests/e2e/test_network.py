"""The network as it is: stages that read and write through a proxy that delays, cuts, turns away, and is out of date.

The runs are of target `existing`: their kubeconfig is the proxy's, so its server and CA are what the run began with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpurunbook import again
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.runbook import Run, open_run
from gpurunbook.stages import gpu_operator, model, nodes, taint
from gpurunbook.stages.taint import UNINITIALIZED
from gpurunbook.targets import Wishes
from tests.api_proxy import ApiProxy, Fault, proxy
from tests.e2e.conftest import Checkout, Cluster

SELECTOR = "node.kubernetes.io/instance-type=g4dn.xlarge"
NODES, DEPLOYMENTS = "/api/v1/nodes", "/apis/apps/v1/namespaces/default/deployments"


@pytest.fixture(scope="module")
def behind(checkout: Checkout) -> Iterator[Cluster]:
    """The cluster behind the proxy."""
    checkout("run", "--run-id", "behind", "--until", "provision")
    yield Cluster(checkout, "behind")
    checkout("teardown", "--run-id", "behind")


@pytest.fixture(scope="module")
def way(behind: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProxy]:
    with proxy(behind.kubeconfig, tmp_path_factory.mktemp("proxy")) as made:
        yield made


@pytest.fixture
def api(behind: Cluster, way: ApiProxy, monkeypatch: pytest.MonkeyPatch) -> ApiProxy:
    """The proxy without faults, in the checkout and its environment."""
    way.faults.clear()
    monkeypatch.chdir(behind.checkout.root)
    for name, value in behind.checkout.environment.items():
        monkeypatch.setenv(name, value)
    opened = _open("provision")
    plan = opened.target.create(opened, opened.target.observe(opened),
                                Wishes(kubeconfig=str(way.kubeconfig), selector=SELECTOR))
    if plan:
        opened.apply(plan)
        opened.check_identity()
    way.seen.clear()
    return way


def _open(stage: str) -> Run:
    return open_run(stage, run_id="net", target="existing")


def _tries(run: Run, words: str) -> list[dict[str, Any]]:
    """The intents of a command, each with what came of it."""
    records = list(run.journal.records())
    ends = {r["id"]: r for r in records if r["kind"] == "result"}
    return [r | {"code": ends[r["id"]]["code"]} for r in records if r["kind"] == "intent" and words in r["shown"]]


def _taint(behind: Cluster) -> None:
    behind.kubectl("taint", "nodes", "-l", SELECTOR, f"{UNINITIALIZED}=true:NoSchedule", "--overwrite")


@pytest.mark.parametrize("fault", [
    Fault("delay", seconds=1.0), Fault("cut", 2), Fault("cut after"), Fault("cut within"), Fault("answer", 2, status=503),
    Fault("answer", status=429)], ids=lambda f: f"{f.kind} {f.times} {f.status}")
def test_reading_goes_through_a_network_that_fails_and_comes_back(api: ApiProxy, fault: Fault) -> None:
    run = _open("nodes")
    fault.path = NODES
    api.faults = [fault]
    api.seen.clear()
    assert len(nodes.observe(run)) == 3
    asked = [s for s in api.seen if s.path.startswith(NODES)]
    assert [s.fault for s in asked] == [fault.kind] * (len(asked) - 1 or 1) + [""] * (len(asked) > 1)
    gaps = [b.at - a.at for a, b in itertools.pairwise(asked)]
    assert all(gap >= again.FIRST / 2 for gap in gaps)
    assert fault.times == 0


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_comes_back_before_the_time_that_the_server_names(api: ApiProxy, status: int) -> None:
    run = _open("nodes")
    api.faults = [Fault("answer", path=NODES, status=status, seconds=seconds) for seconds in (2, 1)]
    api.seen.clear()
    nodes.observe(run)
    first, second, third = (s.at for s in api.seen if s.path.startswith(NODES))
    assert 2 <= second - first < 3
    assert 1 <= third - second < 3
    api.faults = [Fault("answer", 2, path=NODES, status=status, seconds=1)]
    api.seen.clear()
    run.ask(run.kubectl.get("nodes", why="kubectl too"))
    times = [s.at for s in api.seen if s.path.startswith(NODES)]
    assert len(times) == 3
    assert all(b - a >= 1 for a, b in itertools.pairwise(times))


def test_a_server_that_asks_for_more_than_our_patience_gets_it_and_no_further_request(api: ApiProxy) -> None:
    run = _open("nodes")
    api.faults = [Fault("answer", 99, path=NODES, status=429, seconds=3600)]
    api.seen.clear()
    began = time.monotonic()
    with pytest.raises(RunbookError, match="the API server answers 429: Too Many Requests") as caught:
        nodes.observe(run)
    assert "run the same again" in caught.value.next
    assert time.monotonic() - began < 2
    assert len(api.seen) == 1


def test_a_network_that_stays_away_is_an_error_after_some_tries(api: ApiProxy) -> None:
    run = _open("nodes")
    api.faults = [Fault("cut", 99)]
    api.seen.clear()
    began = time.monotonic()
    with pytest.raises(RunbookError, match=rf"does not answer \({again.TRIES} tries\)") as caught:
        nodes.observe(run)
    assert caught.value.where == api.server
    assert "run the same again" in caught.value.next
    assert len(api.seen) == again.TRIES
    assert time.monotonic() - began < 6


def test_a_write_is_refused_while_nobody_can_say_which_cluster_it_is(api: ApiProxy, behind: Cluster) -> None:
    _taint(behind)
    run = _open("taint")
    plan = taint.plan(run, taint.observe(run))
    api.faults = [Fault("cut", 99, path="kube-system")]
    api.seen.clear()
    with pytest.raises(RunbookError, match="does not answer"):
        run.apply(plan)
    assert api.writes() == api.writes(passed=False) == []


def test_a_write_that_was_cut_after_it_was_done_is_found_and_not_done_twice(api: ApiProxy, behind: Cluster) -> None:
    _taint(behind)
    run = _open("taint")
    plan = taint.plan(run, taint.observe(run))
    api.faults = [Fault("cut after", method="PATCH", path=NODES)]
    api.seen.clear()
    with pytest.raises(CommandFailed, match=r"EOF|connection"):
        run.apply(plan)
    assert len(api.writes()) == 1
    again_opened = _open("taint")
    plan = taint.plan(again_opened, taint.observe(again_opened))
    assert not plan
    assert taint.verify(again_opened)[0].state == "pass"
    assert len(api.writes()) == 1


def test_a_write_that_was_answered_and_not_done_is_no_success(api: ApiProxy, behind: Cluster) -> None:
    _taint(behind)
    run = _open("taint")
    api.faults = [Fault("swallow", method="PATCH", path=NODES)]
    api.seen.clear()
    run.apply(taint.plan(run, taint.observe(run)))  # kubectl believes its 200
    assert api.writes() == []
    with pytest.raises(RunbookError, match="no GPU node is uninitialized"):
        run.verify(taint.verify(run))
    again_opened = _open("taint")
    again_opened.apply(taint.plan(again_opened, taint.observe(again_opened)))
    again_opened.verify(taint.verify(again_opened))
    assert len(api.writes()) == 1


def test_an_apply_that_was_cut_is_tried_again_each_time_in_the_journal_and_made_once(api: ApiProxy, behind: Cluster) -> None:
    run = _open("taint")  # 06 would be refused here: no node has a GPU yet
    plan = model.plan(run, model.observe(run))
    api.faults = [Fault("cut after", method="POST", path=DEPLOYMENTS)]
    api.seen.clear()
    run.apply(plan)
    tries = _tries(run, "kubectl apply")
    assert [t["code"] for t in tries] == [1, 0]
    assert [s.method for s in api.writes() if DEPLOYMENTS in s.path].count("POST") == 1, "the second found what the first made"
    generations = behind.kubectl("get", "deployment", "-n", "default", "-o", "jsonpath={.items[*].metadata.generation}").stdout
    assert generations == b"1"
    assert not model.plan(run, model.observe(run))
    behind.kubectl("delete", "deployment", "--all", "-n", "default")


def test_helm_is_called_again_only_where_it_has_written_nothing(api: ApiProxy, behind: Cluster) -> None:
    run = _open("gpu_operator")
    plan = gpu_operator.plan(run, gpu_operator.observe(run, chart="manifests/rehearsal/gpu-operator"))
    install = plan.commands[-1]
    api.faults = [Fault("answer", path="/version", status=503)]
    api.seen.clear()
    run.apply(plan)
    assert [t["code"] for t in _tries(run, "helm upgrade --install")] == [1, 0]
    assert len([s for s in api.writes() if s.method == "POST" and "/secrets" in s.path]) == 1, "one revision"
    api.faults = [Fault("cut after", 1, method="POST", path="/secrets")]
    with pytest.raises(CommandFailed):
        run.apply(run.plan([install], "once more, and cut"))
    assert len(_tries(run, "helm upgrade --install")) == 3, "what may have been written is looked at, not written again"


def test_a_certificate_that_is_over_is_said_at_once(api: ApiProxy, behind: Cluster, tmp_path: Path) -> None:
    run = _open("nodes")
    mine = run.kubeconfig.read_text()
    with proxy(behind.kubeconfig, tmp_path / "late", expired=True) as late:
        run.kubeconfig.write_text(late.kubeconfig.read_text())
        began = time.monotonic()
        try:
            with pytest.raises(RunbookError, match=r"certificate .* is not good: .*certificate has expired") as caught:
                run.check_identity()
        finally:
            run.kubeconfig.write_text(mine)
    assert "clock" in caught.value.next
    assert time.monotonic() - began < 3
    assert late.seen == []
