"""04: wait for a cloud controller or remove its taint. Leases, nodes and clocks are values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.command import Command, Result
from gpurunbook.config import load_cluster
from gpurunbook.errors import RunbookError
from gpurunbook.runbook import Run
from gpurunbook.stages import taint
from gpurunbook.stages.nodes import Node
from gpurunbook.stages.taint import LATER, UNINITIALIZED, Lease
from gpurunbook.targets.eks.target import Eks

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 23, tzinfo=UTC)
TAINT = f"{UNINITIALIZED}:NoSchedule"
GROUP = {"alpha.eksctl.io/nodegroup-name": "gpu-workers"}
FRESH, OLD = Lease("fresh", "renewed 3 s ago by a, lasts 15 s"), Lease("old", "renewed 900 s ago by a, lasts 15 s")
ABSENT, UNKNOWN = Lease("absent", "there is none"), Lease("unknown", "it may not be read")


def node(name: str = "n", *, tainted: bool = True, provider: str = "aws:///a/i-1", zone: str = "a") -> Node:
    return Node(name, "gpu-workers", True, True, "g4dn.xlarge", zone, 0, (TAINT,) if tainted else (), GROUP, provider, "v1.36.3")


# A lease by its spec

def spec(age: float | None, lasts: int | None = 15, holder: str | None = "ip-10-0-0-1_x") -> Any:
    return SimpleNamespace(renew_time=None if age is None else NOW - timedelta(seconds=age), lease_duration_seconds=lasts,
                           holder_identity=holder)


@pytest.mark.parametrize(("given", "state"), [
    (spec(0), "fresh"), (spec(45), "fresh"), (spec(46), "old"), (spec(-20), "fresh"), (spec(100, 90), "fresh"),
    (spec(100, None), "old"), (spec(None), "old"), (spec(1, holder=""), "old"), (spec(1, holder=None), "old")])
def test_a_lease_is_fresh_while_somebody_renews_it(given: Any, state: str) -> None:
    assert taint.freshness(given, NOW).state == state


def test_what_was_seen_of_a_lease_is_said_with_its_holder_and_age() -> None:
    assert taint.freshness(spec(3), NOW).seen == "renewed 3 s ago by ip-10-0-0-1_x, lasts 15 s"


# Wait or remove

BARE = {"provider": "", "zone": ""}


@pytest.mark.parametrize(("lease", "places", "age", "waits", "cause", "dead"), [
    # alive and only slow is waited for, placed or not; alive and stuck is removed, and nothing is wrong with the rest
    (FRESH, {}, 5, True, "", False), (FRESH, BARE, 5, True, "", False), (FRESH, BARE, 59, True, "", False),
    (FRESH, {}, 60, False, "taint-controller-alive", False), (FRESH, BARE, 600, False, "taint-controller-alive", False),
    # a lease that nobody renews: nobody comes, however new the node is
    (OLD, {}, 5, False, "taint-no-controller", True), (OLD, BARE, 5, False, "taint-no-controller", True),
    # no lease tells nothing: an unplaced new node may get its visit, a placed one has had it (the tutorial's case)
    (ABSENT, {}, 5, False, "taint-no-controller", False), (ABSENT, BARE, 5, True, "", False),
    (ABSENT, {"provider": "aws:///a/i", "zone": ""}, 5, True, "", False),
    (ABSENT, {"provider": "", "zone": "a"}, 5, True, "", False),
    (ABSENT, {}, 600, False, "taint-no-controller", False), (ABSENT, BARE, 600, False, "taint-no-controller", True),
    # a lease that may not be read: the same
    (UNKNOWN, {}, 5, False, "taint-no-controller", False), (UNKNOWN, BARE, 5, True, "", False),
    (UNKNOWN, BARE, 60, False, "taint-no-controller", True),
])
def test_who_is_waited_for(lease: Lease, places: dict[str, str], age: float, waits: bool, cause: str, dead: bool) -> None:
    held = node(**places)  # type: ignore[arg-type]
    why = taint.judge([held], [], {"n": age}, lease, limit=60)
    assert (why.left, why.removed) == (((held,), ()) if waits else ((), (held,)))
    assert (why.cause, why.dead) == (cause, dead)
    assert (LATER in why.sentence) is dead
    assert len(why.evidence) == 5
    assert all(all(row) for row in why.evidence)


def test_the_limit_is_the_callers_and_an_unknown_age_is_old() -> None:
    held = node(**BARE)  # type: ignore[arg-type]
    assert taint.judge([held], [], {"n": 5}, ABSENT, limit=3).removed == (held,)
    assert taint.judge([held], [], {"n": 5}, ABSENT, limit=6).left == (held,)
    assert taint.judge([held], [], {}, FRESH, limit=60).removed == (held,)


def test_each_node_is_judged_by_itself_and_the_evidence_counts_them() -> None:
    new, old, free = node("new", zone=""), node("old", zone=""), node("free", tainted=False)
    why = taint.judge([new, old, free], [{taint.ZONE: "a", taint.MARK: "x"}, {}], {"new": 5, "old": 600}, UNKNOWN, limit=60)
    assert (why.left, why.removed) == ((new,), (old,))
    assert [row[1] for row in why.evidence] == [
        "it may not be read", "0 of 2 have both", "1 of 3 are free of the taint",
        "1 of 2 have a zone, 1 the mark of AWS's controller", "5 to 600 s; limit 60 s"]
    assert "unknown" in why.sentence
    assert "providerID or zone is missing" in why.sentence


# The stage, on a run whose API answers from lists

class Api:
    """Nodes as (node, age in s), and leases; `answers` are asked in turn, the last for ever. `status`: leases are refused so."""

    def __init__(self, answers: list[list[tuple[Node, float]]], leases: list[Any], status: int = 0) -> None:
        self.answers, self.leases, self.status, self.asked = answers, leases, status, 0

    def list_node(self, **options: Any) -> Any:
        now, found = datetime.now(UTC), self.answers[min(self.asked, len(self.answers) - 1)]
        items = [SimpleNamespace(
            metadata=SimpleNamespace(name=n.name, labels={**n.labels, **({taint.ZONE: n.zone} if n.zone else {})},
                                     creation_timestamp=now - timedelta(seconds=age)),
            spec=SimpleNamespace(provider_id=n.provider_id, taints=[
                SimpleNamespace(key=t.partition(":")[0], effect=t.partition(":")[2]) for t in n.taints]),
            status=SimpleNamespace(conditions=[], allocatable={}, node_info=SimpleNamespace(kubelet_version="v1.36.3")))
            for n, age in found]
        return SimpleNamespace(items=items)

    def list_namespaced_lease(self, namespace: str, field_selector: str, **options: Any) -> Any:
        from kubernetes.client import ApiException
        assert (namespace, field_selector) == ("kube-system", "metadata.name=cloud-controller-manager")
        self.asked += 1  # time passes from one look to the next
        if self.status:
            raise ApiException(status=self.status, reason="refused")
        return SimpleNamespace(items=[SimpleNamespace(spec=one) for one in self.leases])


class Walk(Run):
    def __init__(self, folder: Path, api: Api, stage: str = "taint") -> None:
        folder.mkdir(exist_ok=True)
        target = Eks()
        target.__dict__["poll"] = 0.01
        super().__init__(ROOT, folder, target, load_cluster(ROOT / "cluster.yaml"), stage)
        self.api = api
        self.__dict__["core"] = api
        self.kubeconfig.write_text("current-context: work\n")

    def client(self, group: str) -> Any:
        assert group == "CoordinationV1Api"
        return self.api

    def program(self, name: str) -> str:
        return f"/bin/{name}"

    def ask(self, command: Command, check: bool = True) -> Result:
        raise AssertionError(f"nothing is to be asked: {command.short}")

    @property
    def header(self) -> str:
        return ""

    @property
    def kubectl(self) -> Any:
        from gpurunbook.programs.kubectl import Kubectl
        return Kubectl("/bin/kubectl", self.kubeconfig, "work")


@pytest.fixture
def walk(tmp_path: Path) -> Callable[..., Walk]:
    def make(*answers: list[tuple[Node, float]], leases: list[Any] | None = None, status: int = 0, stage: str = "taint") -> Walk:
        return Walk(tmp_path / "walk", Api(list(answers), leases or [], status), stage)
    return make


def living() -> Any:
    return SimpleNamespace(renew_time=datetime.now(UTC), lease_duration_seconds=15, holder_identity="x")


def test_without_the_taint_nothing_is_asked_about_controllers(walk: Callable[..., Walk]) -> None:
    run = walk([(node(tainted=False), 5)])
    found = taint.observe(run)
    assert taint.reason(run, found).evidence == ()
    assert taint.wait(run, found) == 0
    assert taint.plan(run, found).reason == "no GPU node carries the taint: nothing to remove"
    assert [check.state for check in taint.verify(run)] == ["pass", "pass"]
    assert run.api.asked == 0
    assert run.journal.last("taint") is None


def test_the_tutorials_taint_is_removed_at_once_with_the_reason_in_the_journal(walk: Callable[..., Walk]) -> None:
    run = walk([(node(), 2)])
    found = taint.observe(run)
    assert taint.wait(run, found) == 0
    plan = taint.plan(run, found)
    assert [c.short for c in plan] == [f"kubectl taint nodes -l alpha.eksctl.io/nodegroup-name=gpu-workers {UNINITIALIZED}-"]
    assert "no cloud controller is to be seen: it has no lease here; providerID and zone are set" in plan.reason
    assert plan.notes == ()
    record = run.journal.last("taint")
    assert record is not None
    assert (record["cause"], record["nodes"], record["dead"]) == ("taint-no-controller", ["n"], False)
    assert record["reason"] in plan.reason
    assert record["evidence"][0][:2] == ["lease kube-system/cloud-controller-manager", "there is none"]


def test_a_slow_controller_is_waited_for_and_nothing_is_removed(walk: Callable[..., Walk]) -> None:
    new = [(node(zone=""), 5.0)]
    run = walk(new, new, new, [(node(tainted=False), 6)], leases=[living()])
    found = taint.observe(run)
    assert taint.plan(run, found).reason == "left to the cloud controller, since younger than 60 s: n"
    assert taint.wait(run, found) < 5
    assert not taint.plan(run, taint.observe(run))
    assert run.journal.last("taint") is None
    waited = [r["blocker"] for r in run.journal.records() if r["kind"] == "wait"]
    assert waited == ["left to the cloud controller, since younger than 60 s: n", ""]


def test_a_living_controller_that_is_stuck_is_not_waited_for_beyond_the_limit(walk: Callable[..., Walk]) -> None:
    run = walk([(node(zone=""), 59)], [(node(zone=""), 59)], [(node(zone=""), 61)], leases=[living()])
    assert taint.wait(run, taint.observe(run)) < 5
    plan = taint.plan(run, taint.observe(run))
    assert "the cloud controller is alive, and has not taken it within 60 s; providerID or zone is missing" in plan.reason
    assert run.journal.last("taint", cause="taint-controller-alive", dead=False)
    assert len(plan.commands) == 1
    assert plan.notes == ()


def test_a_dead_controller_is_not_waited_for_and_the_removal_warns(walk: Callable[..., Walk]) -> None:
    lease = SimpleNamespace(renew_time=NOW - timedelta(days=400), lease_duration_seconds=15, holder_identity="x")
    run = walk([(node(provider="", zone=""), 5)], leases=[lease])
    found = taint.observe(run)
    assert taint.wait(run, found) == 0
    plan = taint.plan(run, found)
    assert LATER in plan.reason
    assert LATER in repr(plan.notes[0])
    run.api.answers = [[(node(tainted=False), 9)]]
    *_, check = taint.verify(run)
    assert (check.name, check.state) == ("a cloud controller is at work", "warn")
    assert LATER in check.evidence


def test_leases_that_may_not_be_read_are_unknown_and_other_refusals_are_errors(walk: Callable[..., Walk]) -> None:
    run = walk([(node(), 600)], status=403)
    assert taint.lease(run) == UNKNOWN
    assert len(taint.plan(run, taint.observe(run)).commands) == 1
    with pytest.raises(RunbookError, match="cloud-controller-manager cannot be read: refused"):
        taint.lease(walk([(node(), 600)], status=500))


def test_a_plan_asked_for_elsewhere_leaves_no_record(walk: Callable[..., Walk]) -> None:
    run = walk([(node(), 600)], stage="gpu_operator")
    assert taint.plan(run, taint.observe(run))
    assert run.journal.last("taint") is None


def test_what_the_cluster_says_reaches_a_screen_without_its_controls() -> None:
    why = taint.judge([node("\x1b[31mn")], [], {}, Lease("fresh", "renewed by \x1b[2J<b>"), limit=60)
    assert "\x1b" not in repr(why.table)
    assert "<b>" not in why.table._repr_html_()
