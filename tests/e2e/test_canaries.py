"""Two dozen secrets through a walk that succeeds, one that fails, a kernel's death and the runner's: none is left anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from gpurunbook import masking, processes, programs
from tests import canaries
from tests.e2e.conftest import Checkout, make_checkout

RUN = "canaries"
SAY = """
import html, logging, os, sys
said = {{k: v for k, v in os.environ.items() if k in {variables!r}}}
assert len(said) == {count}
print(said)
for text in said.values():
    print(text, text.encode(), sep="\\n")
    sys.stdout.write(text[:len(text) // 2]); sys.stdout.flush(); sys.stdout.write(text[len(text) // 2:] + "\\n")
    logging.getLogger("of a library").warning("refused: %s", text)
from IPython.display import HTML, Markdown, display
display(HTML("<pre>" + html.escape("\\n".join(said.values())) + "</pre>"), Markdown("\\n\\n".join(said.values())), said)
run.journal.append("note", said=said)
"""
FAIL = """
try:
    raise ValueError(said)
except ValueError as error:
    raise RuntimeError("\\n".join(said.values())) from error
"""
DIE = "import signal; os.kill(os.getpid(), signal.SIGKILL)"
HANG = "import pathlib, time; pathlib.Path({here!r}).touch(); time.sleep(120)"
PROGRAM = """#!/bin/sh
cat {said} >&2
exec {real} "$@"
"""


@pytest.fixture(scope="module")
def birds() -> list[canaries.Canary]:
    return canaries.made(20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, birds: list[canaries.Canary]) -> Iterator[Checkout]:
    """A checkout whose kubectl and helm print the secrets, and whose environment has them."""
    folder = tmp_path_factory.mktemp("canaries")
    made = make_checkout(folder)
    (folder / "said").write_text("\n".join(bird.text for bird in birds) + "\n")
    for name in ("kubectl", "helm"):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PROGRAM.format(said=folder / "said", real=programs.find(name).path))
        path.chmod(0o755)
    made.environment |= {bird.variable: bird.text for bird in birds}
    made.environment["PATH"] = f"{folder / 'bin'}:{made.environment['PATH']}"
    yield made
    left = [p for p in processes.of_runs() if p.run and p.run.is_relative_to(made.root)]
    processes.end(left)
    assert not left, f"still alive after the tests: {left}"


def said(checkout: Checkout, stage: str, birds: list[canaries.Canary], *more: str) -> None:
    """The stage's notebook with cells of a team's own at its end, which say all they know."""
    path = checkout.root / "notebooks" / f"{stage}.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells = [cell for cell in book.cells if not cell.metadata.get("canary")]
    sources = [SAY.format(variables={bird.variable for bird in birds}, count=len(birds)), *more] if more else []
    book.cells += [nbformat.v4.new_code_cell(source, metadata={"canary": True}) for source in sources]
    nbformat.write(book, path)


def left(checkout: Checkout, birds: list[canaries.Canary], *texts: str) -> dict[str, list[str]]:
    """Where -> which secrets are there: every file under runs/, and these texts."""
    found = {f"text {i}": canaries.leaks(birds, text) for i, text in enumerate(texts)}
    for path in (checkout.root / "runs").rglob("*"):
        if path.is_file():
            found[str(path.relative_to(checkout.root))] = canaries.leaks(birds, path.read_bytes())
    return {where: names for where, names in found.items() if names}


@contextmanager
def watched(birds: list[canaries.Canary]) -> Iterator[set[str]]:
    """What `ps` shows of anybody meanwhile: the names of the secrets in it."""
    seen, known, over = set[str](), set[bytes](), threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has ended
                    if (line := path.read_bytes()) not in known:
                        known.add(line)
                        seen.update(canaries.leaks(birds, line.replace(b"\0", b" ")))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def executed(checkout: Checkout, stage: str) -> str:
    return (checkout.folder(RUN) / "notebooks" / f"{stage}.ipynb").read_text()


@pytest.mark.timeout(600)
def test_no_secret_is_left_by_success_failure_or_death(place: Checkout, birds: list[canaries.Canary]) -> None:
    texts: list[str] = []

    def gpurunbook(*args: str, code: int) -> str:
        done = place(*args, "--run-id", RUN, check=False)
        texts.extend((done.stdout, done.stderr))
        assert done.returncode == code, done.stdout + done.stderr
        if args[0] == "run":  # the next walk writes over it
            texts.append(executed(place, "03_nodes"))
        return done.stderr

    with watched(birds) as shown:
        # A walk that ends well: 04 calls kubectl, whose words are logged.
        said(place, "03_nodes", birds, "pass")
        gpurunbook("run", "--until", "taint", code=0)
        assert masking.HIDDEN in executed(place, "03_nodes")
        assert masking.HIDDEN in "".join(path.read_text() for path in (place.folder(RUN) / "logs").glob("*.log"))
        # A cell that fails with all of them in its error.
        said(place, "03_nodes", birds, FAIL)
        assert "RuntimeError: " in gpurunbook("run", "--from", "nodes", "--until", "nodes", code=1)
        assert "RuntimeError" in executed(place, "03_nodes")
        assert left(place, birds, *texts) == {}
        # A kernel that is killed.
        said(place, "03_nodes", birds, DIE)
        gpurunbook("run", "--from", "nodes", "--until", "nodes", code=1)
        assert "of a library" in executed(place, "03_nodes") or masking.HIDDEN in executed(place, "03_nodes")
        # The runner killed while papermill's file is as its last save left it.
        here = place.root.parent / "here"
        said(place, "03_nodes", birds, HANG.format(here=str(here)))
        texts.append(_killed(place, here))
        assert masking.HIDDEN in executed(place, "03_nodes")
        assert left(place, birds, *texts) == {}
        said(place, "03_nodes", birds)
        for args in (("report",), ("status", "--json")):
            done = place(*args, "--run-id", RUN, check=False)
            texts += [done.stdout, done.stderr]
        gpurunbook("teardown", code=0)
    assert left(place, birds, *texts) == {}
    assert shown == set()
    assert [path for path in place.home.rglob("*") if path.is_file() and canaries.leaks(birds, path.read_bytes())] == []


def _killed(place: Checkout, here: Path) -> str:
    process = subprocess.Popen(place.argv("run", "--run-id", RUN, "--from", "nodes", "--until", "nodes"), cwd=place.root,
                               env=place.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    end = time.monotonic() + 60
    while not here.exists():
        assert time.monotonic() < end, "the cell did not begin"
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for child in children:  # the kernel sleeps; its parent is gone
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(children, timeout=10)
    return process.communicate(timeout=30)[0]
