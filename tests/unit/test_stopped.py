"""A walk that stops: why is said last, whatever else fails on the way; and what is refused is refused before it begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import papermill
import pytest

from gpurunbook import walk
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.targets.rehearsal.world import World

ROOT = Path(__file__).resolve().parents[2]
WALK = """
import sys
from pathlib import Path
from gpurunbook import journal, walk
from gpurunbook.cli import commands as cli
from gpurunbook.cli.options import Chosen
from gpurunbook.errors import RunbookError
folder = Path(sys.argv[1])
folder.mkdir()
journal.Journal(folder).append("run", state="started", target="rehearsal", cluster_file="cluster.yaml")
def stop(*_, **__):
    raise {error}
def report(folder):
    {report}
walk.walk, cli.write_report = stop, report
@cli.app.command("go")
def go():
    cli._walk(Chosen(Path({root!r}), "rehearsal", Path({root!r}, "cluster.yaml")), folder, ("preflight",), {{}}, False)
sys.argv = ["gpurunbook", "go"]
cli.main()
"""


def walked(folder: Path, error: str, report: str) -> tuple[int, list[str]]:
    script = WALK.format(error=error, report=report, root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60, check=False,
                          env=os.environ | {"TMPDIR": str(folder.parent)})
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_report_that_fails_does_not_hide_why_the_walk_did(tmp_path: Path) -> None:
    code, lines = walked(tmp_path / "r-1", "RunbookError('no node came', where='there', next='wait')", "1 / 0")
    assert code == 1
    assert lines == ["the report could not be told: ZeroDivisionError: division by zero; try: gpurunbook status --run-id r-1",
                     "error: no node came", "  where: there", "  next:  wait"]


def test_a_walk_that_is_interrupted_or_broken_has_its_report_too(tmp_path: Path) -> None:
    code, lines = walked(tmp_path / "r-1", "KeyboardInterrupt", "return 'PAGE'")
    assert code == 130
    assert lines[-1] == "report: PAGE"
    code, lines = walked(tmp_path / "r-2", "ValueError('a defect')", "return 'PAGE'")
    assert code == 1
    assert lines[0] == "report: PAGE"
    assert lines[1].startswith("error: ValueError: a defect; this is a defect of gpurunbook")
    code, lines = walked(tmp_path / "r-3", "KeyboardInterrupt", "1 / 0")
    assert code == 130
    assert "interrupted; what was running here has been ended" in lines[0]


def test_what_keeps_papermill_from_a_notebook_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For real: a source that is a folder."""
    (folder := tmp_path / "x.ipynb").mkdir()
    with pytest.raises(RunbookError) as caught:
        walk._papermill(folder, tmp_path / "out.ipynb", {}, ROOT, None)
    assert caught.value.what == f"x.ipynb could not be run: {folder}: Is a directory"
    assert caught.value.where == str(folder)
    assert "gpurunbook --verbose run" in caught.value.next

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", full)
    with pytest.raises(RunbookError, match=r"^x.ipynb could not be run: No space left on device\n  where: /x.ipynb"):
        walk._papermill(Path("/x.ipynb"), tmp_path / "out.ipynb", {}, ROOT, None)


@pytest.mark.parametrize(("checkout", "advice"), [(True, "git diff notebooks/01_preflight.ipynb; "),
                                                  (False, "gpurunbook init . --force; ")])
def test_who_has_no_checkout_is_told_how_to_get_back_what_was_shipped(checkout: bool, advice: str, tmp_path: Path) -> None:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    book = json.loads((ROOT / "notebooks" / "01_preflight.ipynb").read_text())
    next(cell for cell in book["cells"] if cell["cell_type"] == "code")["source"] = ["1 / 0"]
    (notebooks / "01_preflight.ipynb").write_text(json.dumps(book))
    if checkout:
        (tmp_path / ".git").mkdir()
    with pytest.raises(ConfigError) as caught:
        walk.refuse_modified(tmp_path, "eks", ["preflight"], False)
    assert advice in caught.value.next
    assert ("git diff" in caught.value.next) == checkout


def test_a_pace_that_the_run_has_not_is_refused_and_nothing_is_journalled(tmp_path: Path) -> None:
    for name in ("notebooks", "manifests", "cluster.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    folder = tmp_path / "runs" / "r-1"
    folder.mkdir(parents=True)
    World(pace=0.5).save(folder / "rehearsal" / "world.json")
    (folder / "kubeconfig").write_text("")
    record = {"time": "2026-01-01T00:00:00.000+00:00", "kind": "run", "state": "started", "target": "rehearsal",
              "cluster_file": str((tmp_path / "cluster.yaml").resolve())}
    (folder / "journal.jsonl").write_text(json.dumps(record) + "\n")
    before = (folder / "journal.jsonl").read_bytes()
    done = subprocess.run([sys.executable, "-m", "gpurunbook", "run", "--run-id", "r-1", "--pace", "real"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (2, "")
    assert "pace is 0.5: once made, it cannot become 1" in done.stderr
    assert (folder / "journal.jsonl").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["r-1"]
    assert not (folder / "notebooks").exists()
