"""An error says what, where, next: in a notebook with the rest in a fold below it, on the command line on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from gpurunbook import defects, masking, show
from gpurunbook.command import Command, Result, failure
from gpurunbook.errors import ConfigError, RunbookError
from tests.cells import Cell, executed
from tests.unit.test_plan_show import HOSTILE, Tags, harmless

SECRET = "canary-0123456789"
FAILING = ("import sys; print('starting'); print('first line <b>', file=sys.stderr); "
           f"print('{SECRET} \\x1b[2J', file=sys.stderr); print('Error: no such chart', file=sys.stderr); "
           "print('command terminated with exit code 3', file=sys.stderr); sys.exit(3)")
TOO_EARLY = "run.verify(nodes.verify(run));"
"""The last cell of 03."""
CELLS = (
    "import sys\nfrom pathlib import Path\nfrom gpurunbook import cells, journal, masking, show\n"
    "from gpurunbook.command import Command, environment\nfrom gpurunbook.command import run as start\ncells.begin()\n"
    "kept = journal.Journal(Path('FOLDER'))\ncells.journal_errors(kept, 'nodes')",
    f"command = Command((sys.executable, '-c', {FAILING!r}), why='install', limit=9, shown=('helm', 'upgrade'))\n"
    "start(command, env=environment({}), log=Path('FOLDER/nodes.log'))",
    "masking.know(5)",
    "import threading; before = threading.active_count()\n1 / 0",
    TOO_EARLY,
    "import os, signal, threading\nthreading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    "from gpurunbook import again\nresult = start(Command(('sleep', '9'), why='', limit=20), env=environment({}))",
    "raise KeyError('of the reader')",
    f"list(journal.Journal(Path('/dev/null/{SECRET}\\x1b[2J')).records())",
    "%%capture\nimport time\nget_ipython().run_cell('x = 1')\nget_ipython().run_cell('')\ntime.sleep(0.3)",
    "%%capture\n1 / 0",
    "from gpurunbook import live\nprint(len(live._going), threading.active_count() - before)",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def cells(folder: Path) -> list[Cell]:
    folder.mkdir()
    os.environ["SOME_PASSWORD"] = SECRET
    try:
        return executed([source.replace("FOLDER", str(folder)) for source in CELLS])
    finally:
        del os.environ["SOME_PASSWORD"]


def test_a_failed_command_is_a_few_lines_and_a_fold_shown_once(cells: list[Cell], folder: Path) -> None:
    [error] = cells[1].errors
    program = Path(sys.executable).name
    assert error.splitlines()[:3] == [f"CommandFailed: {program} ended with exit code 3: helm upgrade",
                                      "  said:  Error: no such chart", f"  where: {folder}/nodes.log"]
    assert len(error.splitlines()) == 4
    [fold] = cells[1].shown
    page = Tags(fold["text/html"])
    assert fold["text/html"].startswith("<details")
    for word in ("first line <b>", "\\u001b[2J", f"{folder}/nodes.log", f"{folder}/journal.jsonl", "Traceback (most recent call"):
        assert word in page.text
    assert len(fold["text/plain"].splitlines()) == 6, "a log of papermill's gets where things are, and no wall"


def test_no_secret_and_nothing_raw_is_in_what_a_cell_keeps(cells: list[Cell]) -> None:
    for cell in cells[:4]:
        whole = "".join([*cell.errors, *(text for data in cell.shown for text in data.values())])
        assert SECRET not in whole
        assert "\x1b[2J" not in whole
    assert masking.HIDDEN in cells[1].shown[0]["text/html"]


def test_a_defect_of_ours_says_so_and_how_to_report_it(cells: list[Cell]) -> None:
    [error] = cells[2].errors
    lines = error.splitlines()
    assert "TypeError" in lines[0]
    assert "this is a defect of gpurunbook" in lines[0]
    assert lines[1].startswith("  where: gpurunbook/masking.py, line ")
    assert "report it with its traceback" in lines[2]
    assert len(lines) == 3
    assert "object of type" in Tags(cells[2].shown[0]["text/html"]).text


def test_what_a_notebook_keeps_of_an_error_beside_its_lines_is_clean_too(cells: list[Cell]) -> None:
    """JupyterLab saves `evalue`, which nobody sees and everybody can read."""
    told = {2: "TypeError: object of type", 4: "'run' is not there yet", 5: "interrupted", 7: "/dev/null/"}
    for number, begins in told.items():
        [kept] = [output for output in cells[number].outputs if output["output_type"] == "error"]
        assert kept["ename"] == "RunbookError"
        assert kept["evalue"].startswith(begins)
        assert "\n  next:  " in kept["evalue"], "papermill hands this on"
        assert SECRET not in json.dumps(cells[number].outputs)
        assert "\\u001b[2J" not in json.dumps(cells[number].outputs).replace("\\\\u001b", "")


def test_a_cell_in_a_cell_leaves_no_progress_behind(cells: list[Cell]) -> None:
    [said] = [output["text"] for output in cells[10].outputs]
    assert said == "1 0\n", "this cell's own, and no thread more than in a cell before"


def test_code_of_the_readers_own_has_its_whole_traceback(cells: list[Cell]) -> None:
    for cell, kind in ((cells[3], "ZeroDivisionError"), (cells[6], "KeyError")):
        assert kind in cell.errors[0]
        assert "----> " in cell.errors[0]
        assert cell.shown == []


def test_a_shipped_cell_that_is_run_too_early_says_what_is_missing(cells: list[Cell]) -> None:
    lines = cells[4].errors[0].splitlines()
    assert lines == ["'run' is not there yet: a cell above this one was not run; nothing was changed",
                     "  where: notebooks/03_nodes.ipynb",
                     "  next:  run the cells above, in order (menu: Run, Run All Above Selected Cell)"]


def test_an_interrupted_cell_is_three_lines(cells: list[Cell]) -> None:
    lines = cells[5].errors[0].splitlines()
    assert "interrupted" in lines[0]
    assert len(lines) == 3


def test_the_journal_has_every_error_with_its_traceback(cells: list[Cell], folder: Path) -> None:
    assert len(cells) == len(CELLS)
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    errors = [record for record in records if record["kind"] == "error"]
    assert [record["type"] for record in errors] == ["CommandFailed", "TypeError", "ZeroDivisionError", "NameError",
                                                     "KeyboardInterrupt", "KeyError", "NotADirectoryError", "ZeroDivisionError"]
    assert all("Traceback" in record["traceback"] for record in errors)
    assert SECRET not in (folder / "journal.jsonl").read_text()


def test_half_a_command_is_not_shown_as_if_it_could_be_pasted() -> None:
    command = Command(("kubectl", "exec", "x" * 300), why="", limit=1, shown=("kubectl", "exec"))
    brief = failure(Result(command, 1, b"", "", 1)).brief
    assert brief.splitlines()[-1] == "  next:  run it by hand to see more: in full below"
    assert "xx" not in brief.splitlines()[-1]
    short = failure(Result(replace(command, argv=("kubectl", "get")), 1, b"", "", 1)).brief
    assert short.splitlines()[-1] == "  next:  run it by hand to see more: kubectl get"


@pytest.mark.parametrize("cut", range(4, len(SECRET)))
def test_a_secret_is_hidden_before_a_text_is_cut_in_it(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", SECRET)
    assert SECRET[:cut] not in defects.explained(ValueError("x" * (299 - cut) + " " + SECRET)).what
    whole = "".join(traceback.format_exception(error := ValueError(SECRET + "." * (defects.LONGEST - cut - 1))))
    assert len(whole) > defects.LONGEST
    assert SECRET[-cut:] + "." not in defects.text(error)


def test_what_is_folded_is_shown_as_text() -> None:
    fold = show.Fold(HOSTILE, ((HOSTILE, HOSTILE), ("many", f"one\n{HOSTILE}")))
    page = Tags(fold._repr_html_())
    assert "script" not in page.seen
    assert harmless(fold._repr_html_() + repr(fold))
    assert repr(show.Fold("the rest", (("log", "/x.log"), ("traceback", "a\nb")))) == (
        "the rest\n  log: /x.log\n  traceback: 2 lines")


def test_the_last_word_of_a_program_is_its_own_and_not_kubectls() -> None:
    said = "MemoryError: x\ncommand terminated with exit code 1\n"
    result = Result(Command(("kubectl", "exec"), why="", limit=1), 1, b"", said, 1)
    assert failure(result).brief.splitlines()[1] == "  said:  MemoryError: x"
    assert RunbookError("what", where="w", next="n").brief == "what\n  where: w\n  next:  n"
    assert RunbookError("").brief == ""


# The command line

BROKEN = """
import sys
from gpurunbook import cli, masking
from gpurunbook.errors import ConfigError, RunbookError
cli.app.command("break")(lambda: masking.know(5))
@cli.app.command("fail")
def fail():
    raise {error}
sys.argv = ["gpurunbook", {argv}]
cli.main()
"""


def typed(*argv: str, error: str = "RunbookError('it failed', where='there', next='gpurunbook doctor')",
          tmp: Path) -> subprocess.CompletedProcess[str]:
    script = BROKEN.format(argv=", ".join(map(repr, argv)), error=error)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False,
                          env=os.environ | {"TMPDIR": str(tmp)})


def test_a_defect_on_the_command_line_is_three_lines_and_its_traceback_a_file(tmp_path: Path) -> None:
    done = typed("break", tmp=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    what, where, following = done.stderr.splitlines()
    assert what.startswith("error: TypeError: object of type 'int' has no len(); this is a defect of gpurunbook ")
    [kept] = tmp_path.glob("gpurunbook-error-*.txt")
    assert where == f"  where: {where.split(': ')[1].split('; ')[0]}; {kept}"
    assert "gpurunbook/masking.py, line" in where
    assert following.startswith("  next:  ")
    assert "Traceback (most recent call last)" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("error", "code"), [("RunbookError('it failed', where='there', next='gpurunbook doctor')", 1),
                                             ("ConfigError('it failed', where='there', next='gpurunbook doctor')", 2)])
def test_an_error_is_told_on_stderr_and_verbose_adds_the_traceback(error: str, code: int, tmp_path: Path) -> None:
    done = typed("fail", error=error, tmp=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == "error: it failed\n  where: there\n  next:  gpurunbook doctor\n"
    more = typed("--verbose", "fail", error=error, tmp=tmp_path)
    assert more.stderr.startswith(done.stderr)
    assert "Traceback (most recent call last)" in more.stderr
    assert list(tmp_path.glob("gpurunbook-error-*")) == []


def test_where_no_file_can_be_made_the_traceback_is_on_stderr(tmp_path: Path) -> None:
    script = BROKEN.format(argv="'break'", error="None")
    done = subprocess.run([sys.executable, "-c", f"import tempfile\ntempfile.tempdir = '/dev/null'\n{script}"], text=True,
                          capture_output=True, timeout=60, check=False, env=os.environ | {"SOME_PASSWORD": "takes 0 pos"})
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("error: TypeError: object of type 'int' has no len(); this is a defect of gpurunbook ")
    assert lines[3] == "Traceback (most recent call last):"
    assert "During handling of the above exception" not in done.stderr
    assert "mkstemp" not in done.stderr


def test_what_the_machine_refuses_is_told_without_a_file_and_in_one_place(tmp_path: Path) -> None:
    for error, what in (("OSError(28, 'No space left on device')", "a file or a connection: No space left on device"),
                        ("PermissionError(13, 'Permission denied', '/x')", "/x: Permission denied")):
        done = typed("fail", error=error, tmp=tmp_path)
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"error: {what}")
        assert len(done.stderr.splitlines()) == 3
    assert list(tmp_path.glob("gpurunbook-error-*")) == []


def test_an_interrupted_command_ends_with_130(tmp_path: Path) -> None:
    done = typed("fail", error="KeyboardInterrupt()", tmp=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


def test_what_is_no_defect_is_told_as_what_it_is() -> None:
    assert defects.explained(FileNotFoundError(2, "No such file", "/x")).what == "/x: No such file"
    assert defects.explained(KeyboardInterrupt()).what == "interrupted"
    assert isinstance(defects.told(ValueError("x")).__cause__, ValueError)
    assert not isinstance(defects.explained(ValueError("x")), ConfigError)
