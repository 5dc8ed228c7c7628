"""The ladder as a value: how it shows itself, how it settles, and that no snapshot of whatever shape breaks it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpurunbook.config import load_cluster
from gpurunbook.readiness import look, waiting
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.diagnose import goal, ladder, settled, standing, troubled
from gpurunbook.readiness.kinds import kinds, matters
from gpurunbook.readiness.rungs import BY_NAME, RUNGS, Ladder, NodeLadder, Step, clock
from gpurunbook.readiness.screen import summary
from gpurunbook.readiness.snapshot import Snapshot, selects
from gpurunbook.readiness.trim import event as trimmed_event
from gpurunbook.readiness.trim import node as trimmed_node
from gpurunbook.readiness.trim import pod as trimmed_pod
from tests.readiness import CPU, NAMES, NODE, NOW, get, healthy, node, other_plugin, pod, unscheduled, waits, without

JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
                    max_leaves=4)
KINDS = st.sampled_from(["nodes", "pods", "releases", "leases", "policies"])
NOISE = st.lists(st.tuples(st.sampled_from(["Scheduled", "Pulling", "BackOff", "Unhealthy", "FailedScheduling"]),
                           st.text(max_size=20)), max_size=5)
PLACES = [("status",), ("spec",), ("metadata", "labels"), ("status", "conditions"), ("status", "containerStatuses"),
          ("status", "containerStatuses", 0, "state"), ("metadata", "creationTimestamp"), ("status", "capacity"),
          ("status", "allocatable"), ("spec", "containers"), ("spec", "nodeName"), ("status", "phase"),
          ("metadata", "ownerReferences"), ("status", "nodeInfo"), ("spec", "taints")]


def drop(item: dict[str, Any], place: tuple[Any, ...]) -> None:
    """Take a field away, if it is there: the API leaves out whatever is empty."""
    for key in place[:-1]:
        item = item[key] if (isinstance(item, list) and len(item) > key) or (isinstance(item, dict) and key in item) else {}
    if isinstance(item, dict):
        item.pop(place[-1], None)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_snapshot_raises(data: st.DataObject) -> None:
    """Objects of every kind with fields missing, in any number, at any time."""
    found = copy.deepcopy(healthy())
    for item in (*found.nodes, *found.pods, *found.events, *found.releases, *found.policies, *found.budgets):
        for place in data.draw(st.lists(st.sampled_from(PLACES), max_size=3)):
            drop(item, place)
    kept = {kind: tuple(data.draw(st.lists(st.sampled_from(items), unique_by=id)) if items else ())
            for kind, items in (("nodes", found.nodes), ("pods", found.pods), ("events", found.events),
                                ("releases", found.releases), ("policies", found.policies))}
    denied = data.draw(st.dictionaries(KINDS, st.just("no"), max_size=2))
    now = NOW + timedelta(seconds=data.draw(st.integers(-10_000, 10_000)))
    whole = ladder(replace(found, **kept, denied=denied), NAMES, now, data.draw(st.sampled_from([0.05, 1.0])))
    for one in whole.nodes:
        assert [step.rung for step in one.steps] == list(BY_NAME)
        assert all(step.cause for step in one.steps if step.state == "trouble")
    json.dumps(whole.to_json())
    assert repr(whole)
    assert whole._repr_html_()
    assert summary(whole)
    waiting.checks(whole)


@given(order=st.permutations(range(6)), nodes=st.integers(1, 4), hours=st.integers(0, 10_000),
       patience=st.sampled_from([0.05, 0.3, 1.0]), noise=NOISE)
@settings(max_examples=200, deadline=None)
def test_a_healthy_cluster_never_has_a_finding(order: list[int], nodes: int, hours: int, patience: float,
                                               noise: list[tuple[str, str]]) -> None:
    """In any order of its objects, at any age, with events of troubles that are over."""
    found = healthy()
    events = tuple({"metadata": {"name": f"e{i}"}, "involvedObject": {"kind": "Pod", "name": "dolly-1"}, "reason": reason,
                    "message": text, "type": "Warning"} for i, (reason, text) in enumerate(noise))
    more = [node(f"cpu-{i}", gpu=False) for i in range(nodes)]
    found = replace(found, pods=tuple(found.pods[i] for i in order), nodes=(*more, *found.nodes), events=(*found.events, *events))
    whole = ladder(found, NAMES, NOW + timedelta(hours=hours), patience)
    assert whole.findings == ()
    assert standing(whole) == "done"


@given(JSON)
def test_a_strange_object_is_trimmed_without_an_error(value: Any) -> None:
    found = copy.deepcopy(healthy())
    for trim, item in ((trimmed_node, found.nodes[0]), (trimmed_pod, found.pods[0]), (trimmed_event, found.events[0])):
        kept = trim(item | {"unknown": value, "metadata": item["metadata"] | {"annotations": value, "managedFields": value},
                            "spec": (item.get("spec") or {}) | {"strange": value}})
        assert kept == trim(item)


def test_trimming_keeps_what_the_rules_read_and_drops_the_rest() -> None:
    found = healthy()
    for item in (*found.nodes, *found.pods):
        item["metadata"]["managedFields"] = [{"manager": "x" * 1000}]
        item["status"]["images"] = [{"names": ["y" * 1000]}]
    trimmed = replace(found, nodes=tuple(map(trimmed_node, found.nodes)), pods=tuple(map(trimmed_pod, found.pods)),
                      events=tuple(map(trimmed_event, found.events)))
    assert ladder(trimmed, NAMES, NOW) == ladder(found, NAMES, NOW)
    assert "managedFields" not in json.dumps(trimmed.pods)
    assert "yyy" not in json.dumps(trimmed.nodes)


def test_many_nodes_show_as_groups() -> None:
    one = NodeLadder("a", tuple(Step(rung.name, "done") for rung in RUNGS))
    held = tuple(Step(r.name, "trouble" if r.name == "driver" else "ahead" if r.name == "exec" else "done", cause="unknown")
                 for r in RUNGS)
    many = Ladder((*(replace(one, node=f"n{i}") for i in range(90)), *(NodeLadder(f"m{i}", held) for i in range(10))))
    assert len(many.table.rows) == 2
    assert [row[:3] for row in many.table.rows] == [("driver", "trouble", 10), ("all", "done", 90)]
    assert "100 GPU nodes" in repr(many)


def test_text_of_the_cluster_is_escaped() -> None:
    found = healthy()
    waits(get(found, "dolly-1"), "ImagePullBackOff", "<script>alert(1)</script>\x1b[31m")
    whole = ladder(found, NAMES, NOW)
    assert "<script>" not in whole._repr_html_()
    assert "\x1b" not in repr(whole)
    assert "\x1b" not in summary(whole)


def test_it_settles_when_nothing_moves_without_a_person() -> None:
    whole = ladder(healthy(), NAMES, NOW)
    assert settled(whole)
    assert (goal(whole), standing(whole)) == ("exec", "done")
    no_model = ladder(without(healthy(), "dolly-1"), NAMES, NOW)
    assert settled(no_model)
    assert (goal(no_model), standing(no_model)) == ("smoke", "done")
    going = healthy()
    unscheduled(get(going, "dolly-1"), "1 Insufficient cpu", at=5)
    on_its_way = ladder(going, NAMES, NOW)
    assert not settled(on_its_way)
    assert standing(on_its_way) == "waiting"
    held = on_its_way.nodes[0].held()
    assert held
    assert held.rung == "scheduled"
    assert on_its_way.nodes[0].held("smoke") is None


def test_times_that_were_seen_are_filled_in_and_kept() -> None:
    seen, second = look.Seen(), timedelta(seconds=1)
    found = healthy()
    get(found, NODE)["status"]["allocatable"] = {}
    get(found, "plugin-1")["status"]["conditions"][1]["lastTransitionTime"] = NOW.isoformat()
    seen.dated(ladder(found, NAMES, NOW), NOW)
    after = seen.dated(ladder(healthy(), NAMES, NOW), NOW + second)
    since = {step.rung: step.since for step in after.nodes[0].steps}
    assert since["allocatable"] == NOW + second
    assert since["capacity"] is None, "nobody saw it come"
    later = look.Seen(after).dated(ladder(healthy(), NAMES, NOW), NOW + 9 * second)
    assert {step.rung: step.since for step in later.nodes[0].steps} == since
    other = ladder(replace(healthy(), nodes=(node(at=50),)), NAMES, NOW)
    assert next(s.since for s in look.Seen(after).dated(other, NOW).nodes[0].steps if s.rung == "allocatable") is None


def test_checks_of_the_notebook() -> None:
    assert {c.state for c in waiting.checks(ladder(healthy(), NAMES, NOW))} == {"pass"}
    found = healthy()
    get(found, NODE)["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    checks = waiting.checks(ladder(without(found, "gpu-smoke-1", "dolly-1"), NAMES, NOW))
    states = {check.name: check.state for check in checks}
    assert states["GPU allocatable"] == "fail"
    assert states["CUDA smoke pod"] == "unknown"
    other = other_plugin(on=CPU)
    waits(other, "CrashLoopBackOff", restarts=3)
    extra = waiting.checks(ladder(replace(healthy(), pods=(*healthy().pods, other)), NAMES, NOW))
    assert [c.state for c in extra if c.state != "pass"] == ["warn"], "it holds no GPU node up"


def test_gpu_nodes_are_those_of_the_gpu_groups() -> None:
    is_gpu_node = look.gpu_nodes(load_cluster(Path(__file__).parents[2] / "cluster.yaml").groups)
    assert is_gpu_node({"alpha.eksctl.io/nodegroup-name": "gpu-workers"})
    assert is_gpu_node({"eks.amazonaws.com/nodegroup": "gpu-workers"})
    assert not is_gpu_node({"alpha.eksctl.io/nodegroup-name": "cpu-workers"})
    assert not is_gpu_node({})


def test_a_watch_of_everything_keeps_only_what_matters() -> None:
    assert matters("pods", pod("x", space="other", on=NODE), NAMES, {CPU})
    assert not matters("pods", pod("x", space="other", on=CPU), NAMES, {CPU})
    assert matters("pods", other_plugin(on=CPU), NAMES, {CPU})
    assert not matters("pods", pod("x", space="other", on=""), NAMES, {CPU})
    assert not matters("events", {"type": "Normal", "reason": "Created"}, NAMES, ())
    assert matters("events", {"type": "Normal", "reason": "NodeReady"}, NAMES, ())
    [secrets] = [kind for kind in kinds(NAMES) if kind.name == "releases"]
    assert secrets.accept == "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    assert "application/json," not in secrets.accept, "never a whole Secret"


def test_logs_are_asked_of_a_few_troubled_containers_only() -> None:
    found = healthy()
    assert troubled(found, NAMES) == [], "the smoke pod's status has its line already"
    many = tuple(pod(f"p{i}", app="x") for i in range(20))
    for one in many:
        waits(one, "CrashLoopBackOff")
    assert len(troubled(replace(found, pods=many), NAMES)) == 5


@pytest.mark.parametrize(("selector", "labels", "picked"), [
    (None, {"a": "1"}, False), ({}, {"a": "1"}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "1"}, True), ({"matchLabels": {"a": "1"}}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {"a": "1"}, True),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True)])
def test_label_selectors(selector: dict[str, Any] | None, labels: dict[str, str], picked: bool) -> None:
    assert selects(selector, labels) is picked


def test_the_table_and_the_json_say_what_is_usual_and_which_day() -> None:
    whole = ladder(healthy(), NAMES, NOW)
    assert "2026-11-22 11:10:00" in repr(whole), "another day than today"
    assert clock(datetime.now(UTC).replace(hour=0, minute=0, second=5)) == "00:00:05"
    found = healthy()
    waits(get(found, "dolly-1"), "ImagePullBackOff", "not found")
    told = ladder(found, NAMES, NOW).to_json()
    pulled = next(step for step in told["nodes"][0]["steps"] if step["rung"] == "pulled")
    assert (pulled["title"], pulled["usual"], pulled["limit"]) == ("image pulled", (40, 420), 1200)
    [finding] = told["findings"]
    assert finding["title"] == CAUSES["image-pull-back-off"].title
    assert finding["why"] == CAUSES["image-pull-back-off"].why
    assert finding["advice"] == CAUSES["image-pull-back-off"].advice


def test_the_groups_of_many_nodes_name_the_trouble_before_a_wait_below_it() -> None:
    steps = tuple(Step(r.name, "waiting" if r.name == "release" else "trouble" if r.name == "running" else "done",
                       cause="out-of-memory" if r.name == "running" else "") for r in RUNGS)
    many = Ladder(tuple(NodeLadder(f"n{i}", steps) for i in range(9)))
    assert [row[:3] for row in many.table.rows] == [("container running", "trouble", 9)]
    assert many.nodes[0].holds == many.nodes[0].held()


def test_an_empty_snapshot_is_a_missing_node() -> None:
    whole = ladder(Snapshot(), replace(NAMES, since=NOW), NOW)
    assert (whole.findings, whole.nodes[0].steps[0].state) == ((), "waiting")
    assert [f.cause for f in ladder(Snapshot(), NAMES, datetime(2027, 1, 1, tzinfo=UTC)).findings] == ["node-missing"]


def test_a_release_is_not_done_before_the_operators_own_pod_is_ready() -> None:
    own = pod("gpu-operator-5c", app="gpu-operator", on="cpu-1")
    snapshot = replace(healthy(), pods=(*healthy().pods, own))
    step = next(s for s in ladder(snapshot, NAMES, NOW).nodes[0].steps if s.rung == "release")
    assert (step.state, step.evidence) == ("done", "revision 1 is deployed; gpu-operator-5c is Ready")
    waits(own, "CrashLoopBackOff", restarts=4)
    step = next(s for s in ladder(snapshot, NAMES, NOW).nodes[0].steps if s.rung == "release")
    assert (step.state, step.cause) == ("trouble", "unknown")
    assert "gpu-operator-5c" in step.evidence
    waits(own, "ImagePullBackOff", "not found")
    step = next(s for s in ladder(snapshot, NAMES, NOW).nodes[0].steps if s.rung == "release")
    assert (step.state, step.cause) == ("trouble", "image-pull-back-off")
