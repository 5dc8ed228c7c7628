"""The journal: what a crash, a full disk and several writers at once leave of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal, new_id


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_what_is_appended_is_read_back_in_order(journal: Journal) -> None:
    first = journal.append("note", text="é ‮ \ud800 \x1b[31m\nx", path=Path("/p"))
    journal.append("note", text="two")
    assert [r["text"] for r in journal.records()] == [first["text"], "two"]
    assert [r["path"] for r in journal.records() if "path" in r] == ["/p"]
    assert journal.path.read_bytes().isascii()
    assert journal.path.read_text().count("\n") == 2
    assert first["time"].endswith("+00:00")


def test_no_journal_no_records(journal: Journal) -> None:
    assert list(journal.records()) == []
    assert journal.last("note") is None
    assert journal.in_flight() == []


@pytest.mark.parametrize("torn", [b'{"time": "2026', b'{"kind": "note", "n', b"\xff\xfe", b"\0\0\0\0", b"[1, 2]", b'"x"', b"{}"])
def test_a_torn_line_costs_only_itself(journal: Journal, torn: bytes) -> None:
    journal.append("note", n=1)
    with journal.path.open("ab") as file:
        file.write(torn)
    assert [r["n"] for r in journal.records()] == [1]
    journal.append("note", n=2)
    assert [r["n"] for r in journal.records()] == [1, 2]


def test_what_others_append_is_seen_and_nothing_twice(journal: Journal) -> None:
    """A journal that was read before reads on from there, from within a line too, and begins anew with another file."""
    other = Journal(journal.folder)
    for n in range(3):
        other.append("note", n=n)
        assert [r["n"] for r in journal.records()] == list(range(n + 1))
    next(journal.records())["n"] = "changed by its reader"
    whole = journal.path.read_bytes()
    for cut in range(len(whole)):
        journal.path.write_bytes(whole[:cut])
        late = Journal(journal.folder)
        before = [r["n"] for r in late.records()]
        journal.path.write_bytes(whole)
        assert (before, [r["n"] for r in late.records()]) == (list(range(len(before))), [0, 1, 2])
    journal.path.write_bytes(whole.splitlines(keepends=True)[1])
    assert [r["n"] for r in journal.records()] == [1]


def test_a_write_cut_short_is_an_error_and_not_half_a_record(tmp_path: Path) -> None:
    """A limit on the file's size cuts a write as a full disk does."""
    script = f"""
import resource
from pathlib import Path
from gpurunbook.journal import Journal
journal = Journal(Path({str(tmp_path)!r}))
journal.append("note", n=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    journal.append("note", text="x" * 500)
except Exception as error:
    print(type(error).__name__, error.what)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append("note", n=2)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "RunbookError the journal cannot be written: No space left on device"
    assert [r["n"] for r in Journal(tmp_path).records()] == [1, 2]


def test_several_processes_append_at_once(journal: Journal) -> None:
    script = ("import sys; from pathlib import Path; from gpurunbook.journal import Journal\n"
              "journal = Journal(Path(sys.argv[1]))\n"
              "for n in range(50): journal.append('note', who=sys.argv[2], n=n, text='x' * 9000)")
    writers = [subprocess.Popen([sys.executable, "-c", script, str(journal.folder), str(who)]) for who in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = [(r["who"], r["n"]) for r in journal.records()]
    assert sorted(found) == [(str(who), n) for who in range(3) for n in range(50)]
    for who in "012":
        assert [n for w, n in found if w == who] == list(range(50))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_is_private_whatever_the_umask(journal: Journal, umask: int) -> None:
    before = os.umask(umask)
    try:
        journal.append("note")
    finally:
        os.umask(before)
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_in_flight_are_the_intents_without_a_result(journal: Journal) -> None:
    for word in ("a", "b", "c"):
        journal.append("intent", id=word, shown=word)
    journal.append("result", id="b", code=1)
    journal.append("result", id="unknown", code=0)
    journal.append("pid", id="unknown", process={})  # its intent was torn, or closed by another
    assert [r["shown"] for r in journal.in_flight()] == ["a", "c"]


def test_last_is_the_newest_that_matches(journal: Journal) -> None:
    for name, version in (("helm", "1"), ("kubectl", "2"), ("helm", "3")):
        journal.append("program", name=name, version=version)
    found = journal.last("program", name="helm")
    assert found is not None
    assert found["version"] == "3"
    assert journal.last("program", name="eksctl") is None


def test_a_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunbookError, match="the journal cannot be written: No such file"):
        Journal(tmp_path / "gone").append("note")


def test_ids_do_not_repeat() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert json.loads(json.dumps(ids)) == ids
