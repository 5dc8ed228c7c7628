"""Copy and exec that hold: what is planned for which pod, and which answer of an exec is believed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.command import Command, Result
from gpurunbook.config import load_cluster
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.programs.kubectl import Kubectl
from gpurunbook.runbook import Run
from gpurunbook.stages import in_pod, model, next_token
from gpurunbook.stages.in_pod import Life, Place
from gpurunbook.targets.rehearsal.cluster import Rehearsal
from tests.answer import line

ROOT = Path(__file__).resolve().parents[2]
DIGEST = hashlib.sha256((ROOT / "manifests/model/main.py").read_bytes()).hexdigest()
PLACE = Place(digest="", tar=True, folder=True, writable=True, user=1000, owner=1000, read_only="")
LIFE = Life(uid="u", restarts=0, alive=True, memory="12Gi")
POD = model.Pod("dolly-1", "Running", "n", True, "", 0)
KUBECTL = Kubectl("/bin/kubectl", Path("/r/kubeconfig"), "ctx")
ANSWER = line()


class Quiet(Run):
    """A run without programs or a cluster."""

    def program(self, name: str) -> str:
        return f"/bin/{name}"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Quiet(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "next_token")
    made.kubeconfig.touch()
    return made


def facts(**place: Any) -> next_token.Facts:
    return next_token.Facts(POD, "dolly", DIGEST, replace(PLACE, **place), LIFE)


def ended(*lines: str, code: int = 0, stderr: str = "", sentinel: str = "end-1") -> Result:
    asked = KUBECTL.exec("dolly-1", "python", "main.py", f"--sentinel={sentinel}", container="dolly", why="w", data=True)
    return Result(asked, code, "\n".join(lines).encode(), stderr, 1.0)


# The copy

def test_with_tar_it_is_copied_beside_and_renamed_when_its_checksum_is_right(run: Run) -> None:
    copy, rename = next_token.plan(run, facts())
    assert copy.short == f"kubectl cp {ROOT}/manifests/model/main.py default/dolly-1:{next_token.NEW} -c dolly --no-preserve=true"
    assert rename.argv[rename.argv.index("--") + 1:] == ("python", "-c", in_pod.RENAME, next_token.PROGRAM, DIGEST)
    assert copy.guarded
    assert rename.guarded


def python(code: str, *args: object, given: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """In a container with nothing but Python in it."""
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], input=given, capture_output=True, check=False,
                          env={"PATH": "/nowhere", **env})


@pytest.mark.parametrize("optimized", ["", "1"])
@pytest.mark.parametrize("arrived", [True, False])
def test_the_rename_happens_only_when_all_arrived(run: Run, tmp_path: Path, arrived: bool, optimized: str) -> None:
    (tmp_path / "main.py").write_text("old")
    whole = (ROOT / "manifests/model/main.py").read_bytes()
    (tmp_path / "main.py.new").write_bytes(whole if arrived else whole[:-1])
    _, rename = next_token.plan(run, facts())
    done = python(rename.argv[-3], tmp_path / "main.py", rename.argv[-1], PYTHONOPTIMIZE=optimized)
    assert (done.returncode == 0) == arrived
    assert (b"it arrived damaged" in done.stderr) != arrived
    assert ((tmp_path / "main.py").read_bytes() == whole) == arrived


def test_without_tar_python_takes_it_from_stdin_and_the_reason_says_so(run: Run) -> None:
    plan = next_token.plan(run, facts(tar=False))
    (put,) = plan
    assert "no tar" in plan.reason
    assert put.stdin == (ROOT / "manifests/model/main.py").read_bytes()
    assert put.short.endswith(f"{next_token.PROGRAM} {DIGEST} < {ROOT}/manifests/model/main.py")
    assert put.full.endswith(f" < {ROOT}/manifests/model/main.py")
    assert "-i" in put.argv
    assert put.guarded


@pytest.mark.parametrize("optimized", ["", "1"])
@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_what_stdin_loses_is_noticed_in_the_pod(run: Run, tmp_path: Path, cut: int, optimized: str) -> None:
    (put,) = next_token.plan(run, facts(tar=False))
    place = tmp_path / "main.py"
    place.write_text("old")
    assert put.stdin is not None
    done = python(put.argv[-3], place, put.argv[-1], given=put.stdin[cut:], PYTHONOPTIMIZE=optimized)
    assert (done.returncode == 0) == (cut == 0)
    assert (place.read_bytes() == put.stdin) == (cut == 0)
    assert ("it arrived damaged" in done.stderr.decode()) == (cut > 0)
    assert not (tmp_path / "main.py.new").exists()


@pytest.mark.parametrize("tar", [True, False])
def test_what_is_there_is_not_copied_again(run: Run, tar: bool) -> None:
    assert not next_token.plan(run, facts(digest=DIGEST, tar=tar))
    assert "another" in next_token.plan(run, facts(digest="0" * 64, tar=tar)).reason


@pytest.mark.parametrize("digest", ["", DIGEST])
@pytest.mark.parametrize(("place", "what", "next_"), [
    ({"read_only": "/"}, "read-only in the pod: its root file system", "readOnlyRootFilesystem"),
    ({"read_only": "/home/bentoml"}, "it lies in the mount /home/bentoml", "readOnly off that volumeMount"),
    ({"owner": 0}, "belongs to uid 0, and the container runs as uid 1000", "runAsUser: 0"),
    ({"folder": False, "owner": -1}, "no folder /home/bentoml/bento", "take an image"),
])
def test_where_nothing_can_be_written_nothing_is_copied(run: Run, place: dict[str, Any], what: str, next_: str,
                                                        digest: str) -> None:
    with pytest.raises(RunbookError, match=what) as raised:
        next_token.plan(run, facts(writable=False, digest=digest, **place))
    assert next_token.FOLDER in raised.value.what
    assert next_ in raised.value.next
    assert f"emptyDir at {next_token.FOLDER}" in raised.value.next


# What the pod says of itself

def look(path: Path) -> Result:
    asked = in_pod.look(KUBECTL, "dolly-1", "dolly", str(path))
    words = asked.argv[asked.argv.index("--") + 2:]
    done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
    return Result(asked, done.returncode, done.stdout, done.stderr.decode(), 0.1)


def test_the_question_is_answered_in_one_call(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("x")
    found = in_pod.place(look(tmp_path / "main.py"))
    assert found.digest == hashlib.sha256(b"x").hexdigest()
    assert found.tar
    assert found.folder
    assert found.writable
    assert found.read_only == ""
    assert found.owner == found.user


def test_an_absent_folder_is_told() -> None:
    found = in_pod.place(look(Path("/nowhere/at/all/main.py")))
    assert found == Place("", True, False, False, found.user, -1, "")


def test_an_answer_without_its_end_is_none(tmp_path: Path) -> None:
    whole = look(tmp_path / "main.py")
    cut = replace(whole, raw=whole.raw.splitlines()[0])
    with pytest.raises(RunbookError, match="the stream broke"):
        in_pod.place(cut)
    with pytest.raises(CommandFailed) as raised:
        in_pod.place(replace(whole, code=1, stderr='exec: "python": executable file not found in $PATH'))
    assert "image with Python" in raised.value.next


def test_no_two_calls_have_one_sentinel(run: Run) -> None:
    commands = [next_token.command(run, facts(), prompt="x") for _ in range(20)]
    assert len({c.argv[-1] for c in commands}) == 20
    assert all(c.argv[-1].startswith("--sentinel=end-") for c in commands)


# What main.py printed

def test_an_answer_with_its_end_is_believed() -> None:
    assert next_token.read(ended(ANSWER, "end-1"))["schema"] == next_token.SCHEMA
    assert next_token.read(ended("a library's word", ANSWER, "end-1", ""))["arms"]


@pytest.mark.parametrize("lines", [
    [], [ANSWER], [ANSWER, "end-2"], ["end-1", ANSWER], [ANSWER, "end-"], [ANSWER, "end-1", "more"], [f"{ANSWER}end-1"],
], ids=["nothing", "missing", "another's", "in the middle", "cut", "not the last", "not on its own line"])
def test_exit_code_0_without_the_end_is_not_believed(lines: list[str]) -> None:
    with pytest.raises(RunbookError, match="its exit code is not believed") as raised:
        next_token.read(ended(*lines))
    assert "gpurunbook gpu" in raised.value.next
    assert not isinstance(raised.value, CommandFailed)


def test_a_command_that_asks_for_no_sentinel_is_never_believed() -> None:
    bare = Result(KUBECTL.exec("p", "main.py", container="c", why="w"), 0, ANSWER.encode() + b"\n\n", "", 1.0)
    with pytest.raises(RunbookError, match="not believed"):
        next_token.read(bare)
    empty = ended(ANSWER, "", "", sentinel="")
    with pytest.raises(RunbookError, match="not believed"):
        next_token.read(empty)


def test_main_pys_own_error_is_told_as_it_is() -> None:
    with pytest.raises(CommandFailed, match="--top cannot be so"):
        next_token.read(ended("end-1", code=2, stderr="main.py: error: --top cannot be so"))


# What became of the pod

@pytest.mark.parametrize(("now", "words"), [
    (LIFE, ""),
    (None, "deleted"),
    (replace(LIFE, uid="v"), "replaced"),
    (replace(LIFE, restarts=1, ended="OOMKilled, exit code 137"), "restarted: OOMKilled, exit code 137"),
    (replace(LIFE, alive=False, ended="Error, exit code 1"), "restarted: Error, exit code 1"),
    (replace(LIFE, alive=False, deleting=True), "is being deleted"),
    (replace(LIFE, alive=False, failed="Evicted: The node was low on resource: memory."), "failed: Evicted: The node was low"),
])
def test_what_became_of_a_pod(now: Life | None, words: str) -> None:
    assert words in in_pod.became(LIFE, now)
    assert bool(in_pod.became(LIFE, now)) == bool(words)


def explained(result: Result, *looks: Life | None) -> str:
    left = list(looks)
    error = in_pod.explain(result, "dolly-1", LIFE, lambda: left.pop(0) if len(left) > 1 else left[0], settle=0.2, poll=0.01,
                           when="while main.py ran")
    return "" if error is None else str(error)


def test_out_of_memory_is_said_with_the_limit_and_what_to_do() -> None:
    killed = ended(code=137, stderr="command terminated with exit code 137")
    dead = replace(LIFE, restarts=1, ended="OOMKilled, exit code 137")
    said = explained(killed, LIFE, LIFE, dead)  # the kubelet tells a little later
    assert said.startswith("out of memory: the pod dolly-1 was restarted: OOMKilled, exit code 137, while main.py ran")
    assert "limit is 12Gi" in said
    assert "resources.limits.memory" in said
    assert "precisions=int8" in said


def test_a_killed_program_is_not_out_of_memory_by_guess() -> None:
    said = explained(ended(code=137, stderr="command terminated with exit code 137"), LIFE)
    assert "out of memory" not in said
    assert "killed (exit code 137)" in said
    assert "memory.events" in said


@pytest.mark.parametrize(("now", "words", "next_"), [
    (replace(LIFE, restarts=1, ended="Error, exit code 143"), "restarted: Error, exit code 143", "this notebook again"),
    (None, "was deleted", "06_model.ipynb"),
])
def test_exit_code_0_of_a_pod_that_went_is_the_pods_fault(now: Life | None, words: str, next_: str) -> None:
    said = explained(ended(ANSWER), now)
    assert words in said
    assert next_ in said


def test_an_error_of_main_pys_own_is_not_waited_for() -> None:
    looks: list[int] = []

    def now() -> Life:
        looks.append(1)
        return LIFE

    own = ended(code=2, stderr="bad\ncommand terminated with exit code 2")
    assert in_pod.explain(own, "dolly-1", LIFE, now, settle=30, when="w") is None
    assert len(looks) == 1


def test_the_end_of_any_other_program_is_looked_into() -> None:
    """A restart between two calls: the second finds nothing, and the pod tells of it a moment later."""
    looks = [replace(LIFE, restarts=1, ended="Error, exit code 1"), LIFE, LIFE]
    lost = ended(code=1, stderr="FileNotFoundError\ncommand terminated with exit code 1")
    error = in_pod.explain(lost, "dolly-1", LIFE, lambda: looks.pop(), settle=5, poll=0.01, when="w", what="the copying")
    assert error is not None
    assert "was restarted: Error, exit code 1, w;" in error.what


# A pod that is restarted in between

class Pods(Quiet):
    """A run whose model's pods are `alive` (name -> restarts); the first is the one that is ready."""

    alive: dict[str, int]
    wrong: str = ""
    digest: str = DIGEST
    after: tuple[str, int] = ("", 0)

    @property
    def core(self) -> Any:  # type: ignore[override]
        from kubernetes.client import ApiException

        def pod(name: str) -> Any:
            state = status(running=1, restarts=self.alive[name], last=SimpleNamespace(reason="Error", exit_code=3))
            return SimpleNamespace(
                metadata=SimpleNamespace(name=name, uid=name, deletion_timestamp=None),
                status=SimpleNamespace(container_statuses=[state], phase="Running", reason=None, message=None,
                                       conditions=[SimpleNamespace(type="Ready", status="True")]),
                spec=SimpleNamespace(node_name="n", containers=[SimpleNamespace(name="dolly", image="i", resources=None)]))

        def read(name: str, *args: Any, **options: Any) -> Any:
            if name not in self.alive:
                raise ApiException(status=404)
            return pod(name)

        return SimpleNamespace(read_namespaced_pod=read, list_namespaced_pod=lambda *args, **options: SimpleNamespace(
            items=[pod(name) for name in self.alive]))

    def check_identity(self) -> None:
        pass

    def _run(self, command: Command, check: bool) -> Result:
        """Every exec is answered as by a pod that has main.py; the one that `wrong` is a word of fails, when the pod changed."""
        if self.wrong and self.wrong in command.short:
            name, restarts = self.after
            self.alive = {name: restarts} if restarts >= 0 else {"dolly-2": 0}
            if check:
                raise CommandFailed("exit code 1", result=Result(command, 1, b"", "No such file", 0.1))
            return Result(command, 1, b"", "No such file", 0.1)
        place = {**vars(PLACE), "digest": self.digest}
        return Result(command, 0, f"{json.dumps(place)}\n{command.argv[-1].partition('=')[2]}\n".encode(), "", 0.1)


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    made = Pods(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "next_token")
    made.kubeconfig.touch()
    made.alive = {"dolly-1": 0}
    return made


def test_the_pod_that_a_question_names_is_the_one_that_is_asked(pods: Pods) -> None:
    question = next_token.question(pods)
    pods.alive = {"dolly-0": 0, "dolly-1": 0}
    assert next_token.observe(pods, question).pod.name == "dolly-1"
    assert next_token.observe(pods).pod.name == "dolly-0"
    pods.alive = {"dolly-0": 0}
    with pytest.raises(RunbookError, match="the pod dolly-1 was deleted a moment ago"):
        next_token.observe(pods, question)


@pytest.mark.parametrize(("step", "after", "said", "next_"), [
    ("kubectl cp", ("dolly-1", 1), "was restarted: Error, exit code 3", "this notebook again"),
    ("os.replace", ("dolly-1", 1), "was restarted: Error, exit code 3", "this notebook again"),
    ("os.replace", ("", -1), "was deleted", "06_model.ipynb"),
])
def test_a_pod_that_goes_between_the_copy_and_the_rename_is_told(pods: Pods, step: str, after: tuple[str, int], said: str,
                                                                 next_: str) -> None:
    pods.digest = ""
    before = next_token.observe(pods)
    pods.wrong, pods.after = step, after
    with pytest.raises(RunbookError, match=f"the pod dolly-1 {said}, while main.py was copied") as raised:
        next_token.copy(pods, before, next_token.plan(pods, before))
    assert next_ in raised.value.next


def test_a_pod_restarted_after_it_was_asked_is_told_where_nothing_had_to_be_copied(pods: Pods) -> None:
    before = next_token.observe(pods)
    plan = next_token.plan(pods, before)
    assert not plan
    assert next_token.copy(pods, before, plan).copied
    pods.alive = {"dolly-1": 1}
    with pytest.raises(RunbookError, match=r"was restarted: Error, exit code 3, while main\.py was copied"):
        next_token.copy(pods, before, plan)


def test_what_did_not_arrive_is_told(pods: Pods) -> None:
    pods.digest = "0" * 64
    before = next_token.observe(pods)
    with pytest.raises(RunbookError, match="did not arrive in the pod: another is there"):
        next_token.copy(pods, before, next_token.plan(pods, before))


@pytest.mark.parametrize(("word", "when"), [("main.py: importing torch\n", "while main.py ran"),
                                            ("python: can't open file '/x/main.py': [Errno 2]\n", "before main.py said a word")])
def test_when_the_pod_went_is_told_by_what_main_py_had_said(pods: Pods, word: str, when: str) -> None:
    facts = next_token.observe(pods)
    pods.alive = {"dolly-1": 1}
    pods.ask = lambda command, check=True: Result(command, 2, b"", word, 0.1)  # type: ignore[method-assign]
    with pytest.raises(RunbookError, match=f"was restarted: Error, exit code 3, {when}"):
        next_token.measure(pods, facts, next_token.command(pods, facts, prompt="x"))


def test_a_pod_that_went_before_its_logits_were_fetched_is_told_so(pods: Pods) -> None:
    facts = next_token.observe(pods)
    pods.wrong, pods.after = "stdout.buffer", ("dolly-1", 1)
    with pytest.raises(RunbookError, match=r"was restarted: Error, exit code 3, after main\.py had run"):
        next_token.fetch(pods, facts, FOUND)


def status(**states: Any) -> Any:
    return SimpleNamespace(name="dolly", restart_count=states.pop("restarts", 0), state=SimpleNamespace(
        running=states.get("running"), terminated=states.get("terminated"), waiting=None),
        last_state=SimpleNamespace(terminated=states.get("last")))


@pytest.mark.parametrize(("state", "alive", "said"), [
    (status(running=1), True, ""),
    (status(running=1, restarts=1, last=SimpleNamespace(reason="OOMKilled", exit_code=137)), True, "OOMKilled, exit code 137"),
    (status(terminated=SimpleNamespace(reason="Error", exit_code=1)), False, "Error, exit code 1"),
])
def test_the_life_of_a_container_is_read_from_its_pod(state: Any, alive: bool, said: str) -> None:
    other = SimpleNamespace(name="sidecar", restart_count=9, state=None, last_state=None)
    pod = SimpleNamespace(
        metadata=SimpleNamespace(uid="u", deletion_timestamp=None),
        status=SimpleNamespace(container_statuses=[other, state], phase="Running", reason=None, message=None),
        spec=SimpleNamespace(containers=[SimpleNamespace(name="dolly", resources=SimpleNamespace(limits={"memory": "12Gi"}))]))
    found = in_pod._life(pod, "dolly")
    assert (found.alive, found.ended, found.memory, found.restarts) == (alive, said, "12Gi", state.restart_count)


# What is fetched

class Cut(Quiet):
    """A run whose pod sends what the list says, one after the other."""

    answers: tuple[tuple[int, bytes], ...] = ()
    programs: frozenset[str] = frozenset()

    def ask(self, command: Command, check: bool = True) -> Result:
        assert not check
        self.programs |= {command.argv[command.argv.index("--") + 1]}
        (code, raw), *rest = self.answers
        self.answers = tuple(rest)
        return Result(command, code, raw, "" if code == 0 else "error: stream", 0.1)


FOUND = {"vocab_size": 2, "arms": [{"precision": "int8", "logits_sha256": hashlib.sha256(b"12345678").hexdigest()}]}


@pytest.mark.parametrize(("answers", "shown"), [
    ([(0, b"12345678")], ""),
    ([(0, b"1234"), (0, b"12345678")], "4 of 8 bytes arrived; fetching it once more"),
    ([(1, b"12345678"), (0, b"12345678")], "exit code 1, error: stream; fetching it once more"),
])
def test_logits_are_fetched_at_most_twice(tmp_path: Path, answers: list[tuple[int, bytes]], shown: str,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    run = Cut(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "next_token")
    run.kubeconfig.touch()
    run.answers = tuple(answers)
    fetched = next_token.fetch(run, facts(), FOUND)
    assert run.programs == {"python"}, "an image may have no cat"
    assert fetched["int8"].read_bytes() == b"12345678"
    assert run.answers == ()
    said = capsys.readouterr().out
    assert (shown in said) if shown else said == ""


@pytest.mark.parametrize(("raw", "code", "words"), [
    (b"12345678", 0, ""), (b"123", 0, "3 of 8 bytes"), (b"12345679", 0, "its SHA-256 is another"), (b"", 0, "0 of 8 bytes"),
    (b"12345678", 1, "exit code 1"),
])
def test_damage_is_named(raw: bytes, code: int, words: str) -> None:
    result = Result(KUBECTL.exec("p", "cat", container="c", why="w", data=True), code, raw, "", 0.1)
    said = next_token.damage(result, FOUND["arms"][0], 8)  # type: ignore[index]
    assert words in said
    assert bool(said) == bool(words)
