"""What the package as a whole promises: its surface, its size, its speed, and who imports whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import gpurunbook
from gpurunbook.programs import table
from gpurunbook.programs.locate import dotted

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gpurunbook"
FILES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = ("command.py", "config.py", "journal.py", "runbook.py", "errors.py", *(
    f"programs/{path.name}" for path in (PACKAGE / "programs").glob("*.py")))
HEAVY = {"torch", "matplotlib", "kubernetes", "transformers", "papermill", "boto3", "aiohttp", "numpy"}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_all_is_the_public_surface() -> None:
    assert sorted(gpurunbook.__all__) == [
        "CommandFailed", "ConfigError", "Run", "RunbookError", "__version__", "open_run"]
    assert all(hasattr(gpurunbook, name) for name in gpurunbook.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = gpurunbook.nothing
    assert gpurunbook.__version__ == PROJECT["version"]


def test_the_import_is_quick_and_brings_nothing_heavy() -> None:
    script = ("import sys, time; began = time.perf_counter(); import gpurunbook\n"
              "print(time.perf_counter() - began, *{name.partition('.')[0] for name in sys.modules})")
    best = 9.0
    for _ in range(5):
        seconds, *modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                                           check=True).stdout.split()
        best = min(best, float(seconds))
        assert HEAVY & set(modules) == set()
    assert best <= 0.3


@pytest.mark.parametrize(("one", "other"), [("rehearsal", "eks"), ("eks", "rehearsal")])
def test_a_reader_of_one_target_never_needs_the_other(one: str, other: str) -> None:
    for path in (PACKAGE / "targets" / one).rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(f"gpurunbook.targets.{other}")], path


def test_what_is_imported_is_declared() -> None:
    declared = {re.split(r"[^\w.-]", text, maxsplit=1)[0].lower()
                for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["model"],
                             *PROJECT["optional-dependencies"]["widgets"]]}
    provided_by = packages_distributions()
    with_another = {"gguf": "development only: `make setup` makes the rehearsal's weights with it",
                    "ipython": "ipykernel", "jupyter_client": "ipykernel", "urllib3": "kubernetes", "botocore": "boto3"}
    ours = {"gpurunbook", *sys.stdlib_module_names}
    modules = {name.partition(".")[0] for path in FILES for name in imported(path)} - ours
    undeclared = {module for module in modules
                  if not {d.lower() for d in provided_by.get(module, [module])} & (declared | with_another.keys())}
    assert undeclared == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_one_idea(path: Path) -> None:
    assert lines(path) <= 330


def test_the_core_stays_small() -> None:
    sizes = {name: lines(PACKAGE / name) for name in CORE}
    assert sum(sizes.values()) <= 1_700, sizes


def test_only_command_py_and_the_jail_start_processes() -> None:
    """locate.py too, since tools/build.py uses it before there is an environment."""
    starters = {str(path.relative_to(PACKAGE)) for path in FILES if "subprocess" in imported(path)}
    assert {name for name in starters if not name.startswith("targets/rehearsal/")} == {
        "command.py", "programs/locate.py"}


def test_no_file_names_a_package_registry() -> None:
    """A mirror, a proxy or a user's own configuration decides where packages come from."""
    hosts = [".".join(parts) for parts in (
        ("py" + "pi", "org"), ("python" + "hosted", "org"), ("registry", "npm" + "js", "org"), ("proxy", "go" + "lang", "org"),
        ("sum", "go" + "lang", "org"), ("conda", "ana" + "conda", "org"), ("repo", "ana" + "conda", "com"))]
    tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True,
                             capture_output=True, check=True).stdout.split("\0")
    named = [(name, host) for name in tracked if (ROOT / name).is_file() for host in hosts
             if host.encode() in (ROOT / name).read_bytes()]
    assert named == []


def test_environment_yml_is_in_step() -> None:
    """conda brings the programs in the ranges of programs.json; the Python packages come from pyproject.toml alone."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [entry["pip"] for entry in entries if isinstance(entry, dict)] == [["-e .[model]"]]
    names = {re.split(r"[<>=]", entry)[0]: entry for entry in entries if isinstance(entry, str)}
    assert names["python"] == f"python{PROJECT['requires-python']}"
    packages = {re.split(r"[<>=!]", text)[0] for text in PROJECT["dependencies"]}
    assert not packages & names.keys()
    for package, program in (("kubernetes-helm", "helm"), ("etcd", "etcd")):
        [(low, below)] = table()[program].fits
        assert names[package] == f"{package}>={dotted(low)},<{dotted(below)}"
    for package, program in (("kubernetes-client", "kubectl"), ("kubernetes-server", "kube-apiserver")):
        assert table()[program].accepts(names[package].partition("=")[2])
