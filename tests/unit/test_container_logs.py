"""Container logs: from a pipe to the file, and from the file to kubectl."""

from __future__ import annotations

import asyncio
import datetime
import os
from pathlib import Path

import pytest

from gpurunbook.targets.rehearsal import logs
from gpurunbook.targets.rehearsal.logs import LogFile, LogOptions

NOW = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.UTC)
FILE = b"""2026-11-22T11:59:00.000000000Z stdout F one
2026-11-22T11:59:10.000000000Z stderr F two
2026-11-22T11:59:20.000000000Z stdout P thr
2026-11-22T11:59:20.000000000Z stdout F ee
2026-11-22T11:59:30.000000000Z stdout F four
"""


async def printed(path: Path, **query: str) -> bytes:
    options = LogOptions.parse(query, NOW)
    return b"".join([data async for data in logs.read(path, options, asyncio.Event())])


@pytest.mark.parametrize(("query", "expected"), [
    ({}, b"one\ntwo\nthree\nfour\n"),
    ({"tailLines": "2"}, b"three\nfour\n"),
    ({"tailLines": "0"}, b""),
    ({"tailLines": "99"}, b"one\ntwo\nthree\nfour\n"),
    ({"limitBytes": "6"}, b"one\ntw"),
    ({"sinceSeconds": "45"}, b"three\nfour\n"),
    ({"sinceTime": "2026-11-22T11:59:30Z"}, b"four\n"),
    ({"stream": "Stderr"}, b"two\n"),
    ({"tailLines": "1", "timestamps": "true"}, b"2026-11-22T11:59:30.000000000Z four\n"),
    ({"follow": "true"}, b"one\ntwo\nthree\nfour\n"),
])
async def test_what_kubectl_asks(tmp_path: Path, query: dict[str, str], expected: bytes) -> None:
    (tmp_path / "log").write_bytes(FILE)
    assert await printed(tmp_path / "log", **query) == expected


async def test_a_filter_that_drops_the_first_thousand_lines(tmp_path: Path) -> None:
    line = b"2026-11-22T11:59:00.000000000Z stderr F x\n"
    (tmp_path / "log").write_bytes(line * 2500 + FILE)
    assert await printed(tmp_path / "log", stream="Stdout") == b"one\nthree\nfour\n"


async def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(FILE + b"2026-11-22T11:59:40.0000")
    assert (await printed(tmp_path / "log")).endswith(b"four\n")


@pytest.mark.parametrize("query", [{"tailLines": "x"}, {"sinceTime": "yesterday"}])
def test_nonsense_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"x|yesterday"):
        LogOptions.parse(query, NOW)


async def written(path: Path, data: bytes) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    log = LogFile(path)
    taking = asyncio.create_task(log.take(read, "stdout"))
    for at in range(0, len(data), 30_000):
        await asyncio.to_thread(os.write, write, data[at:at + 30_000])
    os.close(write)
    await taking
    os.close(read)
    log.close()


@pytest.mark.parametrize("data", [b"a\nb\n", b"unfinished", b"", b"\n\n", b"x" * 100_000 + b"\ny\n", b"\xff\x00\n"])
async def test_what_is_written_is_read(tmp_path: Path, data: bytes) -> None:
    await written(tmp_path / "log", data)
    assert await printed(tmp_path / "log") == data


async def test_a_large_log_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ROTATE", 50_000)
    await written(tmp_path / "log", b"0123456789\n" * 30_000)
    assert (tmp_path / "log").stat().st_size <= 50_000
    assert (tmp_path / "log.1").exists()
