"""An open run that looks: once, followed, waited for, with exec tried; against a small API server and a kubectl of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from gpurunbook.cli import gpu as cli_gpu
from gpurunbook.command import Command, Result
from gpurunbook.config import load_cluster
from gpurunbook.deployment import RUN_LABEL
from gpurunbook.errors import CommandFailed, ConfigError, RunbookError
from gpurunbook.programs.helm import Helm, Release
from gpurunbook.programs.kubectl import Kubectl
from gpurunbook.readiness import look, probe, smoke, waiting
from gpurunbook.readiness.diagnose import standing
from gpurunbook.readiness.reading import Reader
from gpurunbook.readiness.snapshot import Snapshot, labels
from gpurunbook.runbook import Run
from gpurunbook.stages import gpu_operator
from gpurunbook.targets.eks.target import Eks
from tests.readiness import NOW, get, healthy, model, node, waits, without
from tests.readiness_api import PATHS, Api, serving

ROOT = Path(__file__).resolve().parents[2]
Kubectls = Callable[[Command], tuple[int, str, str]]


def works(command: Command) -> tuple[int, str, str]:
    """An exec into a healthy pod."""
    return (0, "tar (GNU tar) 1.35\n", "") if "tar" in command.argv else (0, f"{command.argv[-1]}\n", "")


class Looking(Run):
    """A run whose cluster is the server, and whose kubectl is a function."""

    def __init__(self, folder: Path, reader: Reader, kubectl: Kubectls) -> None:
        folder.mkdir()
        target = Eks()
        super().__init__(ROOT, folder, target, load_cluster(ROOT / "cluster.yaml"), "gpu_operator")
        self.reader, self.played, self.asked = reader, kubectl, list[Command]()
        server = reader._client.configuration.host
        self.kubeconfig.write_text(json.dumps({
            "current-context": "work", "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
            "clusters": [{"name": "work", "cluster": {"server": server}}], "users": [{"name": "me", "user": {}}]}))

    def client(self, group: str) -> Any:
        from types import SimpleNamespace
        return SimpleNamespace(api_client=self.reader._client)

    @cached_property
    def kubectl(self) -> Kubectl:
        return Kubectl("/bin/kubectl", self.kubeconfig, "work")

    def ask(self, command: Command, check: bool = True) -> Result:
        self.asked.append(command)
        code, out, said = self.played(command)
        return Result(command, code, out.encode(), said, 0.1)


@contextmanager
def looking(folder: Path, found: Snapshot, kubectl: Kubectls = works) -> Iterator[tuple[Looking, Api]]:
    """A run on a cluster with these objects, moved so that they are of now."""
    api = Api(moved(found))
    with serving(api) as reader:
        yield Looking(folder / "test", reader, kubectl), api


def moved(found: Snapshot) -> Snapshot:
    """The fixtures' objects with times of today, and node labels as cluster.yaml has its groups'."""
    by = datetime.now(UTC) - NOW

    def later(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: later(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(later, value))
        try:
            return (datetime.fromisoformat(value) + by).isoformat() if isinstance(value, str) and "T" in value else value
        except ValueError:
            return value

    for one in found.nodes:
        one["metadata"]["labels"]["alpha.eksctl.io/nodegroup-name"] = labels(one)["group"]
    return replace(found, **{kind: later(getattr(found, kind)) for kind in PATHS})


def test_once_reads_everything_and_tries_exec(tmp_path: Path) -> None:
    with looking(tmp_path, healthy()) as (run, _):
        found = look.once(run)
        assert (standing(found.ladder), found.ladder.findings) == ("done", ())
        assert {step.state for step in found.ladder.nodes[0].steps} == {"done"}
        assert len(run.asked) == 2
        again = look.once(run, exec_too=False)
    assert again.ladder.nodes[0].steps[-1].state == "unknown"
    assert len(run.asked) == 2


def test_each_of_several_model_pods_is_asked(tmp_path: Path) -> None:
    s = healthy()
    s = replace(s, nodes=(*s.nodes, node("ip-10-0-0-9")), pods=(*s.pods, model("ip-10-0-0-9")))
    s.pods[-1]["metadata"] |= {"name": "dolly-2", "uid": "second"}
    with looking(tmp_path, s) as (run, _):
        once = look.once(run)
        assert [n.steps[-1].state for n in once.ladder.nodes] == ["done", "done"]
        states = []
        for seen in look.follow(run, timeout=20, over=lambda one: all(n.steps[-1].state == "done" for n in one.ladder.nodes)):
            states.append([n.steps[-1].state for n in seen.ladder.nodes].count("done"))
    assert states[0] == 1, "one at a time: the ladder is shown meanwhile"
    assert states[-1] == 2


def test_a_run_without_a_cluster_and_one_that_leads_elsewhere(tmp_path: Path) -> None:
    with looking(tmp_path, healthy()) as (run, _):
        run.journal.append("identity", server="https://another", ca_sha256="0", uid="1")
        assert [f.cause for f in look.once(run).ladder.findings] == ["wrong-kubeconfig"]
        [only] = look.follow(run, timeout=5, over=lambda one: False)
        assert "not the one this run began with" in only.ladder.findings[0].evidence
        run.kubeconfig.unlink()
        with pytest.raises(RunbookError, match="has no cluster"):
            look.once(run)


def test_a_sign_in_that_expired_is_told_from_the_first_request(tmp_path: Path) -> None:
    with looking(tmp_path, healthy()) as (run, api):
        api.answers["/api/v1/namespaces/kube-system"] = lambda _: (401, {"message": "Unauthorized"}, {})
        assert [f.cause for f in look.once(run).ladder.findings] == ["signed-out"]


def test_it_is_followed_until_it_is_over_and_a_node_that_goes_is_missing_from_then_on(tmp_path: Path) -> None:
    with looking(tmp_path, healthy()) as (run, api):
        run.journal.append("stage", stage="provision", state="started")
        looks = look.follow(run, timeout=20, over=lambda one: one.ladder.nodes[0].node == "1 missing")
        first = next(looks)
        assert standing(first.ladder) == "done"
        api.changes["/api/v1/nodes"].put({"type": "DELETED", "object": Api.version(api.items["/api/v1/nodes"][0], 20)})
        *_, last = looks
    assert (last.ladder.findings, last.ladder.nodes[0].steps[0].state) == ((), "waiting")


def test_a_wait_ends_when_the_rung_is_reached_and_is_journalled(tmp_path: Path) -> None:
    s = without(healthy(), "dolly-1", "gpu-smoke-1")
    get(s, "ip-10-0-0-1.ec2.internal")["status"]["allocatable"] = {}
    get(s, "plugin-1")["status"]["conditions"][1]["lastTransitionTime"] = NOW.isoformat()
    with looking(tmp_path, s) as (run, api):
        full = moved(healthy()).nodes[0]
        api.changes["/api/v1/nodes"].put({"type": "MODIFIED", "object": Api.version(full, 20)})
        found = waiting.wait(run, "allocatable", policy=True)
    assert found.nodes[0].held("allocatable") is None
    waits_ = [r for r in run.journal.records() if r["kind"] == "wait"]
    assert waits_[-1]["blocker"] == ""
    assert json.loads((run.artifacts / waiting.FILE).read_text())["nodes"][0]["node"] == "ip-10-0-0-1.ec2.internal"


def test_a_wait_raises_what_is_wrong_with_why_and_what_next(tmp_path: Path) -> None:
    s = healthy()
    waits(get(s, "driver-1"), "CrashLoopBackOff", restarts=6)
    with looking(tmp_path, s) as (run, _), pytest.raises(RunbookError) as told:
        waiting.wait(run, "allocatable", policy=True)
    assert "driver-crash-loop" in told.value.what
    assert "headers for the node's kernel" in told.value.what
    assert told.value.where == "gpurunbook gpu --run-id test", "that has the export line"
    assert told.value.next == "kubectl logs -n gpu-operator driver-1 --all-containers --previous --tail=40"


def test_a_wait_raises_where_nothing_goes_on_without_a_person(tmp_path: Path) -> None:
    s = without(healthy(), "dolly-1", "gpu-smoke-1")
    with looking(tmp_path, s) as (run, _), pytest.raises(RunbookError, match="no smoke pod yet") as told:
        waiting.wait(run, "smoke", policy=False)
    assert told.value.next == "gpurunbook run --run-id test --from gpu_operator --until gpu_operator"


def denied(kind: str) -> Callable[[dict[str, str]], tuple[int, dict[str, Any], dict[str, str]]]:
    return lambda _: (403, {"message": f'{kind} is forbidden: User "eve" cannot list'}, {})


def test_a_wait_goes_on_over_a_release_that_may_not_be_read_and_not_over_nodes(tmp_path: Path) -> None:
    with looking(tmp_path, healthy()) as (run, api):
        api.answers[PATHS["releases"]] = denied("secrets")
        assert waiting.wait(run, "allocatable", policy=True).findings == ()
        api.answers["/api/v1/nodes"] = denied("nodes")
        with pytest.raises(RunbookError, match="cannot be told: nodes cannot be read"):
            waiting.wait(run, "allocatable", policy=True)


def test_no_wait_for_a_smoke_pod_that_cannot_run(tmp_path: Path) -> None:
    s = without(healthy(), "gpu-smoke-1")
    get(s, "dolly-1")["status"]["conditions"] = get(s, "dolly-1")["status"]["conditions"][:1]
    with looking(tmp_path, s) as (run, _):
        found = waiting.wait(run, "smoke", policy=False)
    assert next(c.state for c in waiting.checks(found) if c.name == "CUDA smoke pod") == "unknown"


@pytest.mark.parametrize("kind", ["nodes", "pods"])
def test_no_smoke_pod_is_planned_on_what_cannot_be_read(tmp_path: Path, kind: str) -> None:
    with looking(tmp_path, healthy()) as (run, api):
        for path in [PATHS[kind], "/api/v1/namespaces/gpu-operator/pods"]:
            api.answers[path] = denied(kind)
        with pytest.raises(RunbookError, match=f"{kind} cannot be read"):
            smoke.plan(run)


@pytest.mark.parametrize(("kubectl", "whole", "tar", "said"), [
    (works, True, True, "tar (GNU tar) 1.35"), (lambda _: (0, "", ""), False, None, ""),
    (lambda _: (1, "", "error reading from error stream: unexpected EOF\n"), False, None, "unexpected EOF"),
    (lambda c: works(c) if "tar" not in c.argv else (1, "", 'exec: "tar": executable file not found in $PATH'), True, False,
     "tar")])
def test_exec_is_asked_with_a_word_that_proves_the_end(tmp_path: Path, kubectl: Kubectls, whole: bool, tar: bool | None,
                                                       said: str) -> None:
    with looking(tmp_path, healthy(), kubectl) as (run, _):
        found = probe.ask(run, look.names(run), get(healthy(), "dolly-1"))
    assert (found.whole, found.tar) == (whole, tar)
    assert said in found.said
    first = run.asked[0].argv
    assert first[-2] == "echo"
    assert first[-1].startswith("whole-")


def test_exec_that_never_answers_is_a_stream_that_broke(tmp_path: Path) -> None:
    def never(command: Command) -> tuple[int, str, str]:
        raise CommandFailed("it was ended at its limit", result=Result(command, -15, b"", "", 20))

    with looking(tmp_path, healthy(), never) as (run, _):
        found = look.once(run)
    assert [f.cause for f in found.ladder.findings] == ["exec-stream-cut"]


def test_the_names_of_a_run_are_its_own(tmp_path: Path) -> None:
    with looking(tmp_path, healthy()) as (run, _):
        names = look.names(run)
        assert (names.run, names.wanted, names.ours, names.alone, names.cut_short) == ("test", 1, True, False, None)
        intent = {"id": "1", "argv": ["helm", "upgrade", "--install", "gpu-operator"], "stage": "gpu_operator", "changes": True,
                  "shown": "helm", "by": {"pid": 1, "started": 0.0}}
        run.journal.append("intent", **intent)
        began = look.names(run).cut_short
        assert began is not None
        assert abs(began - datetime.now(UTC)) < timedelta(minutes=1)
        run.journal.append("result", id="1", code=0)
        assert look.names(run).cut_short is None
    assert RUN_LABEL == "gpurunbook.dev/run"


def test_a_release_that_somebody_else_may_be_installing_is_not_torn_away(tmp_path: Path) -> None:
    name = "gpu-operator"
    chart = gpu_operator.Chart("nvidia", "https://charts", "v26.7.0", name, name, f"nvidia/{name}", "", True)
    pending = Release(name, "pending-install", f"{name}-v26.7.0", 1)
    with looking(tmp_path, healthy()) as (run, _):
        run.__dict__["helm"] = Helm("/bin/helm", run.kubeconfig, "work", run.folder / "helm")
        run.__dict__["header"] = ""
        facts = gpu_operator.Facts(chart, pending, {}, "", ())
        with pytest.raises(RunbookError, match="this run's helm did not leave it so"):
            gpu_operator.plan(run, facts)
        run.journal.append("intent", id="1", argv=["helm", "upgrade", "--install", "gpu-operator"], stage="gpu_operator")
        assert [c.short.split()[1] for c in gpu_operator.plan(run, facts)] == ["uninstall", "upgrade"]


def test_what_the_cluster_says_is_printed_without_its_controls_and_with_the_export_line(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s = healthy()
    waits(get(s, "dolly-1"), "ImagePullBackOff", "not found \x9b31m \u202e")
    with looking(tmp_path, s) as (run, _):
        run.__dict__["header"] = "export KUBECONFIG=here"
        found = look.once(run)
    cli_gpu.tell(run, found, as_json=True)
    printed = capsys.readouterr().out
    assert printed.isascii()
    whole = json.loads(printed)
    assert (whole["export"], whole["standing"]) == ("export KUBECONFIG=here", "trouble")
    assert "\x9b" in whole["findings"][0]["evidence"], "it is there, escaped"
    cli_gpu.tell(run, found, as_json=False)
    printed = capsys.readouterr().out
    assert not {"\x9b", "\u202e"} & set(printed)
    assert printed.index("export KUBECONFIG=here") < printed.index("next: kubectl describe pod")


def test_an_unknown_target_is_said_to_be_unknown() -> None:
    with pytest.raises(ConfigError, match="unknown target 'bogus'"):
        cli_gpu._open("bogus", "", "")
