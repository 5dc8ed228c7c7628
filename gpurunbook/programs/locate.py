"""Where the programs are that the runbook needs: on the PATH if the version fits, else in this user's cache.

programs.json says what fits and how to ask for it. Nothing here writes or builds: build.py does. Only the standard
library is used, and no other file of the project, so that
tools/build.py can import it before there is an environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = (HERE.parent / "shipped" if (HERE.parent / "shipped").is_dir() else HERE.parents[1]) / "tools"  # of a wheel, a checkout
ASK_LIMIT_S = 10.0  # a program that has not told its version by then does not fit
GO_ENV_LIMIT_S = 300.0  # an older Go may first download the one that go.mod asks for


class ToolError(Exception):
    """Something failed. Its text says what, where to look and what to do next, in that order."""

    def __init__(self, what: str, look: str, then: str) -> None:
        super().__init__(f"error: {what}\n look: {look}\n next: {then}")


@dataclass(frozen=True)
class Program:
    """One entry of programs.json; `fits` are ranges (min, below), each a tuple of numbers."""

    name: str
    package: str
    builds_as: str  # the file name that `go build` gives it
    pin: str
    fits: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    version: tuple[str, ...]  # the arguments that make it tell its version
    pattern: str
    get: str

    def accepts(self, version: str) -> bool:
        return any(low <= numbers(version) < below for low, below in self.fits)

    def needs(self) -> str:
        return " or ".join(f"{dotted(low)} <= version < {dotted(below)}" for low, below in self.fits)


@dataclass(frozen=True)
class Group:
    """Programs that one Go module pins. `cost` of a first build: download_mb, disk_gb, and minutes on 2 cores."""

    name: str
    module: Path
    ldflags: str
    cost: Mapping[str, float]
    programs: tuple[Program, ...]


@dataclass(frozen=True)
class Found:
    """Where a program is. `how`: PATH, cache, built or missing; `note`: why the PATH was passed over."""

    program: str
    version: str | None
    path: str | None
    how: str
    note: str = ""


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def load(group: str = "rehearsal", tools: Path = TOOLS, table: Path = HERE / "programs.json") -> Group:
    """Read a group of the table, whose go.mod is below `tools`. KeyError if there is no such group."""
    data = json.loads(table.read_text(encoding="utf-8"))
    programs = tuple(
        Program(
            name=entry["name"],
            package=entry["package"],
            builds_as=entry.get("builds_as", entry["name"]),
            pin=entry["pin"],
            fits=tuple((numbers(span["min"]), numbers(span["below"])) for span in entry["fits"]),
            version=tuple(entry["version"]),
            pattern=entry["pattern"],
            get=entry["get"],
        )
        for entry in data["programs"]
        if entry["group"] == group
    )
    about = data["groups"][group]
    return Group(group, tools / about["module"], " ".join(about["ldflags"]), about["cost"], programs)


def stop(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started, at once; it must lead a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask(argv: list[str], limit_s: float, cwd: Path | None = None) -> tuple[int, str]:
    """Exit status and output of a command. OSError if it does not start, TimeoutExpired after `limit_s` seconds."""
    with subprocess.Popen(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except BaseException:
            stop(process)
            raise
    return process.returncode, output


def probe(program: Program, path: Path, limit_s: float = ASK_LIMIT_S) -> tuple[str | None, str]:
    """Ask a program for its version: (version, "") or (None, why it told none)."""
    try:
        status, output = ask([str(path), *program.version], limit_s)
    except subprocess.TimeoutExpired:
        return None, f"{path} did not tell its version within {limit_s:g} s"
    except OSError as error:
        return None, f"{path} does not start: {error.strerror}"
    match = re.search(program.pattern, output)
    if match and status == 0:
        return match[1], ""
    return None, f"{path} told no version (exit {status})"


def on_path(program: Program, limit_s: float = ASK_LIMIT_S) -> Found:
    """The program that a shell would run, if its version fits."""
    path = shutil.which(program.name)
    if path is None:
        return Found(program.name, None, None, "missing", "not on the PATH")
    version, trouble = probe(program, Path(path), limit_s)
    if version and program.accepts(version):
        return Found(program.name, version, path, "PATH")
    note = trouble or f"{path} is {version}; needs {program.needs()}"
    return Found(program.name, None, None, "missing", note)


def search_path(group: Group, limit_s: float = ASK_LIMIT_S) -> list[Found]:
    """One Found for each program of the group, in its order. Asking one takes at most `limit_s` seconds."""
    return [on_path(program, limit_s) for program in group.programs]


def search_cache(group: Group, bin_folder: Path, found: list[Found]) -> list[Found]:
    """`found`, as search_path gave it, with what was missing filled in from `bin_folder` where it is there and fits."""
    filled = []
    for program, here in zip(group.programs, found, strict=True):
        path = bin_folder / program.name
        version = probe(program, path)[0] if here.path is None and path.is_file() else None
        fits = version is not None and program.accepts(version)
        filled.append(replace(here, version=version, path=str(path), how="cache") if fits else here)
    return filled


def locate(group: Group) -> list[Found]:
    """Where each program of the group is. ToolError if the PATH lacks one and no Go fits, which names the cache."""
    found = search_path(group)
    return search_cache(group, cache_bin(group), found) if missing(found) else found


def missing(found: list[Found]) -> set[str]:
    return {one.program for one in found if one.path is None}


def toolchain(group: Group) -> str:
    """Go's version, system and processor, such as "go1.26.8 linux amd64". ToolError if Go is absent or too old."""
    go_mod = (group.module / "go.mod").read_text(encoding="utf-8")
    wanted = re.findall(r"^go (\d+\.\d+)", go_mod, re.MULTILINE)[0]
    then = (
        f"install Go {wanted} or newer (conda-forge: go; Homebrew: go), or put the missing programs on the PATH. A Go "
        "from 1.21 on fetches the one that go.mod asks for by itself, unless GOTOOLCHAIN=local or no network"
    )
    try:
        # Asked inside the module, because Go chooses its toolchain by the go.mod that it stands in.
        status, output = ask(["go", "env", "GOVERSION", "GOOS", "GOARCH"], GO_ENV_LIMIT_S, group.module)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError("Go, which builds what the PATH lacks, does not run", str(error), then) from None
    version = re.search(r"^\D*(\d+\.\d+)", output)
    if status != 0 or version is None or numbers(version[1]) < numbers(wanted):
        look = f"{group.module}/go.mod wants {wanted}; `go env` there said: {output.strip()}"
        raise ToolError("Go is too old to build what the PATH lacks", look, then)
    return " ".join(output.split())


def cache_key(group: Group, toolchain: str) -> str:
    """16 hexadecimal digits that change with anything that changes what is built."""
    pins = [(group.module / name).read_bytes() for name in ("go.mod", "go.sum")]
    return hashlib.sha256(b"\0".join([*pins, group.ldflags.encode(), toolchain.encode()])).hexdigest()[:16]


def cache_bin(group: Group) -> Path:
    """The cache's folder for this group's binaries, which need not exist yet. ToolError without a fitting Go."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "gpurunbook" / "tools" / cache_key(group, toolchain(group)) / "bin"
