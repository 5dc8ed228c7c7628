"""Running programs: a Command is data, and `run` is the only place that starts a process for a runbook.

argv lists, never a shell. Every call has a time limit; at the limit, or on Ctrl-C, the whole process group
gets SIGINT, then SIGTERM, then SIGKILL, each with its grace: a helm killed hard leaves `pending-*` behind.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.masking import Secret, hide, revealed, veiled, without_keys

GRACES = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
LEFT_BEHIND = 2.0
"""Seconds to wait for the rest of the output after the end: a daemon left behind may hold the pipe for ever."""
LINE_LIMIT = 4 * 2**20
"""Bytes at which a line is cut in two: a secret on the cut would not be seen for one."""
CAPTURE_LIMIT = 64 * 2**20
"""Bytes kept of each stream; a program that prints more is ended."""

LONGEST, LOOKED_THROUGH = 2000, 2**18
"""Characters of a line in `Result.tail`, and of the output's end in which it is looked for."""

PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TERM",
             "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
             "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
"""What children see of our environment; a target adds its own names (AWS_* on eks)."""


@dataclass(frozen=True)
class Command:
    """One call of one program, as data: printed, tested, journalled, pasted by people, and run.

    Attributes:
        argv: the full argument list, kubeconfig and context included.
        why: one line: what this does for the reader of the runbook.
        limit: seconds after which it is ended.
        shown: the short form, as a person types it after the `export` line; argv when empty.
        changes: False when it only reads.
        stdin: bytes given to the program; the way for secrets, never argv.
        data: stdout is data: kept, but neither shown nor logged.
        usual: the usual range in seconds, for the progress line.
        otherwise: why a plan goes on when this fails; where it is empty, a failure ends the plan.
    """

    argv: tuple[str, ...]
    why: str
    limit: float
    shown: tuple[str, ...] = ()
    changes: bool = True
    stdin: bytes | None = field(default=None, repr=False)
    data: bool = False
    usual: tuple[float, float] | None = None
    otherwise: str = ""

    @property
    def guarded(self) -> bool:
        """It writes to the cluster behind the kubeconfig, whose identity is checked first."""
        return self.changes and Path(self.argv[0]).name in ("kubectl", "helm")

    @property
    def short(self) -> str:
        """The line a person types."""
        return shlex.join(self.shown or self.argv)

    @property
    def full(self) -> str:
        """The line that runs, quoted for a POSIX shell."""
        return shlex.join(self.argv)


@dataclass(frozen=True)
class Result:
    """How a call ended. `seconds` is wall time; `code` is negative for a signal, as in subprocess."""

    command: Command
    code: int
    raw: bytes
    stderr: str
    seconds: float
    log: Path | None = None
    ended_by: str = ""

    @property
    def stdout(self) -> str:
        return self.raw.decode("utf-8", "replace")

    @property
    def tail(self) -> str:
        """The last ten lines a person would have seen, stderr first choice; without secrets, and each cut at LONGEST."""
        said = self.stderr.strip() or ("" if self.command.data else self.stdout.strip())
        # The whole is looked through first: a private key's last lines do not say what they are.
        return "\n".join(line[:LONGEST] for line in hide(said[-LOOKED_THROUGH:]).splitlines()[-10:])


Watcher = Callable[[float, str], None]
"""Called with (seconds so far, line); an empty line is a sign of life, at least once a second."""


def environment(extra: Mapping[str, str], names: tuple[str, ...] = ()) -> dict[str, str | Secret]:
    """The children's environment: a chosen list of ours, then `extra`. Its secrets show themselves to nobody else."""
    return veiled({k: os.environ[k] for k in (*PASSED_ON, *names) if k in os.environ} | dict(extra))


def run(command: Command, *, env: Mapping[str, str | Secret], log: Path | None = None,
        watch: Watcher | None = None, check: bool = True, cwd: Path | None = None,
        started: Callable[[int], object] = lambda pid: None) -> Result:
    """Run one command to its end.

    Args:
        env: the child's whole environment; see `environment`.
        log: a file to append the output to, line by line.
        watch: gets each line as it comes, and a sign of life each second.
        check: raise when the exit code is not 0.
        started: gets the pid, which leads a process group of its own.

    Raises:
        CommandFailed: exit code not 0 (with `check`), or ended at its limit or for too much output.
        RunbookError: the program could not be started at all.
    """
    watch = watch or (lambda seconds, line: None)
    with _Log(log) as log_line:
        began = time.monotonic()
        process = _start(command, env, cwd)
        seen = without_keys()
        streams = _Streams(process, command, lambda line: (log_line(line := seen(line)), watch(time.monotonic() - began, line)))
        ended_by = ""
        try:
            started(process.pid)
            streams.start()
            while process.poll() is None and not ended_by:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5 if time.monotonic() - began > 1 else 0.05)
                elapsed = time.monotonic() - began
                watch(elapsed, "")
                if streams.error:
                    raise streams.error
                if process.poll() is None and elapsed > command.limit:
                    ended_by = f"its limit of {command.limit:g} s"
                elif streams.overflow:
                    ended_by = f"more than {CAPTURE_LIMIT // 2**20} MiB of output"
            if ended_by:
                end_group(process.pid, process.poll)
        except BaseException:
            end_group(process.pid, process.poll)
            raise
        finally:
            streams.close()
        if streams.error:
            raise streams.error
        if streams.overflow:
            ended_by = f"more than {CAPTURE_LIMIT // 2**20} MiB of output"
    result = Result(command, process.returncode, streams.out, streams.err.decode("utf-8", "replace"),
                    time.monotonic() - began, log, ended_by)
    if ended_by or (check and result.code != 0):
        raise failure(result)
    return result


def _start(command: Command, env: Mapping[str, str | Secret], cwd: Path | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command.argv, env=revealed(env), cwd=cwd, start_new_session=True, umask=0o077,
            stdin=subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except (OSError, ValueError) as error:  # ValueError: a NUL or half a surrogate pair in an argument
        raise RunbookError(f"{command.argv[0]} could not be started: {getattr(error, 'strerror', None) or error}",
                           where=command.full, next="gpurunbook doctor") from error


def failure(result: Result, next: str = "") -> CommandFailed:
    """The error for a result that is not good enough, with the last lines that the program said."""
    program = Path(result.command.argv[0]).name
    how = f"was ended by {result.ended_by}" if result.ended_by else f"ended with exit code {result.code}"
    said = "".join(f"\n    {line}" for line in result.tail.splitlines())
    return CommandFailed(f"{program} {how}: {result.command.short}{said}", result=result,
                         where=str(result.log or result.command.full),
                         next=next or f"run it by hand to see more: {result.command.full}")


class _Log:
    """Appends lines to a file, or to nowhere. Raises RunbookError when the file cannot be written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with self._explained():
            self._file: IO[str] | None = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a",
                                                   encoding="utf-8") if path else None

    def __enter__(self) -> Callable[[str], None]:
        return self._write

    def __exit__(self, *exc: object) -> None:
        if self._file:
            with suppress(OSError):  # closing flushes once more what could not be written, and was said
                self._file.close()

    def _write(self, line: str) -> None:
        if self._file:
            with self._explained():
                self._file.write(hide(line) + "\n")
                self._file.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunbookError(f"the log cannot be written: {error.strerror}", where=str(self._path),
                               next="free space, or mend the permissions, and run the same again") from error


class _Streams:
    """Both output streams and stdin, a thread each, so that no full pipe can block the child.

    Attributes:
        overflow: the child printed more than is kept.
        error: what `on_line` raised; the streams are still read to their end, or the child would block.
    """

    def __init__(self, process: subprocess.Popen[bytes], command: Command, on_line: Callable[[str], object]) -> None:
        self._out, self._err, self.overflow = bytearray(), bytearray(), False
        self.error: BaseException | None = None
        self._over, self._turn = False, threading.Lock()
        jobs = [(self._read, (process.stdout, self._out, None if command.data else on_line)),
                (self._read, (process.stderr, self._err, on_line))]
        if command.stdin is not None:
            jobs.append((self._feed, (process.stdin, command.stdin)))  # type: ignore[arg-type]
        self._threads = [(threading.Thread(target=job, args=args, daemon=True), args[0]) for job, args in jobs]

    def start(self) -> None:
        for thread, _ in self._threads:
            thread.start()

    out = property(lambda self: bytes(self._out))
    err = property(lambda self: bytes(self._err))

    def _read(self, stream: IO[bytes], kept: bytearray, on_line: Callable[[str], object] | None) -> None:
        with stream:
            for line in iter(lambda: stream.readline(LINE_LIMIT), b""):
                if len(kept) + len(line) > CAPTURE_LIMIT:
                    self.overflow = True
                    return
                with self._turn:
                    if self._over or self.error:
                        continue
                    kept += line
                    if on_line and line.strip():
                        try:
                            on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
                        except BaseException as error:
                            self.error = error

    def _feed(self, stream: IO[bytes], data: bytes) -> None:
        with suppress(BrokenPipeError), stream:  # the child's exit code says why it stopped reading
            stream.write(data)

    def close(self) -> None:
        """Wait for the rest; what a daemon that the child left behind says later is read, and dropped."""
        deadline = time.monotonic() + LEFT_BEHIND
        for thread, stream in self._threads:
            if thread.ident is None:  # Ctrl-C came before it was started
                stream.close()  # type: ignore[union-attr]
            else:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
        with self._turn:
            self._over = True


def end_group(leader: int, reap: Callable[[], object] = lambda: None) -> None:
    """End a program and all that it started in its group: the leader may die at SIGINT and the others not."""
    try:
        for sign, grace in GRACES:
            with suppress(ProcessLookupError):
                os.killpg(leader, sign)
            deadline = time.monotonic() + grace
            while (lives := _group_lives(leader, reap)) and time.monotonic() < deadline:
                time.sleep(0.02)
            if not lives:
                reap()
                return
    except BaseException:  # Ctrl-C a second time: no more patience
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        raise


def _group_lives(leader: int, reap: Callable[[], object]) -> bool:
    """Whether a process of the group runs; one that only waits to be reaped does not."""
    reap()
    for other in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getpgid(other.pid) == leader and other.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
