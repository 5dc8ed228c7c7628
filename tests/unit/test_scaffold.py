"""`gpurunbook init`: what a new folder holds, whose name it takes, and that nothing of anybody's is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpurunbook import runs, scaffold
from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cli(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gpurunbook", *args], cwd=cwd, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, check=False)


def test_a_new_folder_has_what_a_run_needs_under_its_own_name(tmp_path: Path) -> None:
    made = scaffold.init(tmp_path / "above" / "my-cluster")
    assert runs.find_root(made.folder / "notebooks") == made.folder
    for name in scaffold.CLUSTER_FILES:
        assert load_cluster(made.folder / name).name == "my-cluster"
        assert "yaml-language-server" not in (made.folder / name).read_text(), "it would lead to a file that is not there"
    assert set(made.written) == set(files(made.folder))
    assert "CLUSTER" not in (made.folder / "README.md").read_text()
    assert [path.name for path in (tmp_path / "above").iterdir()] == ["my-cluster"], "nothing half-made beside it"


def test_it_is_as_open_to_others_as_a_folder_that_mkdir_makes(tmp_path: Path) -> None:
    made = scaffold.init(tmp_path / "one").folder
    (tmp_path / "other").mkdir()
    assert made.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("name", ["a", "GPU-1", "x" * 63, "on", "null", "No", "e5"])
def test_a_name_that_eksctl_takes_stays_text_in_yaml(tmp_path: Path, name: str) -> None:
    made = scaffold.init(tmp_path / "folder", name)
    assert yaml.safe_load((made.folder / "cluster.yaml").read_text())["metadata"]["name"] == name
    assert load_cluster(made.folder / "cluster.yaml").name == name


@pytest.mark.parametrize("name", ["my_cluster", "1st", "-a", "a b", "x" * 64, "ä", "a\nb: c", "a#", "../up", "$(id)", "a/b"])
def test_a_name_that_eksctl_refuses_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="can be no cluster's name"):
        scaffold.init(tmp_path / "folder", name)
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_name_will_not_do_says_what_to_type(tmp_path: Path) -> None:
    done = cli(tmp_path, "init", "my_cluster")
    assert done.returncode == 2
    assert "next:  gpurunbook init my_cluster --name gpu-cluster" in done.stderr


def test_an_empty_folder_and_a_new_repository_are_filled(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    made = scaffold.init(tmp_path, "here")
    assert "cluster.yaml" in made.written
    assert not list((tmp_path / ".git").iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"is not empty: thesis\.tex"):
        scaffold.init(tmp_path, "here")
    assert files(tmp_path) == before
    with pytest.raises(ConfigError, match="no folder"):
        scaffold.init(tmp_path / "thesis.tex", "here")
    assert files(tmp_path) == before


def test_force_puts_back_what_ships_keeps_what_was_there_and_touches_nothing_of_theirs(tmp_path: Path) -> None:
    folder = scaffold.init(tmp_path / "one").folder
    shipped = files(folder)
    mine = {"cluster.yaml": b"mine", "README.md": b"ours", "thesis.tex": b"years", "runs/a/journal.jsonl": b"{}"}
    changed = {"notebooks/04_taint.ipynb": b"taught with", "manifests/model/deployment.yaml": b"tuned"}
    for name, data in (mine | changed).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "notebooks/03_nodes.ipynb").unlink()
    made = scaffold.init(folder, force=True)
    assert set(made.written) == {*changed, "notebooks/03_nodes.ipynb"}
    assert {"cluster.yaml", "README.md"} <= set(made.left)
    kept = {f"{made.kept_in}/{name}": data for name, data in changed.items()}
    assert files(folder) == shipped | mine | kept
    again = scaffold.init(folder, force=True)
    assert (again.written, again.kept_in) == ((), "")


def test_force_does_not_write_through_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    shared, folder = tmp_path / "shared", tmp_path / "one"
    (shared / "notebooks").mkdir(parents=True)
    folder.mkdir()
    (folder / "notebooks").symlink_to(shared / "notebooks")
    with pytest.raises(ConfigError, match="leads out of"):
        scaffold.init(folder, force=True)
    assert not files(shared)
    assert [path.name for path in folder.iterdir()] == ["notebooks"]
    (folder / "notebooks").unlink()
    (shared / "cluster.yaml").write_text("theirs")
    (folder / "cluster.yaml").symlink_to(shared / "cluster.yaml")
    scaffold.init(folder, force=True)
    assert (shared / "cluster.yaml").read_text() == "theirs"


def test_one_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    done = cli(tmp_path, "init", "closed/" + "x" * 250)
    assert done.returncode == 2
    assert not list((tmp_path / "closed").iterdir())


def test_the_command_says_what_was_written_and_what_to_type_next(tmp_path: Path) -> None:
    done = cli(tmp_path, "init", "my-cluster")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "cluster.yaml   a cluster called my-cluster" in lines
    typed = [line.partition("#")[0].strip() for line in lines if line.startswith("  ")]
    assert typed[:4] == ["cd my-cluster", "gpurunbook doctor", "gpurunbook setup", "gpurunbook run"]
    assert (tmp_path / "my-cluster" / typed[4].removeprefix("jupyter lab ")).is_file()
    told = json.loads(cli(tmp_path / "my-cluster", "init", ".", "--force", "--json").stdout)
    assert told == {"folder": str(tmp_path / "my-cluster"), "cluster": told["cluster"], "written": [], "kept_in": "",
                    "left": [*scaffold.CLUSTER_FILES, "README.md", ".gitignore"], "next": told["next"]}
    assert told["next"][0] == "gpurunbook doctor"


def test_outside_every_folder_what_only_looks_works_and_what_runs_says_how_to_begin(tmp_path: Path) -> None:
    assert cli(tmp_path, "stack").returncode == 0
    done = cli(tmp_path, "status")
    assert done.returncode == 2
    assert "gpurunbook init my-cluster" in done.stderr


def test_setup_names_the_programs_there_are(tmp_path: Path) -> None:
    done = cli(tmp_path, "setup", "kubctl")
    assert done.returncode == 1
    assert "unknown program: kubctl" in done.stderr
    assert "kubectl" in done.stderr
    assert os.listdir(tmp_path) == []
