"""Container logs: one file per start of a container, in the CRI's line format, and what `kubectl logs` asks of it.

A line is `<RFC 3339 time> <stdout|stderr> <F|P> <text>`; P marks a piece of a longer line
(kubernetes/cri-api, "Logging"). A file that has grown to 10 MiB is moved to `<name>.1`; as with a kubelet, only the
newest file is read.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from gpurunbook.targets.rehearsal.process import chunks

ROTATE = 10 << 20  # bytes, a kubelet's containerLogMaxSize
LONGEST = 1 << 14  # bytes of one entry, as containerd cuts them
POLL = 0.1  # seconds between two looks at a followed file


class LogFile:
    """The log of one start of one container, being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    async def take(self, descriptor: int, stream: str) -> None:
        """Write all that arrives on a pipe, until its end."""
        rest = b""
        async for data in chunks(descriptor):
            *lines, rest = (rest + data).split(b"\n")
            self._write(stream, lines, rest_of_line=b"")
            while len(rest) >= LONGEST:
                self._write(stream, [], rest_of_line=rest[:LONGEST])
                rest = rest[LONGEST:]
        self._write(stream, [], rest_of_line=rest)

    def close(self) -> None:
        self._file.close()

    def _write(self, stream: str, lines: list[bytes], rest_of_line: bytes) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        full, part = f"{now} {stream} F ".encode(), f"{now} {stream} P ".encode()
        out = b"".join(full + line + b"\n" for line in lines)
        if rest_of_line:
            out += part + rest_of_line + b"\n"
        self._file.write(out)
        self._file.flush()
        if self._file.tell() > ROTATE:
            self._file.close()
            os.replace(self.path, rotated(self.path))
            self._file = self.path.open("ab")


def rotated(path: Path) -> Path:
    """Where a log's lines before the newest 10 MiB are."""
    return path.with_name(path.name + ".1")


@dataclass(frozen=True)
class LogOptions:
    """What a kubelet's /containerLogs understands (v1.PodLogOptions)."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: str = ""  # RFC 3339, compared as text: both sides are UTC with nanoseconds
    tail: int | None = None  # lines
    limit: int | None = None  # bytes
    streams: tuple[str, ...] = ("stdout", "stderr")

    @classmethod
    def parse(cls, query: Mapping[str, str], now: datetime.datetime) -> Self:
        """From the query. Raises ValueError for a number or time that is none."""
        def number(name: str) -> int | None:
            return int(query[name]) if query.get(name) else None

        def yes(name: str) -> bool:
            return query.get(name, "").lower() in ("1", "true")

        since = ""
        if query.get("sinceTime"):
            since = _text(datetime.datetime.fromisoformat(query["sinceTime"]))
        elif (seconds := number("sinceSeconds")) is not None:
            since = _text(now - datetime.timedelta(seconds=seconds))
        stream = query.get("stream", "All").lower()
        return cls(yes("follow"), yes("previous"), yes("timestamps"), since, number("tailLines"), number("limitBytes"),
                   ("stdout", "stderr") if stream == "all" else (stream,))


def _text(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def show(line: bytes, options: LogOptions) -> bytes | None:
    """A line of the file as the client wants it, or None if it does not."""
    time, stream, tag, text = line.rstrip(b"\n").split(b" ", 3)
    if stream.decode() not in options.streams or time.decode() < options.since:
        return None
    return (time + b" " if options.timestamps else b"") + text + (b"\n" if tag == b"F" else b"")


async def read(path: Path, options: LogOptions, running: asyncio.Event) -> AsyncIterator[bytes]:
    """The bytes that `kubectl logs` prints. A followed log ends when `running` is cleared and all has been read."""
    left = options.limit
    with path.open("rb") as first:
        _seek_tail(first, options)
        file = first
        try:
            while True:
                over = not running.is_set()
                if lines := _complete(file):
                    batch = b"".join(filter(None, (show(line, options) for line in lines)))[:left]
                    if left is not None:
                        left -= len(batch)
                    if batch:
                        yield batch
                    if left != 0:
                        continue
                if left == 0 or over or not options.follow:
                    return
                if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    file = path.open("rb")  # rotated
                else:
                    yield b""  # lets the caller see whether the client is still there
                    await asyncio.sleep(POLL)
        finally:
            file.close()


def _complete(file: BinaryIO, most: int = 1000) -> list[bytes]:
    """The next lines, without one that is still being written."""
    lines: list[bytes] = []
    while len(lines) < most and (line := file.readline()):
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            break
        lines.append(line)
    return lines


def _seek_tail(file: BinaryIO, options: LogOptions) -> None:
    if options.tail is None:
        return
    starts: list[int] = []  # offsets of the lines to count; the file is at most ROTATE long
    begins = True
    for line in iter(file.readline, b""):
        if show(line, options) is not None and begins:
            starts.append(file.tell() - len(line))
        begins = line.split(b" ", 3)[2] == b"F"
    file.seek(starts[-options.tail] if 0 < options.tail <= len(starts) else 0 if options.tail else file.tell())
