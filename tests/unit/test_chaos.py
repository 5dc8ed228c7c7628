"""The kill matrix's own rules: each finds what it is there for. A matrix that cannot fail would prove nothing."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpurunbook.journal import Journal
from tests.chaos import audit, invariants, leftovers, state
from tests.chaos.boundary import Namer, points, spread
from tests.chaos.lane import Lane
from tests.chaos.truth import newest_done

CREATE = ("kubectl", "create", "deployments/default/dolly")
PATCH = ("helm", "patch", "deployments/gpu-operator/gpu-operator")
POD = {"metadata": {"name": "dolly-5fb-x7k2p", "generateName": "dolly-5fb-", "namespace": "default", "uid": "1",
                    "labels": {"app": "dolly"},
                    "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"kind": "ReplicaSet", "uid": "7"}]},
       "spec": {"nodeName": "a", "containers": [{"image": "irbull/dolly:0.2"}]},
       "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "now"}]}}


# Acts

def test_an_act_done_once_is_right_and_twice_or_never_is_not() -> None:
    usual = Counter({CREATE: 1, PATCH: 1})
    assert invariants.done_once(usual, usual, 0) == []
    assert invariants.done_once(usual, usual + Counter({CREATE: 1}), 0) == [
        "kubectl create deployments/default/dolly: 2 times, undisturbed: 1"]
    assert len(invariants.done_once(usual, Counter({PATCH: 1}), 0)) == 1
    assert len(invariants.done_once(usual, usual + Counter({("kubectl", "delete", "pods/default/x"): 1}), 0)) == 1


def test_helm_may_repeat_itself_only_after_an_undoing() -> None:
    usual = Counter({CREATE: 1, PATCH: 1})
    again = usual + Counter({PATCH: 1, ("helm", "delete", "secrets/gpu-operator/release"): 1})
    assert len(invariants.done_once(usual, again, 0)) == 2
    assert invariants.done_once(usual, again, 1) == []
    assert len(invariants.done_once(usual, again + Counter({CREATE: 1}), 1)) == 1, "kubectl may not"
    records = [{"kind": "notebook", "stage": "gpu_operator", "state": "started"},
               {"kind": "intent", "argv": ["helm", "uninstall", "x"]},
               {"kind": "notebook", "stage": "teardown", "state": "started"},
               {"kind": "intent", "argv": ["helm", "uninstall", "x"]}]
    assert invariants.undone(records) == 1


def test_the_audit_log_counts_what_was_done_and_not_what_was_tried() -> None:
    def line(code: int = 201, **fields: Any) -> str:
        event = {"verb": "create", "userAgent": "kubectl/v1", "requestURI": "/x", "responseStatus": {"code": code},
                 "objectRef": {"resource": "deployments", "namespace": "default", "name": "dolly"}}
        return json.dumps(event | fields)

    found = audit.writes([line(), line(), line(409), line(requestURI="/x?dryRun=All"), line(userAgent="Helm/4"), line()[:40],
                          line(objectRef={"resource": "pods", "name": "x", "subresource": "exec"})])
    assert found == {CREATE: 2, ("helm", *CREATE[1:]): 1}


def test_a_second_cluster_and_a_container_started_anew_are_found() -> None:
    one, two = ({"kind": "identity", "uid": uid} for uid in "12")
    assert invariants.one_cluster([one, one], "1") == []
    assert invariants.one_cluster([one, two], "2")
    assert invariants.one_cluster([one], "2")
    assert invariants.one_stretch({}) == []
    assert invariants.one_stretch({"dolly": 1}) == ["pod dolly was restarted 1 times"]


def test_an_intent_without_an_end_is_found() -> None:
    intent, result = {"kind": "intent", "id": "1", "shown": "helm upgrade"}, {"kind": "result", "id": "1"}
    assert invariants.closed([intent, result]) == []
    assert invariants.closed([intent]) == ["no result of: helm upgrade"]


# The state

def collected(*pods: dict[str, Any]) -> state.Objects:
    return state.collect([("pods", pod) for pod in pods], "/runs/chaos")


def changed(**spec: Any) -> dict[str, Any]:
    pod = copy.deepcopy(POD)
    pod["spec"] |= spec
    return pod


def test_what_differs_between_any_two_clusters_does_not_count() -> None:
    other = json.dumps(POD)
    for one, another in (("x7k2p", "bbbbb"), ("10.0.0.1", "10.0.0.9"), ('"uid": "1"', '"uid": "2"'), ('"now"', '"then"'),
                         ('"nodeName": "a"', '"nodeName": "b"')):
        assert one in other
        other = other.replace(one, another)
    assert invariants.same_state(collected(POD), collected(json.loads(other))) == []


@pytest.mark.parametrize(("found", "told"), [
    ([changed(containers=[{"image": "irbull/dolly:0.3"}])], "irbull/dolly:0.3"),
    ([changed(priority=1)], "priority"),
    ([POD, POD], "pods/default/dolly-5fb-*#2"),
    ([], "absent")])
def test_a_changed_a_second_and_a_missing_object_are_found(found: list[dict[str, Any]], told: str) -> None:
    assert told in " ".join(invariants.same_state(collected(POD), collected(*found)))


def test_what_kubernetes_makes_for_itself_is_not_ours() -> None:
    assert not state.ours("configmaps", {"name": "kube-root-ca.crt", "namespace": "default"})
    assert not state.ours("clusterroles", {"name": "system:node"})
    assert state.ours("clusterroles", {"name": "gpu-operator"})
    assert state.ours("pods", POD["metadata"])


# What is left

@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    made = Lane(tmp_path / "lane", 1)
    made.folder.mkdir(parents=True)
    yield made
    made.close()


ORPHAN = """
import os, socket, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
        os.execve("/bin/sleep", ["sleep", "20"], {}) if sys.argv[2] == "deaf" else time.sleep(20)
    os._exit(0)
os.wait()
time.sleep(0.5)
"""
"""Leaves a process in a session of its own, with nothing in its environment."""


@pytest.mark.parametrize("how", ["deaf", "listening"])
def test_an_orphan_and_its_port_are_found(lane: Lane, how: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert invariants.nothing_left(leftovers.after(lane, {port})) == []
    program = lane.root / "gpurunbook" / "__main__.py"  # nearer to the checkout than ours
    program.parent.mkdir()
    (program.parent / "__init__.py").touch()
    program.write_text(ORPHAN)
    assert lane.live([str(port), how], real=True).code == 0
    found = leftovers.after(lane, {port}) | {"folder": []}
    assert len(found["process"]) == 1
    assert found["port"] == ([str(port)] if how == "listening" else [])
    assert len(invariants.nothing_left(found)) == 1 + (how == "listening")
    subprocess.run(["kill", "-9", found["process"][0].split()[0]], check=True)
    assert lane.left() == []


def test_folders_and_half_written_files_are_found(lane: Lane) -> None:
    (lane.folder / "rehearsal" / "pods").mkdir(parents=True)
    (lane.folder / "report.html.making").touch()
    assert len(invariants.nothing_left(leftovers.after(lane, set()))) == 2


# Boundaries

def test_the_same_step_has_the_same_name_in_every_life() -> None:
    def names(pid: str, waits: int) -> list[str]:
        namer = Namer()
        act = [{"kind": "intent", "id": pid, "argv": ["/x/helm"], "why": "install"}, {"kind": "pid", "id": pid},
               {"kind": "result", "id": pid}]
        wait = {"kind": "wait", "what": "ready", "blocker": "no"}
        begun, ended = ({"kind": "notebook", "stage": "model", "state": state} for state in ("started", "ended"))
        return [namer.name(r) for r in [{"kind": "result", "id": "elder"}, begun, *act, *[wait] * waits, *act, ended,
                                        {"kind": "run", "state": "kept"}]]

    assert list(dict.fromkeys(names("1", 1))) == list(dict.fromkeys(names("2", 5)))
    assert names("1", 1)[2:5] == ["model: intent helm, install", "model: pid helm, install", "model: result helm, install"]
    assert "model: intent helm, install (2)" in names("1", 1)
    assert names("1", 1)[-1] == "walk: run kept"


def test_points_are_spread_evenly_and_drawn_by_the_seed() -> None:
    names = [f"step {n}" for n in range(100)]
    drawn = spread(names, 20, 7)
    assert drawn == spread(names, 20, 7) != spread(names, 20, 8)
    places = [names.index(point.partition(" ")[2]) for point in drawn]
    assert len(set(drawn)) == 20
    assert {b - a for a, b in pairwise(places)} <= {4, 5, 6}
    words = Counter(points(name, 7)[0].split()[0] for name in names)
    assert 10 < words["torn"] < 45


@pytest.mark.parametrize(("which", "kept"), [(0, ["a"]), (1, ["a", "b"])])
@pytest.mark.parametrize("seed", range(4))
def test_a_runner_dies_at_its_point(tmp_path: Path, seed: int, which: int, kept: list[str]) -> None:
    point = points("walk: note b", seed)[which]
    script = ("import sys; from pathlib import Path; from gpurunbook.journal import Journal\n"
              "from tests.chaos.runner import Arms, Trace, arm\n"
              "folder = Path(sys.argv[1]); arm(Arms((sys.argv[2],), seed=int(sys.argv[3])), folder, Trace(folder / 'trace'))\n"
              "for name in 'abc': Journal(folder).append('note', name=name)")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), point, str(seed)], check=False)
    assert done.returncode == -9
    assert [r["name"] for r in Journal(tmp_path).records()] == kept
    assert Journal(tmp_path).path.read_bytes().endswith(b"\n") != point.startswith("torn")
    assert json.loads((tmp_path / "trace").read_text().splitlines()[-1])["at"] == point


def test_the_furthest_stage_that_is_done_is_looked_at(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("run", state="started", target="rehearsal", cluster_file="c")
    assert newest_done(tmp_path) == ""
    for stage in ("provision", "nodes"):
        journal.append("stage", stage=stage, state="done")
    journal.append("stage", stage="taint", state="started")
    assert newest_done(tmp_path) == "nodes"
    journal.append("stage", stage="teardown", state="started")
    assert newest_done(tmp_path) == ""
