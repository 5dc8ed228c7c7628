#!/usr/bin/env python3
"""Find the programs that the runbook needs, and build those that are missing from pinned Go modules.

For each program, in this order: the PATH, if its version fits; this user's cache; else a build into that cache.
gpurunbook/programs/locate.py does the finding, go.mod and go.sum pin what is built. Only the standard library is used, because
`make setup` runs this before the project's environment exists; `gpurunbook setup` runs it too, from a wheel as well.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

# Two folders up is the checkout; in a wheel, where tools/ lies in gpurunbook/shipped/, three up is the package.
sys.path.insert(0, str(next(
    folder for above in Path(__file__).resolve().parents[1:3]
    for folder in (above / "gpurunbook" / "programs", above / "programs") if folder.is_dir())))

from locate import Found, Group, Program, ToolError, cache_bin, load, missing, probe, search_cache, search_path, stop

BUILD_LIMIT_S = 3600.0
PLAIN_EVERY_S = 15.0  # between two lines of progress when nobody watches on a terminal
SHOWN_LINES = 20  # of Go's output, when it failed


def say(text: str) -> None:
    """To people, on stderr: stdout is for the table and for programs."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One line that is rewritten on a terminal; elsewhere a plain line every PLAIN_EVERY_S seconds."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.live = sys.stderr.isatty()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def show(self, text: str) -> None:
        line = f"{text}, {int(self.elapsed()) // 60}:{int(self.elapsed()) % 60:02}"
        if self.live:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.last >= PLAIN_EVERY_S:
            self.last = time.monotonic()
            say(line)

    def clear(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def follow(
    argv: list[str], group: Group, log: Path, describe: Callable[[list[str]], str], progress: Progress
) -> list[str]:
    """Run Go in the module's folder and return its lines, which also go to `log`.

    While it runs, `progress` shows what `describe` makes of the lines so far. ToolError if it fails or takes too long.
    """
    # GOWORK: a go.work further up would replace our go.mod. CGO: the programs need no C compiler.
    ours = {"CGO_ENABLED": "0", "GOWORK": "off"}
    with log.open("a", encoding="utf-8") as out:
        out.write(f"$ cd {group.module} && CGO_ENABLED=0 GOWORK=off {shlex.join(argv)}\n")
        out.flush()
        start = out.tell()
        process = subprocess.Popen(
            argv,
            cwd=group.module,
            env={**os.environ, **ours},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )

    def lines() -> list[str]:
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(start)
            return file.read().splitlines()

    try:
        while process.poll() is None and progress.elapsed() < BUILD_LIMIT_S:
            progress.show(describe(lines()))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
    finally:
        progress.clear()
        if process.poll() is None:
            stop(process)
    if process.returncode != 0:
        say("\n".join(lines()[-SHOWN_LINES:]))
        raise ToolError(
            f"`go {argv[1]}` failed (exit {process.returncode}) after {progress.elapsed():.0f} s",
            f"the lines above; all of them: {log}",
            "run this again: what is done stays in Go's cache. Without a network, put the programs on the PATH instead",
        )
    return lines()


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the cache's lock; say who has it while waiting. The system frees it when its process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"waiting for another build: {lock.read().strip() or 'it has not said which'} (Ctrl-C is safe)")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        lock.flush()
        yield


def install(programs: list[Program], built: Path, bin_folder: Path) -> None:
    """Move each binary from `built` into the cache, whole or not at all. ToolError if it tells another version."""
    bin_folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        path = built / program.builds_as
        version, trouble = probe(program, path)
        if version is None or not program.accepts(version):
            raise ToolError(
                f"the {program.name} just built does not fit",
                trouble or f"it says {version}; needs {program.needs()}",
                "make the pins of programs.json and of go.mod agree",
            )
        os.replace(path, bin_folder / program.name)


def build(group: Group, programs: list[Program], bin_folder: Path) -> None:
    """Build with one `go build` and install. Interrupted, it leaves nothing half-written in `bin_folder`."""
    cost = group.cost
    say(
        f"building {', '.join(f'{p.name} {p.pin}' for p in programs)}\n"
        f"from pinned, checksummed Go modules, into {bin_folder}\n"
        f"A first build downloads {cost['download_mb']:g} MB, leaves {cost['disk_gb']:g} GB in Go's caches and\n"
        f"takes about {cost['minutes']:g} minutes on 2 cores. Ctrl-C is safe: the next build goes on from there."
    )
    log = bin_folder.parent / "build.log"
    log.unlink(missing_ok=True)
    for left in bin_folder.parent.glob("building-*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(left)
    flags = ["-mod=readonly", "-trimpath", "-ldflags", group.ldflags]
    packages = [program.package for program in programs]
    progress = Progress()

    def reading(lines: list[str]) -> str:
        return f"reading sources, {sum(line.startswith('go: downloading') for line in lines)} modules downloaded"

    stale = ["go", "list", *flags, "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *packages]
    total = sum(not line.startswith("go: ") for line in follow(stale, group, log, reading, progress))

    def compiling(lines: list[str]) -> str:
        return f"compiling and linking, {min(len(lines), total)} of {total} packages"

    with tempfile.TemporaryDirectory(prefix="building-", dir=bin_folder.parent) as built:
        follow(["go", "build", "-v", *flags, "-o", f"{built}/", *packages], group, log, compiling, progress)
        install(programs, Path(built), bin_folder)
    say(f"built in {progress.elapsed():.0f} s; log: {log}")


def ensure(group: Group, bin_folder: Path, found: list[Found]) -> list[Found]:
    """Build what is missing, one build at a time on this machine; `found` with all of it filled in. ToolError."""
    bin_folder.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(bin_folder.parent.parent):
        # Looked up again under the lock: the build that we waited for may have made them all.
        found = search_cache(group, bin_folder, found)
        lacking = missing(found)
        if lacking:
            build(group, [program for program in group.programs if program.name in lacking], bin_folder)
    return [
        replace(one, how="built") if one.program in lacking else one for one in search_cache(group, bin_folder, found)
    ]


def look(group: Group) -> tuple[list[Found], ToolError | None]:
    """What the PATH and the cache have, and why the cache could not be asked."""
    found = search_path(group)
    try:
        # Only where something is missing is Go needed, which also names the cache.
        return (search_cache(group, cache_bin(group), found) if missing(found) else found), None
    except ToolError as error:
        return found, error


def table(found: list[Found]) -> str:
    """A line for each program; `where` says why, if it is missing."""
    rows = [("program", "version", "found", "where")]
    rows += [(one.program, one.version or "-", one.how, one.path or one.note) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows)


def report(groups: list[Group], check: bool, as_json: bool) -> int:
    """Find, build unless `check`, and print, whatever happened; 0 if all are there. ToolError after the table."""
    rows, trouble = [], None
    for group in groups:
        found, failed = look(group)
        try:
            if missing(found) and not check and not failed:
                found = ensure(group, cache_bin(group), found)
        except ToolError as error:
            failed = error
        rows += found
        trouble = trouble or failed
    print(json.dumps([asdict(one) for one in rows], indent=2) if as_json else table(rows))
    for program in (program for group in groups for program in group.programs):
        if program.name in missing(rows):
            say(f"{program.name} ({program.needs()}): {program.get}")
    if trouble:
        raise trouble
    return 1 if missing(rows) else 0


def chosen(names: list[str], eksctl: bool) -> list[Group]:
    """The groups that hold the programs named, each with these alone; without names, all of one group."""
    if not names:
        return [load("eksctl" if eksctl else "rehearsal")]
    groups = [load("rehearsal"), load("eksctl")]
    if unknown := set(names) - {program.name for group in groups for program in group.programs}:
        known = ", ".join(program.name for group in groups for program in group.programs)
        raise ToolError(f"unknown program: {', '.join(sorted(unknown))}", "the arguments", f"name some of: {known}")
    kept = [replace(group, programs=tuple(p for p in group.programs if p.name in names)) for group in groups]
    return [group for group in kept if group.programs]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Find the programs that a rehearsal needs: on the PATH if the version fits, else in this user's "
        "cache, else build them from pinned Go modules. Prints a table of what is where.",
        epilog="Exit status: 0 all there, 1 something missing or failed, 130 interrupted. Progress goes to stderr. "
        "The cache is $XDG_CACHE_HOME/gpurunbook/tools, else ~/.cache/gpurunbook/tools; it may be deleted at any time.",
    )
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="only these; default: all that a rehearsal needs")
    parser.add_argument("--eksctl", action="store_true", help="eksctl, for the eks target, instead of the rehearsal's")
    parser.add_argument("--check", action="store_true", help="build nothing; exit 1 if anything is missing")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print the table as JSON")
    shape.add_argument("--print-bin", action="store_true", help="print only the cache's folder of binaries")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    options = arguments().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a build that is told to end tidies up first
    try:
        groups = chosen(options.programs, options.eksctl)
        if options.print_bin:
            print(cache_bin(groups[0]))
            return 0
        return report(groups, options.check, options.json)
    except ToolError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted: nothing half-built is left, and the next build goes on from Go's cache")
        return 130


if __name__ == "__main__":
    sys.exit(main())
