"""Running programs, with real ones: output, limits, signals, and what a child gets to see."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook import command
from gpurunbook.command import Command, Result, environment, run
from gpurunbook.errors import CommandFailed, RunbookError

MARK = "GPURUNBOOK_TEST"
QUICK = ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.3), (signal.SIGKILL, 5.0))


@pytest.fixture(autouse=True)
def quick_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACES", QUICK)


@pytest.fixture
def env(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A child's environment with a mark of this test; at its end, nothing that carries it may be left."""
    yield environment({MARK: str(tmp_path)})
    left = marked(str(tmp_path))
    for process in left:
        process.kill()
    assert not left


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def shell(script: str, limit: float = 20, **fields: object) -> Command:
    return Command(("/bin/sh", "-c", script), why="test", limit=limit, **fields)  # type: ignore[arg-type]


def python(script: str, limit: float = 20, **fields: object) -> Command:
    return Command((sys.executable, "-c", script), why="test", limit=limit, **fields)  # type: ignore[arg-type]


# Output

def test_output_is_kept_logged_and_told_line_by_line(tmp_path: Path, env: dict[str, str]) -> None:
    told: list[str] = []
    result = run(shell("echo one; echo two >&2; echo; printf three"), env=env, log=tmp_path / "log",
                 watch=lambda seconds, line: told.append(line) if line else None)
    assert (result.code, result.stdout, result.stderr) == (0, "one\n\nthree", "two\n")
    assert sorted(told) == ["one", "three", "two"]
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["one", "three", "two"]
    assert 0 < result.seconds < 20


def test_a_line_is_told_while_the_program_still_runs(tmp_path: Path, env: dict[str, str]) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def answer(seconds: float, line: str) -> None:
        if line == "ready":  # the program goes on only when this line has been told
            gate.write_text("go\n")

    result = run(shell(f"echo ready; read word < {gate}; echo $word"), env=env, watch=answer)
    assert result.stdout == "ready\ngo\n"


def test_there_is_a_sign_of_life_without_output(env: dict[str, str]) -> None:
    signs: list[float] = []
    run(shell("sleep 0.3"), env=env, watch=lambda seconds, line: signs.append(seconds))
    assert len(signs) >= 3
    assert signs == sorted(signs)


def test_data_is_kept_but_neither_shown_nor_logged(tmp_path: Path, env: dict[str, str]) -> None:
    told: list[str] = []
    result = run(python("import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096); print('note', file=sys.stderr)",
                        data=True), env=env, log=tmp_path / "log", watch=lambda seconds, line: told.append(line))
    assert result.raw == bytes(range(256)) * 4096
    assert set(told) - {""} == {"note"}
    assert (tmp_path / "log").read_text() == "note\n"
    assert Result(result.command, 1, b"secret", "", 0).tail == ""


def test_output_that_is_not_utf8_is_no_error(env: dict[str, str]) -> None:
    told: list[str] = []
    result = run(shell(r"printf 'a\377b\n'"), env=env, watch=lambda seconds, line: told.append(line))
    assert (result.raw, result.stdout) == (b"a\xffb\n", "a�b\n")
    assert "a�b" in told


def test_a_very_long_line_and_both_streams_at_once_do_not_block(env: dict[str, str]) -> None:
    script = "import sys\nfor s in (sys.stdout, sys.stderr) * 3: s.write('x' * 500_000)"
    result = run(python(script), env=env)
    assert (len(result.stdout), len(result.stderr)) == (1_500_000, 1_500_000)


def test_too_much_output_ends_the_program(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CAPTURE_LIMIT", 2**20)
    with pytest.raises(CommandFailed, match="was ended by more than 1 MiB of output"):
        run(shell("yes"), env=env, check=False)


def test_output_just_over_the_limit_is_never_cut_in_silence(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose last bytes fit into the pipe ends by itself, with exit code 0."""
    monkeypatch.setattr(command, "CAPTURE_LIMIT", 1000)
    with pytest.raises(CommandFailed, match="of output"):
        run(shell("head -c 2000 /dev/zero"), env=env, check=False)


# Input

def test_stdin_gets_the_bytes_and_otherwise_is_at_its_end(env: dict[str, str]) -> None:
    many = bytes(range(256)) * 4096
    assert run(shell("cat", stdin=many, data=True), env=env).raw == many
    assert run(shell("cat", data=True), env=env).raw == b""


def test_a_program_need_not_read_its_stdin(env: dict[str, str]) -> None:
    assert run(shell("exit 0", stdin=b"x" * 2**20), env=env).code == 0


def test_stdin_is_not_in_what_people_and_logs_see() -> None:
    secret = shell("cat", stdin=b"hunter2")
    assert "hunter2" not in f"{secret!r} {secret.short} {secret.full}"


# The end

@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes_come_through(env: dict[str, str], code: int) -> None:
    assert run(shell(f"exit {code}"), env=env, check=False).code == code


def test_a_signal_is_a_negative_code(env: dict[str, str]) -> None:
    assert run(shell("kill -KILL $$"), env=env, check=False).code == -signal.SIGKILL


def test_a_failure_says_what_where_and_next(tmp_path: Path, env: dict[str, str]) -> None:
    lines = "; ".join(f"echo line {i} >&2" for i in range(12))
    with pytest.raises(CommandFailed) as caught:
        run(shell(f"{lines}; exit 3", shown=("tool", "verb")), env=env, log=tmp_path / "log")
    error = caught.value
    assert error.what.startswith("sh ended with exit code 3: tool verb\n    line 2\n")  # the last ten lines
    assert error.what.endswith("line 11")
    assert error.where == str(tmp_path / "log")
    assert error.next.endswith(error.result.command.full)
    assert error.result.code == 3


@pytest.mark.parametrize(("argv", "why"), [
    (("/no/such/program",), "No such file"), (("/etc/passwd",), "Permission denied"), (("/bin/echo", "a\0b"), "null byte"),
    (("/bin/echo", "\ud800"), "surrogates"), (("/bin/echo", "x" * 2**21), "Argument list too long")],
    ids=["absent", "no program", "NUL", "surrogate", "too long"])
def test_what_cannot_be_started_is_said(env: dict[str, str], argv: tuple[str, ...], why: str) -> None:
    with pytest.raises(RunbookError, match=f"could not be started: .*{why}"):
        run(Command(argv, why="test", limit=5), env=env)


def test_a_folder_for_the_log_that_is_not_there_starts_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(RunbookError, match="the log cannot be written"):
        run(shell(f"touch {tmp_path}/started"), env=env, log=tmp_path / "absent" / "log")
    assert not (tmp_path / "started").exists()


def test_a_full_disk_ends_the_program_at_once(env: dict[str, str]) -> None:
    """A reader that died of it would leave the pipe full and the program waiting until its limit."""
    with pytest.raises(RunbookError, match="the log cannot be written: No space left"):
        run(shell("yes", limit=60), env=env, log=Path("/dev/full"))


def test_a_watcher_that_fails_ends_the_program(env: dict[str, str]) -> None:
    def broken(seconds: float, line: str) -> None:
        if line:
            raise LookupError(line)

    with pytest.raises(LookupError, match="ready"):
        run(shell("echo ready; sleep 60"), env=env, watch=broken)


# Limits and interrupts

@pytest.mark.parametrize("script", [
    "sleep 60",
    "sleep 60 & sleep 60 & wait",  # sh starts these with SIGINT ignored, and itself dies of it
    "trap '' INT; sleep 60 & sleep 60; sleep 60",
    "trap '' INT TERM; (sleep 60 & sleep 60; sleep 60); sleep 60",
], ids=["plain", "background", "deaf to SIGINT", "deaf to SIGTERM too"])
def test_the_limit_ends_the_whole_group(env: dict[str, str], script: str) -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"was ended by its limit of 0\.2 s"):
        run(shell(script, limit=0.2), env=env)
    assert time.monotonic() - began < 5
    assert marked(env[MARK]) == []


@pytest.mark.parametrize(("deaf", "ended_with"), [
    ((), "INT"), (("INT",), "TERM"), (("INT", "TERM"), "KILL")])
def test_signals_come_in_order_each_with_its_grace(env: dict[str, str], deaf: tuple[str, ...], ended_with: str) -> None:
    script = f"""
import signal, time
for name in {deaf!r}:
    signal.signal(getattr(signal, "SIG" + name), lambda *_, name=name: print(name, flush=True))
signal.signal(signal.SIGINT, signal.SIG_DFL) if "INT" not in {deaf!r} else None
print("ready", flush=True)
while True: time.sleep(60)
"""
    with pytest.raises(CommandFailed) as caught:
        run(python(script, limit=0.7), env=env)
    assert caught.value.result.code == -getattr(signal, f"SIG{ended_with}")
    assert caught.value.result.stdout.split() == ["ready", *deaf]


def test_a_program_may_clean_up_in_its_grace(env: dict[str, str]) -> None:
    with pytest.raises(CommandFailed) as caught:
        run(shell("trap 'echo cleaned; exit 5' INT; sleep 60 & wait", limit=0.2), env=env)
    assert caught.value.result.code == 5
    assert "cleaned" in caught.value.result.stdout


def test_the_limit_does_not_concern_one_that_has_ended(env: dict[str, str]) -> None:
    assert run(shell("exit 0", limit=0), env=env).ended_by == ""


def test_ctrl_c_ends_the_child_and_is_passed_on(env: dict[str, str]) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def press(seconds: float, line: str) -> None:
        if line == "ready":
            signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(shell("echo ready; sleep 60 & wait"), env=env, watch=press)
    assert marked(env[MARK]) == []


def test_a_daemon_left_behind_does_not_hold_us(tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LEFT_BEHIND", 0.2)
    told: list[str] = []
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    began = time.monotonic()
    result = run(shell(f"(read word < {gate}; echo late; echo late >&2) & echo done"), env=env,
                 watch=lambda seconds, line: told.append(line))
    assert time.monotonic() - began < 2
    assert result.stdout == "done\n"
    daemons = marked(env[MARK])
    assert daemons  # it lives on: not ours to end
    gate.write_text("go\n")
    psutil.wait_procs(daemons, timeout=10)
    assert "late" not in told  # nor is what it says later


# What a child sees

def test_the_environment_is_a_chosen_list(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "x")
    monkeypatch.setenv("AWS_PROFILE", "p")
    monkeypatch.delenv("TZ", raising=False)
    seen = run(shell("env"), env=environment({"RUN": "/r", "PATH": "/bin:/usr/bin"}, ("AWS_PROFILE",))).stdout.splitlines()
    names = {line.partition("=")[0] for line in seen}
    assert {"RUN=/r", "PATH=/bin:/usr/bin", "AWS_PROFILE=p", f"HOME={os.environ['HOME']}"} <= set(seen)
    assert names <= {*command.PASSED_ON, "RUN", "AWS_PROFILE", "PWD", "SHLVL", "_"}
    assert "TZ" not in names
    assert not any(word in name.upper() for name in command.PASSED_ON for word in ("TOKEN", "SECRET", "KEY", "PASS", "KUBE"))


def test_files_of_a_child_are_private(tmp_path: Path, env: dict[str, str]) -> None:
    run(shell("touch file; mkdir folder"), env=env, cwd=tmp_path)
    assert ((tmp_path / "file").stat().st_mode & 0o777, (tmp_path / "folder").stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_child_leads_a_session_of_its_own(env: dict[str, str]) -> None:
    pid, session = map(int, run(python("import os; print(os.getpid(), os.getsid(0))"), env=env).stdout.split())
    assert pid == session != os.getsid(0)


# What people paste

@given(st.lists(st.text(), min_size=1))
def test_both_forms_paste_to_the_same_argv(argv: list[str]) -> None:
    made = Command(tuple(argv), why="test", limit=1, shown=("tool", *argv))
    assert shlex.split(made.full) == argv
    assert shlex.split(made.short) == ["tool", *argv]
    assert Command(tuple(argv), why="test", limit=1).short == made.full
