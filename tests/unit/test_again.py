"""What is tried again, how often, and after which pause."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook import again
from gpurunbook.client import seconds
from gpurunbook.command import Command, Result
from gpurunbook.programs.helm import Helm
from gpurunbook.programs.kubectl import Kubectl

FILE = Path(__file__)
KUBECTL, HELM = Kubectl("/x/kubectl", Path("/k"), "c"), Helm("/x/helm", Path("/k"), "c", Path("/h"))
CUT = "Unable to connect to the server: EOF"


def result(command: Command, stderr: str = CUT, code: int = 1, ended_by: str = "") -> Result:
    return Result(command, code, b"", stderr, 0.1, ended_by=ended_by)


@pytest.mark.parametrize(("command", "repeats"), [
    (KUBECTL.get("nodes", why=""), True), (KUBECTL.diff(FILE), True), (KUBECTL.apply(FILE, why=""), True),
    (KUBECTL.delete("pod", "x"), True), (HELM.list("n"), True), (HELM.get_values("r", "n"), True),
    (KUBECTL.create(FILE, why=""), False), (KUBECTL("delete", "pod", "x", why=""), False),
    (KUBECTL.untaint_nodes("t", names=["n"]), False), (KUBECTL.exec("p", "python", container="c", why=""), False),
    (KUBECTL.exec("p", "apply", container="c", why=""), False), (KUBECTL.cp_into(FILE, "p", "/x", container="c"), False),
    (HELM.upgrade_install("r", "c", namespace="n", values=FILE), False), (HELM.uninstall("r", "n"), False),
    (HELM.rollback("r", "n"), False), (Command(("eksctl", "get", "cluster"), why="", limit=1), False),
    (Command(("kubectl",), why="", limit=1), False)], ids=lambda v: " ".join(v.shown) if isinstance(v, Command) else str(v))
def test_only_what_may_be_done_twice_is_repeated(command: Command, repeats: bool) -> None:
    assert again.passing(result(command)) is repeats


@pytest.mark.parametrize("words", ["Error: Kubernetes cluster unreachable: EOF", "Error: kubernetes cluster unreachable: EOF"])
def test_helm_writes_nothing_before_its_first_question_is_answered(words: str) -> None:
    assert again.passing(result(HELM.upgrade_install("r", "c", namespace="n", values=FILE), words))


@pytest.mark.parametrize(("stderr", "passes"), [
    (CUT, True), ("read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer", True),
    ("net/http: TLS handshake timeout", True), ("dial tcp: lookup host: no such host", True),
    ("the server is currently unable to handle the request", True),
    ("http2: client connection lost", True), ("etcdserver: leader changed", True),
    ("Unable to connect to the server: tls: failed to verify certificate: x509: certificate has expired: EOF", False),
    ("error: You must be logged in to the server (Unauthorized)", False),
    ("Error from server (Forbidden): nodes is forbidden", False),
    ("Error from server (NotFound): nodes \"x\" not found", False), ("the server has received too many requests", False),
    ("error: SHEOFX", False), ("", False)])
def test_a_refusal_is_never_asked_again(stderr: str, passes: bool) -> None:
    assert again.passing(result(KUBECTL.get("nodes", why=""), stderr)) is passes


def test_what_succeeded_or_was_ended_is_not_repeated() -> None:
    assert not again.passing(result(KUBECTL.get("nodes", why=""), code=0))
    assert not again.passing(result(KUBECTL.get("nodes", why=""), ended_by="its limit of 60 s"))


@given(st.integers(1, 10), st.floats(0, 3600))
def test_nobody_comes_earlier_than_asked_nor_all_at_once(failed: int, asked: float) -> None:
    pauses = {again.pause(failed, asked) for _ in range(8)}
    assert min(pauses) >= asked
    assert max(pauses) <= asked + again.FIRST * 2 ** failed
    assert len(pauses) > 1


def test_tries_are_counted_told_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "FIRST", 0.001)
    command, told, tries = KUBECTL.get("nodes", why=""), list[str](), list[Command]()

    def fails(one: Command) -> Result:
        tries.append(one)
        return result(one)

    assert again.until_through(fails, command, told.append).code == 1
    assert tries == [command] * again.TRIES
    assert len(told) == again.TRIES - 1
    assert told[0].startswith("the network failed; try 2 of 4 in ")
    answers = [result(command), result(command, "", 0)]
    assert again.until_through(lambda _: answers.pop(0), command, told.append).code == 0


def test_patience_ends_before_the_tries_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "PATIENCE", 0.0)
    tries: list[Command] = []
    again.until_through(lambda one: (tries.append(one), result(one))[1], KUBECTL.get("nodes", why=""), lambda _: None)
    assert len(tries) == 1


@pytest.mark.parametrize(("header", "wanted"), [(None, 0), ("2", 2), ("0.5", 0.5), ("-1", 0), ("soon", 0), ("", 0)])
def test_retry_after_is_read(header: str | None, wanted: float) -> None:
    assert seconds(header) == wanted
