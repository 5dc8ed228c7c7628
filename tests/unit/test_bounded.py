"""Every outside call has an end: found in the source, and tried on what hangs."""

from __future__ import annotations

import ast
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from gpurunbook import bounded, client, interrupted
from gpurunbook.command import Command, run
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.processes import Process

PACKAGE = Path(client.__file__).parent
HTTP = {"get", "head", "post", "put", "patch", "delete", "request"}
ENDS_BY_ITSELF = {
    "drills/acts.py:killer.join": "the thread looks at the event that was set just before",
    "drills/dashboard.py:over.wait": "a daemon of a drill: its work is to last as long as the API server",
    "programs/locate.py:process.wait": "after SIGKILL to its group",
    "targets/rehearsal/process.py:self._bwrap.wait": "in a thread of the pod host: it lasts as long as the pod's process",
}
"""Waits without a limit, and why each ends."""
STARTED_FOR_LONG = {
    "command.py:subprocess.Popen": "run() has the limit, and ends the group",
    "programs/locate.py:subprocess.Popen": "communicate(timeout=) and stop() follow",
    "targets/rehearsal/jail.py:subprocess.Popen": "a pod's process: the pod host ends it with its pod",
}


def unbounded(source: str, name: str = "x.py") -> list[str]:
    """Calls in a file that nothing limits, as FILE:CALL."""
    found, tree = [], ast.parse(source)
    # What the pod host awaits ends with it: Target.delete kills it after a limit.
    awaited = {inner for node in ast.walk(tree) if isinstance(node, ast.Await) or
               (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("create_task")) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        said, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        last = said.rpartition(".")[2]
        if (
            (said in ("subprocess.run", "subprocess.check_output", "subprocess.call", "subprocess.check_call",
                      "urllib.request.urlopen", "urlopen", "socket.create_connection") and "timeout" not in given)
            or said in ("subprocess.Popen", "os.system", "os.popen") or last.startswith("create_subprocess_")
            or (last == "communicate" and not given)
            or (last in ("wait", "join") and not node.args and not given and node not in awaited)
            or (last in HTTP and said.split(".")[0] in ("requests", "session") and "timeout" not in given)
            or (last in ("ClientSession", "HTTPConnection", "HTTPSConnection") and "timeout" not in given)
            or (last == "client" and "session" in said and "config" not in given)
            or (last in ("new_client_from_config", "ApiClient") and "kubernetes" in said)
            or (last == "Command" and len(node.args) < 3 and "limit" not in given)
        ):
            found.append(f"{name}:{said}")
    return found


def test_no_call_in_the_package_is_without_an_end() -> None:
    found = {one for path in PACKAGE.rglob("*.py") for one in unbounded(path.read_text(), str(path.relative_to(PACKAGE)))}
    assert found == ENDS_BY_ITSELF.keys() | STARTED_FOR_LONG.keys()


@pytest.mark.parametrize("line", [
    "subprocess.run(['x'])", "subprocess.Popen(['x'])", "process.communicate()", "process.wait()", "thread.join()",
    "requests.get(url)", "session.get(url)", "aiohttp.ClientSession()", "http.client.HTTPSConnection('h')",
    "self._session.client('sts')",
    "kubernetes.config.new_client_from_config('f')",
    "kubernetes.client.ApiClient()", "Command(('x',), why='y')", "os.system('x')", "socket.create_connection(('h', 1))"])
def test_an_unbounded_call_is_found(line: str) -> None:
    assert len(unbounded(line)) == 1


# The kubernetes client

@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def kubeconfig(path: Path, server: str, user: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": user}]}))
    return path


def test_a_request_without_a_limit_of_its_own_has_one(tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SECONDS", 0.3)
    import kubernetes
    began = time.monotonic()
    # list_node names no limit: it gets the client's, and so does every other call in the package.
    with client.new(kubeconfig(tmp_path / "k", silent, {"token": "x"}), "c") as api, \
            pytest.raises(client.Unreachable, match=r"does not answer \(4 tries\): .*Read timed out") as caught:
        kubernetes.client.CoreV1Api(api).list_node()
    assert 1.2 < time.monotonic() - began < 6
    assert isinstance(caught.value, RunbookError)
    assert caught.value.where == silent


def test_an_answer_that_drips_has_an_end(tmp_path: Path) -> None:
    """Each byte comes within the limit of one wait; their sum does not."""
    import kubernetes

    def drip() -> None:
        with suppress(OSError):
            found, _ = server.accept()
            with found:
                found.recv(65536)
                found.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
                while not over.wait(0.2):
                    found.sendall(b" ")

    over, began = threading.Event(), time.monotonic()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with client.new(kubeconfig(tmp_path / "k", url, {"token": "x"}), "c") as api, \
                pytest.raises(client.Unreachable, match="too slowly"):
            kubernetes.client.CoreV1Api(api).delete_node("x", _request_timeout=1)  # no GET: it is not tried again
        assert time.monotonic() - began < 5
        over.set()
        thread.join(timeout=5)


def test_signing_in_runs_no_code_that_lies_beside_the_kubeconfig(tmp_path: Path, silent: str) -> None:
    planted = tmp_path / "gpurunbook"
    planted.mkdir()
    for name in ("__init__", "bounded"):
        (planted / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "true", "interactiveMode": "Never"}}
    with client.new(kubeconfig(tmp_path / "k", silent, user), "c"):
        pass
    assert not (tmp_path / "ran").exists()


def test_nobody_listens_on_this_machine_is_said_at_once(tmp_path: Path) -> None:
    import kubernetes
    from urllib3.exceptions import HTTPError
    with client.new(kubeconfig(tmp_path / "k", "http://127.0.0.1:9", {"token": "x"}), "c") as api, \
            pytest.raises(HTTPError, match=r"does not answer: .*Connection refused"):
        kubernetes.client.CoreV1Api(api).list_node()


def test_a_program_to_sign_in_with_that_hangs_is_ended_with_its_group(tmp_path: Path, silent: str,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SIGN_IN_SECONDS", 0.5)
    mark = f"sign-in-{time.time_ns()}"
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never",
                     "args": ["-c", f"sh -c 'sleep 60; : {mark}'; : {mark}"]}}
    began = time.monotonic()
    with client.new(kubeconfig(tmp_path / "k", silent, user), "c"):
        pass
    assert time.monotonic() - began < 5
    assert alive(mark) == []


def test_a_bounded_program_is_as_it_would_be_alone(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert bounded.main("5", "sh", "-c", "printf '\\377\\n'; echo e >&2; exit 7") == 7
    assert capfdbinary.readouterr() == (b"\xff\n", b"e\n")
    assert bounded.main("0.1", "sleep", "60") == 124
    assert bounded.main("5", "no-such-program-at-all") == 124


# A child that hangs

DEAF = """
import os, signal, sys, time
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0 and os.fork() == 0:
        pass
print("up", flush=True)
while True:
    time.sleep(60)
"""


def alive(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if mark in (process.info["cmdline"] or []) or any(mark in arg for arg in process.info["cmdline"] or []):
            found.append(process)
    return [p for p in found if p.info["status"] != psutil.STATUS_ZOMBIE]


def test_a_deaf_child_is_ended_with_its_grandchildren(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpurunbook.command.GRACES", ((2, 0.2), (15, 0.2), (9, 5.0)))
    mark = f"deaf-{time.time_ns()}"
    seen: list[int] = []

    def look(_: float, line: str) -> None:
        seen.append(len(alive(mark)))

    with pytest.raises(CommandFailed, match="was ended by its limit") as caught:
        run(Command((sys.executable, "-c", DEAF, mark), why="", limit=1.0), env={}, watch=look)
    assert max(seen) > 3, "children and grandchildren were there"
    assert caught.value.result.code == -9
    assert alive(mark) == []


def test_what_a_killed_runner_left_hanging_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpurunbook.command.GRACES", ((2, 0.2), (15, 0.2), (9, 5.0)))
    mark, journal = f"left-{time.time_ns()}", Journal(tmp_path)
    pids: list[int] = []
    left = Command((sys.executable, "-c", DEAF, mark), why="", limit=30)
    thread = threading.Thread(target=lambda: run(left, env={}, started=pids.append, check=False))
    thread.start()
    while len(alive(mark)) < 4:
        time.sleep(0.05)
    gone = {"pid": 2**22 + 1, "started": 1.0}
    journal.append("intent", id="1", stage="s", argv=["x"], shown="x", why="", changes=True, by=gone)
    journal.append("pid", id="1", process=Process.of(pids[0]).key)
    assert [record["id"] for record in interrupted.close(journal)] == ["1"]
    assert alive(mark) == []
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert json.loads(journal.path.read_text().splitlines()[-1])["error"] == "interrupted: result unknown"
