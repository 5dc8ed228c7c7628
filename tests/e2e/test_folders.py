"""Run folders as they meet the world: full disks, read-only ones, copies from elsewhere, and two who want the same run.

Each disk is a mount of its own in a namespace of its own, which is gone with the program.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gpurunbook import locks
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal
from tests.e2e.conftest import Checkout, make_checkout

FILL = "dd if=/dev/zero of=runs/fill bs=1k count={} 2>/dev/null;"
RUN = f"{sys.executable} -m gpurunbook run --run-id {{}} --until preflight;"
BEGIN = f"{sys.executable} -c 'from gpurunbook import open_run; open_run(\"preflight\", run_id=\"one\")'"
"""Quicker than a walk, where only its folder is wanted."""
ROOM = 256
"""KB of the small disk: a walk through 01 needs about 100, most of it for the notebook and the report."""


@pytest.fixture
def small(tmp_path: Path) -> Checkout:
    """A checkout of its own, with an empty runs/."""
    made = make_checkout(tmp_path)
    (made.root / "runs").mkdir(mode=0o700)
    return made


def inside(checkout: Checkout, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the checkout, in new namespaces."""
    return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", *options, "sh", "-c", script], cwd=checkout.root,
                          env=checkout.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


@pytest.mark.parametrize("filled", [ROOM, ROOM - 44], ids=["from the start", "while the notebook runs"])
def test_a_full_disk_is_said_and_leaves_nothing_torn(small: Checkout, filled: int) -> None:
    done = inside(small, f"mount -t tmpfs -o size={ROOM}k,mode=700 tmpfs runs; {FILL.format(filled)} {RUN.format('one')} "
                         "echo code $?; rm runs/fill; cp -a runs found; "
                         f"{RUN.format('one')} echo code $?")
    assert "No space left on device" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert "free space" in done.stderr
    assert done.stdout.count("code 1") == done.stdout.count("code 0") == 1, "once there is room, the same goes on"
    for file in (small.root / "found").rglob("*"):
        assert file.suffix != ".making", file
        if file.suffix == ".ipynb":
            json.loads(file.read_text())
    if filled == ROOM:
        assert list((small.root / "found").iterdir()) == [], "a name that was never begun is not taken"


@pytest.mark.parametrize("before", ["", f"{BEGIN};"], ids=["new", "begun before"])
def test_runs_on_a_read_only_disk(small: Checkout, before: str) -> None:
    done = inside(small, f"{before} mount --bind runs runs && mount -o remount,bind,ro runs && {RUN.format('one')} echo code $?")
    assert "Read-only file system" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr
    assert done.stdout.endswith("code 1\n")


def test_runs_from_another_machine_are_refused_and_left_as_they_are(small: Checkout, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("0123456789abcdef0123456789abcdef\n")
    elsewhere = (f"if [ -e /etc/machine-id ]; then mount --bind {tmp_path / 'id'} /etc/machine-id; fi; hostname elsewhere; "
                 f"{BEGIN}")
    assert inside(small, elsewhere, "--uts").returncode == 0
    journal = (small.folder("one") / "journal.jsonl").read_bytes()
    for args in (("run", "--run-id", "one"), ("run",), ("teardown", "--run-id", "one")):
        done = small(*args, check=False)
        assert done.returncode == 1
        assert "run one was begun on another machine (elsewhere)" in done.stderr
        assert "--run-id OTHER" in done.stderr
    assert (small.folder("one") / "journal.jsonl").read_bytes() == journal
    assert "one" in small("status").stdout, "looking is allowed"


def test_a_copied_run_folder_does_not_lead_into_the_cluster_of_the_first(small: Checkout, tmp_path: Path) -> None:
    subprocess.run(["sh", "-c", BEGIN], cwd=small.root, env=small.environment, check=True, timeout=60)
    other = make_checkout(tmp_path / "other")
    shutil.copytree(small.root / "runs", other.root / "runs")
    shutil.copytree(small.folder("one"), small.folder("two"))
    for checkout, name in ((small, "two"), (other, "one")):
        record = json.loads((checkout.folder(name) / "journal.jsonl").read_text().splitlines()[0])
        record["cluster_file"] = str(checkout.root / "cluster.yaml")
        rest = (checkout.folder(name) / "journal.jsonl").read_text().split("\n", 1)[1]
        (checkout.folder(name) / "journal.jsonl").write_text(json.dumps(record) + "\n" + rest)
        done = checkout("run", "--run-id", name, "--until", "preflight", check=False)
        assert done.returncode == 1
        assert f"was begun in another folder ({small.folder('one')})" in done.stderr
        checkout("run", "--run-id", name, "--until", "preflight", GPURUNBOOK_MOVED=name)
        checkout("run", "--run-id", name, "--until", "preflight")  # it was said once, and holds


# Two who want the same run

KERNEL = """
import sys
from gpurunbook.command import Command
from gpurunbook.runbook import open_run
run = open_run("preflight", run_id="shared")
print("open", flush=True)
for line in sys.stdin:
    try:
        run.apply(run.plan([Command(("sleep", line.strip()), why="work", limit=60)], "as asked"))
        print("applied", flush=True)
    except Exception as error:
        print("refused:", error.what, flush=True)
"""


@pytest.fixture
def kernel(small: Checkout) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts programs that open the run `shared` as a notebook does, and apply `sleep N` for each N that they are told."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        made = subprocess.Popen([sys.executable, "-c", KERNEL], cwd=small.root, env=small.environment, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(made)
        return made

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def said(process: subprocess.Popen[str], word: str) -> str:
    """The next line that holds a word."""
    assert process.stdout
    while word not in (line := process.stdout.readline()):
        assert line, process.stderr and process.stderr.read()
    return line


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def begun(small: Checkout, count: int) -> None:
    deadline = time.monotonic() + 20
    while [r["kind"] for r in Journal(small.folder("shared")).records()].count("pid") < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_notebooks_may_be_open_and_only_one_works(small: Checkout, kernel: Callable[[], subprocess.Popen[str]]) -> None:
    one = kernel()
    said(one, "open")
    two = kernel()
    said(two, "open")
    tell(one, "30")
    begun(small, 1)
    tell(two, "0")
    assert f"is being worked on by the notebook of stage preflight, process {one.pid}" in said(two, "refused")
    third = kernel()
    _, why = third.communicate(timeout=30)
    assert f"process {one.pid}" in why
    walk = small("run", "--run-id", "shared", "--until", "preflight", check=False)
    assert walk.returncode == 1
    assert f"process {one.pid}" in walk.stderr
    child = psutil.Process(one.pid).children()[0]
    os.kill(one.pid, signal.SIGKILL)
    tell(two, "0")
    assert "another runner was killed in the middle of" in said(two, "refused")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "what the killed one had started was ended"


def test_nobody_works_beside_a_walk_and_after_its_death_anybody(small: Checkout,
                                                                kernel: Callable[[], subprocess.Popen[str]]) -> None:
    one = kernel()
    said(one, "open")
    walk = subprocess.Popen(small.argv("run", "--run-id", "shared", "--until", "preflight"), cwd=small.root,
                            env=small.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not any(r["kind"] == "notebook" for r in small.records("shared")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        tell(one, "0")
        assert f"is being worked on by `gpurunbook run`, process {walk.pid}" in said(one, "refused")
    finally:
        walk.kill()
        walk.wait(10)
    tell(one, "0")
    said(one, "applied")


def test_a_lock_whose_holder_has_not_said_its_name(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("{torn")
    with locks.held(tmp_path, "me"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with locks.held(tmp_path, "my own notebook"):
            pass
        mine = os.environ.pop(locks.VARIABLE)
        (tmp_path / "lock").write_text("")
        with pytest.raises(RunbookError, match="by another, process unknown"), locks.held(tmp_path, "a stranger"):
            pass
        os.environ[locks.VARIABLE] = mine
    assert locks.VARIABLE not in os.environ


def test_a_notebook_whose_walk_was_killed_begins_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel lives for a second or so, and the next walk may be at work by then."""
    dead = {"what": "`gpurunbook run`", "pid": 2**22 + 1, "since": 1.0, "folder": str(tmp_path)}
    monkeypatch.setenv(locks.VARIABLE, json.dumps(dead))
    with pytest.raises(RunbookError, match="that this notebook works for has ended"), locks.held(tmp_path, "an orphan"):
        pass
    monkeypatch.setenv(locks.VARIABLE, json.dumps(dead | {"folder": "/another"}))
    with locks.held(tmp_path, "somebody"):
        pass
