"""The table of what a plan changed: a real HTTP server stands for the API server, a file that a command makes for its state."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gpurunbook import changed, glance, interrupted
from gpurunbook.changed import differences, table
from gpurunbook.command import Command
from gpurunbook.config import load_cluster
from gpurunbook.errors import CommandFailed
from gpurunbook.glance import Look
from gpurunbook.runbook import Run
from gpurunbook.targets.existing import Existing

ROOT = Path(__file__).parents[2]
TAINT = {"key": "k", "effect": "NoSchedule"}
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/dolly-v2-deployment"


OPERATOR = "/api/v1/namespaces/gpu-operator"
SECRETS = f"{OPERATOR}/secrets"
OURS = {"alpha.eksctl.io/nodegroup-name": "gpu-workers"}
RELEASE = {"app.kubernetes.io/instance": "gpu-operator"}


class Owned(Existing):
    """A cluster that is the run's own, opened by a kubeconfig."""

    ours = True


def node(name: str, taints: list[dict[str, str]], gpus: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": OURS if labels is None else labels}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": gpus}}}


@dataclass
class World:
    """What the server answers: path -> object, or a status; `later` once the file is there. `slow`: paths without an answer."""

    file: Path
    now: dict[str, Any]
    later: dict[str, Any]
    slow: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> Any:
        self.asked.append(path)
        if path in self.slow:
            time.sleep(glance.ONE_SECONDS + 1)
        found = {**self.now, **(self.later if self.file.exists() else {})}
        return found.get(path, 404 if "/deployments/" in path or "/daemonsets/" in path or path == OPERATOR else {"items": []})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "done", {"/api": {},
                                     "/api/v1/nodes": {"items": [node("a", [TAINT], "0"), node("b", [], "0")]}}, {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = made.answer(urlsplit(self.path).path)
            body = json.dumps({} if isinstance(found, int) else found).encode()
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked had no more time
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "x"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}]}))
        yield made
        server.shutdown()
        thread.join(timeout=5)


@pytest.fixture
def run(world: World) -> Run:
    return opened(world, "teardown")


def opened(world: World, stage: str, target: Existing | None = None) -> Run:
    """Of a stage that looks at everything, as far as nothing else is said."""
    return Run(ROOT, world.file.parent, target or Owned(), load_cluster(ROOT / "cluster.yaml"), stage)


def pod(name: str, labels: dict[str, str], owner: str = "") -> dict[str, Any]:
    owners = [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": owner}] if owner else []
    return {"metadata": {"name": name, "labels": labels, "ownerReferences": owners}, "status": {"phase": "Running"}}


def workload(name: str, labels: dict[str, str], owner: tuple[str, str] | None = None) -> dict[str, Any]:
    owners = [{"apiVersion": owner[0], "kind": owner[1], "name": "o"}] if owner else []
    return {"metadata": {"name": name, "labels": labels, "ownerReferences": owners}, "status": {"numberReady": 1,
            "desiredNumberScheduled": 1}, "spec": {"template": {"spec": {"containers": [{"image": "x/y:1"}]}}}}


def touch(world: World, *argv: str) -> Command:
    return Command(argv or ("touch", str(world.file)), why="do it", limit=5)


def rows(run: Run) -> list[list[str]]:
    record = run.journal.last("changed")
    assert record is not None
    return record["rows"]  # type: ignore[no-any-return]


def kinds(run: Run) -> list[str]:
    return [record["kind"] for record in run.journal.records() if record["kind"] in ("before", "intent", "result", "changed")]


# Around a plan

def test_what_a_plan_changed_is_shown_and_journalled_around_its_commands(run: Run, world: World,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    world.later = {"/api/v1/nodes": {"items": [node("a", [], "1"), node("b", [], "0")]},
                   DEPLOYMENT: {"metadata": {"name": "dolly"}, "status": {"readyReplicas": 1}, "spec": {
                       "replicas": 1, "template": {"spec": {"containers": [{"image": "x/y:1"}]}}}},
                   "/api/v1/namespaces/default/pods": {"items": [
                       pod("a", {"app": "dolly-v2"}), pod("b", {"app": "dolly-prepull"}), pod("c", {"app": "other"})]}}
    run.apply(run.plan([touch(world)], "as asked"))
    assert kinds(run) == ["before", "intent", "result", "changed"]
    assert rows(run) == [["node a: taints", "k:NoSchedule", "none"], ["node a: allocatable GPUs", "0", "1"],
                         ["Deployment dolly", "absent", "ready 1/1, x/y:1"], ["pods in default", "none", "2 Running"]]
    assert ("what changed in the cluster, of its nodes, namespaces, Helm releases, Deployments, DaemonSets, pods\nobject"
            in capsys.readouterr().out)


def test_a_command_that_made_what_is_not_looked_at_is_not_told_to_have_done_nothing(world: World,
                                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    """A ClusterRole, a ConfigMap: the command's own lines say so, right above."""
    provision = opened(world, "provision")
    provision.apply(provision.plan([touch(world, "echo", "clusterrole created")], "as asked"))
    said = capsys.readouterr().out
    assert "no change in what is looked at (nodes); the lines above tell what else was done" in said
    assert "nothing" not in said


def test_nothing_is_asked_for_a_plan_that_no_object_shows(run: Run, world: World) -> None:
    run.apply(run.plan([], "nothing to do"))
    run.apply(run.plan([Command(("true",), why="it reads", limit=5, changes=False)], "r"))
    run.apply(run.plan([Command(("echo", "exec"), why="in a pod", limit=5)], "r"))
    assert (world.asked, "before" in kinds(run)) == ([], False)


@pytest.mark.parametrize(("answer", "why"), [(403, "your rights do not show"), (500, "answer 500")])
def test_what_may_not_be_read_is_left_out_and_said(run: Run, world: World, answer: int, why: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    world.now |= {OPERATOR: answer, SECRETS: answer, f"{OPERATOR}/pods": answer}
    world.later = {"/api/v1/nodes": {"items": []}}
    run.apply(run.plan([touch(world)], "as asked"))
    assert [row[0] for row in rows(run)] == ["node a", "node b"]
    assert f"; {why}: namespaces, Helm releases, what is in gpu-operator\n" in capsys.readouterr().out


def test_an_answer_that_does_not_come_costs_no_more_than_its_time(run: Run, world: World,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "SECONDS", 0.6)
    monkeypatch.setattr(glance, "ONE_SECONDS", 0.4)
    world.slow = (OPERATOR, SECRETS)
    began = time.monotonic()
    seen = glance.look(run)
    assert time.monotonic() - began < 1.5
    assert "namespace" in seen.left_out
    assert {why for kind, why in seen.left_out.items() if kind != "namespace"} == {"too slow to be seen"}
    assert seen.seen["node"].keys() == {"a", "b"}, "what came in time counts"


def test_a_long_list_is_left_out(run: Run, world: World) -> None:
    world.now["/api/v1/nodes"] = {"metadata": {"continue": "x"}, "items": [node("a", [], "0")]}
    assert glance.look(run).left_out["node"] == f"more than {glance.MOST_OBJECTS}, not compared"


@pytest.mark.parametrize("answer", [[1], {"items": [{}]}, {"items": 1}, "text"])
def test_an_answer_that_is_none_does_not_fail_the_plan(run: Run, world: World, answer: Any,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    world.now["/api/v1/nodes"] = answer
    run.apply(run.plan([touch(world)], "as asked"))
    assert world.file.exists()
    assert rows(run) == []
    assert run.journal.last("changed")["left_out"]["cluster"].startswith("could not be compared (")  # type: ignore[index]


# A cluster that comes or goes

def test_a_cluster_that_comes_to_be_and_one_that_goes(run: Run, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    away = run.kubeconfig.with_name("away")
    run.kubeconfig.rename(away)
    run.apply(run.plan([touch(world, "mv", str(away), str(run.kubeconfig))], "make it"))
    assert rows(run) == [["cluster", "absent", "its API server answers"],
                         ["node a", "absent", "Ready, taints k:NoSchedule, allocatable GPUs 0"],
                         ["node b", "absent", "Ready, taints none, allocatable GPUs 0"]]
    run.apply(run.plan([touch(world, "rm", str(run.kubeconfig))], "end it"))
    assert [row[::2] for row in rows(run)] == [["cluster", "absent"], ["node a", "absent"], ["node b", "absent"]]
    capsys.readouterr()
    run.apply(run.plan([touch(world)], "no cluster before, none after"))
    assert "changed" not in capsys.readouterr().out


def test_of_a_cluster_that_is_not_ours_nothing_comes_or_goes_with_the_kubeconfig(run: Run, world: World,
                                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    theirs, away = opened(world, "teardown", Existing()), world.file.with_name("away")
    theirs.kubeconfig.rename(away)
    theirs.apply(theirs.plan([touch(world, "mv", str(away), str(theirs.kubeconfig))], "take it over"))
    assert rows(theirs) == []
    theirs.apply(theirs.plan([touch(world, "rm", str(theirs.kubeconfig))], "leave it"))
    assert rows(theirs) == []
    assert "in the cluster" not in capsys.readouterr().out


@pytest.mark.parametrize("silent", ["before", "after"])
def test_a_cluster_that_does_not_answer_is_not_one_where_all_is_gone(run: Run, world: World, silent: str,
                                                                     monkeypatch: pytest.MonkeyPatch,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(glance, "ONE_SECONDS", 0.2)
    world.slow = ("/api",) if silent == "before" else ()
    before = glance.look(run)
    world.slow = () if silent == "before" else ("/api",)
    changed.tell(run, before, glance.look(run))
    assert rows(run) == []
    assert "what changed in the cluster was not seen: it does not answer" in capsys.readouterr().out


def test_a_program_that_signs_in_slowly_is_not_waited_for(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load(run.kubeconfig.read_text())
    config["users"][0]["user"] = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["5"],
                                           "interactiveMode": "Never"}}
    run.kubeconfig.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(glance, "SECONDS", 0.3)
    began = time.monotonic()
    assert glance.look(run).left_out == {"cluster": "does not answer"}
    assert time.monotonic() - began < 2


def test_only_02_and_09_which_make_and_end_the_kubeconfig_have_a_client_of_their_own(run: Run, world: World) -> None:
    """The run's would go on to answer for the kubeconfig as it is now; elsewhere it has signed in already."""
    glance.look(run)
    assert "_api_client" not in vars(run)
    model = opened(world, "model")
    client = model.core.api_client
    glance.look(model)
    assert model.core.api_client is client


# Whose it is

def test_a_stage_asks_for_what_its_plans_can_change(world: World) -> None:
    glance.look(opened(world, "model"))
    assert world.asked == ["/api", DEPLOYMENT, "/apis/apps/v1/namespaces/default/daemonsets/dolly-prepull",
                           "/api/v1/namespaces/default/pods"]
    world.asked.clear()
    glance.look(opened(world, "provision"))
    assert world.asked == ["/api", "/api/v1/nodes"]


def test_what_is_others_is_not_looked_at(world: World) -> None:
    label = {"gpurunbook.dev/run": world.file.parent.name}
    world.now |= {
        "/api/v1/nodes": {"items": [node("ours", [], "1"), node("theirs", [], "1", {"pool": "x"})]},
        DEPLOYMENT: workload("dolly-v2-deployment", {}),
        "/api/v1/namespaces/default/pods": {"items": [pod("a", {"app": "gpu-smoke"}),
                                                      pod("b", {"app": "dolly-v2", **label})]},
        "/apis/apps/v1/namespaces/gpu-operator/daemonsets": {"items": [
            workload("plugin", {}, ("nvidia.com/v1", "ClusterPolicy")), workload("nfd", RELEASE), workload("agent", {"a": "b"})]},
        f"{OPERATOR}/pods": {"items": [pod("p", {}, "plugin"), pod("q", {}, "agent"), pod("r", RELEASE)]}}
    seen = glance.look(opened(world, "teardown", Existing())).seen
    assert list(seen["node"]) == ["ours"]
    assert seen["Deployment"] == {}, "of our name, and without this run's label"
    assert list(seen["DaemonSet in gpu-operator"]) == ["nfd", "plugin"]
    assert seen["pods in default"] == {"": {"": "1 Running"}}
    assert seen["pods in gpu-operator"] == {"": {"": "2 Running"}}
    assert glance.look(opened(world, "teardown")).seen["pods in default"] == {"": {"": "2 Running"}}


def test_a_release_is_the_newest_revision_whatever_else_is_labelled_so(run: Run, world: World) -> None:
    world.now[SECRETS] = {"items": [{"metadata": {"labels": {"owner": "helm"}}}, {"metadata": {}}, *(
        {"metadata": {"labels": {"version": version, "status": status}}}
        for version, status in (("9", "superseded"), ("10", "deployed"), ("x", "y")))]}
    assert glance.look(run).seen["Helm release"] == {"gpu-operator": {"status": "deployed", "revision": "10"}}
    assert "/api/v1/secrets" not in world.asked


# Killed, and gone on with

def test_whoever_goes_on_sees_what_the_killed_one_had_done(run: Run, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.later = {"/api/v1/nodes": {"items": [node("a", [], "1"), node("b", [], "0")]}}
    child = os.fork()
    if not child:
        plan = run.plan([touch(world), touch(world, "sh", "-c", f"kill -9 {os.getpid()}; sleep 5")], "killed on the way")
        run.apply(plan)
    os.waitpid(child, 0)
    assert kinds(run)[-1] == "intent"
    interrupted.close(run.journal)
    capsys.readouterr()
    run.apply(run.plan([], "nothing is missing any more"))
    assert rows(run) == [["node a: taints", "k:NoSchedule", "none"], ["node a: allocatable GPUs", "0", "1"]]
    assert "UTC, when an earlier try began" in capsys.readouterr().out
    asked = len(world.asked)
    run.apply(run.plan([], "and once more"))
    assert len(world.asked) == asked, "it is told once"


def test_a_plan_that_failed_is_told_with_the_one_that_ends_well(run: Run, world: World) -> None:
    world.later = {"/api/v1/nodes": {"items": []}}
    with pytest.raises(CommandFailed):
        run.apply(run.plan([touch(world), touch(world, "false")], "fails on the way"))
    assert kinds(run)[-1] == "result"
    run.apply(run.plan([touch(world, "true")], "once more"))
    assert [row[0] for row in rows(run)] == ["node a", "node b"]


def test_a_second_look_tells_what_came_after_the_command(run: Run, world: World) -> None:
    run.journal.append("stage", stage="teardown", state="started")
    assert "no command ran in this notebook" in repr(changed.since_plan(run))
    run.apply(run.plan([touch(world, "true")], "as asked"))
    assert rows(run) == []
    world.file.touch()
    world.later = {"/api/v1/nodes": {"items": [node("a", [TAINT], "2"), node("b", [], "0")]}}
    run.journal.append("stage", stage="teardown", state="failed")  # interrupted in its wait, and gone on with
    told = repr(changed.since_plan(run)).splitlines()
    assert told[-1].split() == ["node", "a:", "allocatable", "GPUs", "0", "2"]
    assert told[0].endswith(" UTC, before the command: by it, and by others meanwhile")
    run.journal.append("stage", stage="teardown", state="started")
    assert "no command ran in this notebook" in repr(changed.since_plan(run)), "of an earlier walk"


def test_a_second_look_does_not_end_what_another_runner_has_begun(run: Run, world: World) -> None:
    run.journal.append("before", stage=run.stage, seen=glance.look(run).seen, left_out={})
    changed.since_plan(run)
    assert changed.unfinished(run) is not None


def test_a_first_look_of_long_ago_no_longer_counts_and_one_of_yesterday_has_its_date(run: Run, world: World) -> None:
    run.journal.append("before", stage=run.stage, seen=glance.look(run).seen, left_out={})
    old = run.journal.path.read_text().replace(time.strftime("%Y-%m-%d", time.gmtime()), "2001-02-03")
    run.journal.path.write_text(old)
    assert changed.unfinished(run) is None
    assert " since 03 Feb " in repr(changed.since_plan(run))


# What differs

def seen(**kinds_: dict[str, dict[str, str]]) -> Look:
    return Look({"cluster": {"": {"": "v"}}, **kinds_})


def test_many_that_change_alike_share_a_row() -> None:
    before = seen(node={f"n{i}": {"taints": "k"} for i in range(9)})
    after = seen(node={f"n{i}": {"taints": "none"} for i in range(9)})
    assert differences(before, after) == [("node n0 and 8 like it: taints", "k", "none")]


def test_a_table_stays_small() -> None:
    found = differences(seen(node={}), seen(node={f"n{i}": {"GPUs": str(i)} for i in range(99)}))
    assert (len(found), found[-1][0]) == (changed.MOST_ROWS, f"and {99 - changed.MOST_ROWS + 1} more")


def test_a_kind_that_one_look_lacks_is_no_change() -> None:
    assert differences(seen(node={"a": {"GPUs": "1"}}), Look(seen(node={}).seen, {"node": "too slow"})) == []


def test_text_from_the_cluster_is_escaped() -> None:
    page = table([("node <b>\x1b[31m", "<script>", "y")], {"a": "<i>"})._repr_html_()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "\x1b" not in page
