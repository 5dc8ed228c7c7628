"""A jailed program on the event loop: waiting, signals, and bytes in and out without a buffer of our own.

What a program writes stays in its pipe until the reader has passed it on, and the reader waits for its client, so a
slow client slows the program down and memory stays flat.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from gpurunbook.targets.rehearsal import limits, memory
from gpurunbook.targets.rehearsal.jail import Jail

log = logging.getLogger(__name__)
CHUNK = 1 << 16  # bytes: a pipe's capacity


@dataclass(frozen=True)
class Exit:
    """How a program ended: 0 to 255 as shells count. `jailed` is false when its jail could not be made."""

    code: int
    jailed: bool = True

    @property
    def signal(self) -> int | None:
        """The signal that ended it; a program that exits with 128 + n itself looks the same, as in a shell."""
        return self.code - 128 if 128 < self.code < 128 + signal.NSIG else None


class Process:
    """One program in its jail. `stdin`, `stdout`, `stderr` are our non-blocking ends, None where not asked for.

    With a terminal `stdin` and `stdout` are both its master side and there is no `stderr`.
    """

    alive: ClassVar[set[Process]] = set()
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    init: int | None = None
    """The jail's process 1, as the host counts; None before there is one. Not for a process that has ended."""

    def __init__(self, jail: Jail, bwrap: subprocess.Popen[bytes], status: int, go: int | None = None) -> None:
        self.jail = jail
        self._bwrap, self._status, self._said, self._killing = bwrap, status, b"", False
        self._go = go  # the jail waits for a byte from it, until its limits are set
        self._init_fd: int | None = None  # by it a signal reaches the jail's init and never a later process of its pid
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(bwrap.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        asyncio.get_running_loop().add_reader(status, self._hear)
        self.alive.add(self)

    @classmethod
    def start(cls, jail: Jail, command: Sequence[str], *, stdin: bool = False, tty: bool = False) -> Self:
        """Start a command. Without `stdin` it reads /dev/null.

        Raises:
            OSError: the machine has no room for a process.
        """
        ours: dict[str, int] = {}
        with contextlib.ExitStack() as theirs:
            def pipe(name: str, *, we_read: bool) -> int:
                read, write = os.pipe()
                ours[name], other = (read, write) if we_read else (write, read)
                theirs.callback(os.close, other)
                return other

            try:
                status, go = pipe("status", we_read=True), pipe("go", we_read=False)
                if tty:
                    ours["stdin"], terminal = pty.openpty()
                    theirs.callback(os.close, terminal)
                    ours["stdout"] = os.dup(ours["stdin"])
                    if jail.uid is not None:
                        os.fchown(terminal, jail.uid, jail.uid)
                    bwrap = jail.spawn(command, stdin=terminal, stdout=terminal, stderr=terminal, tty=True,
                                       status=status, go=go)
                else:
                    bwrap = jail.spawn(command, stdin=pipe("stdin", we_read=False) if stdin else subprocess.DEVNULL,
                                       stdout=pipe("stdout", we_read=True), stderr=pipe("stderr", we_read=True),
                                       status=status, go=go)
            except BaseException:
                for descriptor in ours.values():
                    os.close(descriptor)
                raise
        for descriptor in ours.values():
            os.set_blocking(descriptor, False)
        process = cls(jail, bwrap, ours.pop("status"), ours.pop("go"))
        for name, descriptor in ours.items():
            setattr(process, name, descriptor)
        return process

    async def wait(self) -> Exit:
        """Until it has ended, and with it everything in its jail."""
        return await asyncio.shield(self._ended)

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the program itself (bubblewrap would not pass it on)."""
        if self._ended.done():
            return
        self._hear()
        init = self.init
        try:
            if init is None or self._init_fd is None:
                raise ProcessLookupError
            program = int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])
            with _pidfd(program, init) as found:
                signal.pidfd_send_signal(self._init_fd, 0)  # still there, so it was our init whose child we looked up
                signal.pidfd_send_signal(found, number)
        except (OSError, IndexError):
            self.kill()  # no program yet, or none any more

    def kill(self) -> None:
        """SIGKILL for all that runs in the jail: its init, with which the kernel ends the namespace.

        Not bubblewrap itself: killed while it makes the jail, it would leave an init that never hears of it.
        """
        if not self._ended.done() and not self._killing:
            self._killing = True
            self._hear()

    def _hear(self) -> None:
        """Take hold of the init as soon as bubblewrap says which it is; it says so or ends. End it if that is due."""
        if self._init_fd is None and (init := self._statements().get("child-pid")) is not None:
            self.init = init
            asyncio.get_running_loop().remove_reader(self._status)
            # Until bubblewrap has been waited for nobody else has its pid, so what is its child is the jail's init.
            with contextlib.suppress(ProcessLookupError), _pidfd(init, self._bwrap.pid) as found:
                self._init_fd = os.dup(found)
                self._let_go(init)
        if self._killing and self._init_fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)

    def _let_go(self, init: int) -> None:
        """Limit the jail, and have it start its program; end it if it cannot be limited."""
        if self._go is not None and not self._killing:
            try:
                limits.hold(init, shared=self.jail.uid is None)
                os.write(self._go, b"\0")
            except OSError:
                log.exception("a jail could not be limited, so nothing runs in it")
                self._killing = True

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size, in characters; the program gets SIGWINCH."""
        if self.stdin is not None:
            fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        """Close our ends. The process must have ended."""
        for name in ("stdin", "stdout", "stderr"):
            descriptor = getattr(self, name)
            if descriptor is not None:
                os.close(descriptor)
                setattr(self, name, None)

    def _statements(self) -> dict[str, int]:
        """What bubblewrap has said of the jail until now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._status, CHUNK):
                self._said += data
        complete = self._said[:self._said.rfind(b"\n") + 1]
        return {name: value for line in complete.splitlines() for name, value in json.loads(line).items()}

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        loop.remove_reader(self._status)
        code = self._bwrap.wait()
        jailed = self._killing or code < 0 or "exit-code" in self._statements()
        for descriptor in (self._pidfd, self._status, self._init_fd, self._go):
            if descriptor is not None:
                os.close(descriptor)
        self._init_fd = self._go = None
        self.alive.discard(self)
        self._ended.set_result(Exit(128 - code if code < 0 else code, jailed))


@contextlib.contextmanager
def _pidfd(pid: int, parent: int) -> Iterator[int]:
    """A hold of the process with this pid. Raises ProcessLookupError when it is not, or no longer, a child of `parent`."""
    descriptor = os.pidfd_open(pid)
    try:
        if memory.parent(pid) != parent:
            raise ProcessLookupError(pid)
        yield descriptor
    finally:
        os.close(descriptor)


async def chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What arrives, at most 64 KiB at a time, until the end; nothing is read ahead."""
    while True:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            await _ready(descriptor, write=False)
            continue
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that nobody holds open any more
                return
            raise
        if not data:
            return
        yield data


async def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting while the reader is busy. Raises BrokenPipeError when there is none."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest):]
        except BlockingIOError:
            await _ready(descriptor, write=True)


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(descriptor)
