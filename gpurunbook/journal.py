"""The journal of a run: what was intended and what came of it, appended and synced.

One JSON object a line in `journal.jsonl`. The notebook's kernel and the command line append to the same file:
each record is one `write` to a descriptor opened with O_APPEND. The journal is evidence, and says what was in
flight when a run was killed; the cluster stays the truth.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpurunbook.errors import RunbookError
from gpurunbook.masking import hide_in, hide_json

Record = dict[str, Any]
"""`time` (UTC, ISO 8601), `kind`, and what that kind carries."""


class Journal:
    """The journal in one run folder. The folder and the file are made private (0700, 0600)."""

    writes = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "journal.jsonl"
        self._read: tuple[int, tuple[Record, ...]] = 0, ()  # bytes of whole lines, and their records: replaced as one

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record and sync it to disk before returning. Raises RunbookError when the disk refuses."""
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **fields}
        line = (_hidden(record) + "\n").encode()
        try:
            self._write(line)
        except OSError as error:
            raise RunbookError(f"the journal cannot be written: {error.strerror}", where=str(self.path),
                               next="free space or mend the permissions, then run the same again") from error
        return record

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a write torn by a crash must not swallow this record
            if os.write(descriptor, line) < len(line):  # the rest could land behind another writer's record
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def records(self) -> Iterator[Record]:
        """All whole records, oldest first; a line torn by a crash is left out. What was read before is not read again."""
        size, known = self._read
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < size:  # another file took its place
                    size, known = 0, ()
                file.seek(size)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        known += tuple(_whole(data[:whole]))
        self._read = size + whole, known
        for record in (*known, *_whole(data[whole:])):
            yield dict(record)

    def first(self, kind: str) -> Record | None:
        """The oldest record of a kind."""
        return next((record for record in self.records() if record["kind"] == kind), None)

    def last(self, kind: str, **match: Any) -> Record | None:
        """The newest record of a kind whose fields equal `match`, since the run was last torn down."""
        found = None
        for record in self.records():
            if record["kind"] == "run" and record["state"] == "finished":
                found = None
            if record["kind"] == kind and all(record.get(k) == v for k, v in match.items()):
                found = record
        return found

    def succeeded(self) -> list[Record]:
        """The intents whose program ended with 0, oldest first."""
        records = list(self.records())
        good = {record["id"] for record in records if record["kind"] == "result" and record["code"] == 0}
        return [record for record in records if record["kind"] == "intent" and record["id"] in good]

    def in_flight(self) -> list[Record]:
        """Intents without a result: what a killed run may or may not have done.

        Each has `by`, the process that intended it, and `program`, the one it started, if it came so far.
        """
        open_intents: dict[str, Record] = {}
        for record in self.records():
            if record["kind"] == "intent":
                open_intents[record["id"]] = record
            elif record["kind"] == "pid" and record["id"] in open_intents:
                open_intents[record["id"]]["program"] = record["process"]
            elif record["kind"] == "result":
                open_intents.pop(record["id"], None)
        return list(open_intents.values())


def _hidden(record: Record) -> str:
    """The record as one line of JSON without secrets, and JSON still: a record that cannot be read again is lost."""
    # Value by value, since a secret with quotes in it is another text once it is escaped; then by the names of the keys.
    return hide_json(json.dumps(hide_in(json.loads(json.dumps(record, default=str)))))


def _whole(data: bytes) -> Iterator[Record]:
    for line in data.split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "kind" in record:
            yield record


class ReadOnlyJournal(Journal):
    """A journal for those who only look: what is appended is not kept."""

    writes = False

    def append(self, kind: str, **fields: Any) -> Record:
        return {"kind": kind, **fields}


def new_id() -> str:
    """An id for an intent, unique in a run and in order."""
    return f"{time.time_ns():x}-{os.getpid():x}"
