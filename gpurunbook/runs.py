"""Run folders: where they are, what a run is called, and which one to go on with."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import platform
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.files import whole
from gpurunbook.journal import Journal, Record
from gpurunbook.masking import hide
from gpurunbook.processes import Process

RUN_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
MOVED = "GPURUNBOOK_MOVED"
"""Names a run whose folder a person has moved, and is the only one of: it goes on where it is now."""
WORDS = tuple(
    "acorn amber badger birch bison brook cedar clover comet coral "  # noqa: SIM905 - a list of quotes reads worse
    "crane delta ember falcon fern finch fjord flint garnet glacier hazel heron indigo ivory jade juniper kelp "
    "kestrel lagoon larch lark lemon linden lotus lynx maple marten meadow mica moss nectar oak olive onyx opal orbit "
    "otter pebble pine plover poppy quartz raven reed robin rowan sage sorrel spruce tern thyme topaz tulip "
    "walnut willow wren yarrow zinnia".split())


def find_root(start: Path | None = None) -> Path:
    """The nearest folder upward with notebooks/ and manifests/. Raises ConfigError when there is none."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "manifests").is_dir():
            return folder
    raise ConfigError(f"no folder with notebooks/ and manifests/ at or above {here}", where=str(here),
                      next="change into such a folder, or make one: gpurunbook init my-cluster")


@dataclass(frozen=True)
class RunInfo:
    """A run as its journal tells it.

    Attributes:
        state: running (a runner is alive), kept (ended on purpose with its cluster up), finished (torn down),
            or dead (neither: its runner is gone).
        stages: stage name -> started, done or failed, in order of the walk.
        home: where it was begun, or moved to: folder, its hash, machine (see `machine`) and host, as far as its journal tells.
        drill: it is a fault to practise on, and no walk to go on with.
    """

    folder: Path
    target: str
    cluster_file: str
    started: str
    state: str
    stages: dict[str, str]
    home: tuple[str, ...] = ("", "", "", "")
    drill: bool = False

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def word(self) -> str:
        """`state` for people: of a run that never came to its tokens, `finished` would be too much; a drill that is up is one."""
        if self.drill and self.state == "kept":
            return "drill"
        return "torn down" if self.state == "finished" and self.stages.get("next_token") != "done" else self.state

    @property
    def mark(self) -> str:
        """How a table marks it: pass, warn, or nothing."""
        return {"dead": "warn", "torn down": "", "drill": ""}.get(self.word, "pass")


def read(folder: Path) -> RunInfo | None:
    """What the journal in a folder says; None when it is no run."""
    first: Record | None = None
    stages: dict[str, str] = {}
    drill = False
    runners: list[Process] = []
    word, home = "", dict[str, Any]()
    for record in Journal(folder).records():
        if record["kind"] == "run":
            word = record["state"] if record["state"] != "moved" else word
            home = record if "place" in record else home
            if first is None and word == "started":
                first = record
        elif record["kind"] == "stage":
            stages[record["stage"]] = record["state"]
        drill = drill or record["kind"] == "drill"
        if record["kind"] == "runner" or (word == "finished" and record.get("state") == "started"):
            word = "started"  # begun again: what was said of its end no longer holds
        if record["kind"] in ("runner", "stage") and "process" in record and record["process"]["pid"] != os.getpid():
            runners.append(Process(**record["process"]))
    if first is None:
        return None
    state = ("finished" if word == "finished" else "running" if any(p.alive for p in runners)
             else "kept" if word == "kept" else "dead")
    return RunInfo(folder, first["target"], first["cluster_file"], first["time"], state, stages,
                   tuple(home.get(key, "") for key in ("folder", "place", "machine", "host")), drill)


def list_runs(root: Path) -> list[RunInfo]:
    """All runs of a checkout, oldest first."""
    folders = [f for f in (root / "runs").glob("*") if f.is_dir()] if (root / "runs").is_dir() else []
    return sorted((info for f in folders if (info := read(f))), key=lambda info: info.started)


def newest(root: Path, target: str, cluster_file: Path, *, finished: bool = False, drills: bool = False) -> RunInfo | None:
    """The newest unfinished run of a target and cluster file; with `finished`, else the newest of all.

    A drill only with `drills`: a walk that went on with one would mend it, or take it away.
    """
    ours = [info for info in list_runs(root) if (info.target, info.cluster_file) == (target, hide(str(cluster_file)))
            and (drills or not info.drill)]
    going = [info for info in ours if info.state != "finished"]
    return next(reversed(going or (ours if finished else [])), None)


def check_id(run_id: str) -> None:
    """Raises ConfigError for what can be no run's id: it is part of paths and of names on AWS. "" is none."""
    if run_id and not RUN_ID.fullmatch(run_id):
        raise ConfigError(f"{run_id[:60]!r} is no run id", where="run_id",
                          next="use small letters, digits and hyphens, at most 40, no hyphen at either end")


def resolve(root: Path, target: str, cluster_file: Path, run_id: str = "", *, start: bool) -> Path:
    """The folder of the run to go on with, or, with `start`, of a new one.

    Raises:
        ConfigError: the id is malformed, or belongs to a run of another target or cluster file.
        RunbookError: there is no such run and `start` is False; or its folder was copied here, or moved.
    """
    check_id(run_id)
    ours = target, hide(str(cluster_file))  # as the journal has it
    if run_id:
        info = read(root / "runs" / run_id)
        if info and (info.target, info.cluster_file) != ours:
            raise ConfigError(f"run {run_id} belongs to target {info.target} and {info.cluster_file}",
                              where=str(info.folder), next="name that target and file, or another run id")
        if info:
            return _at_home(info)
    elif going := newest(root, target, cluster_file):
        return _at_home(going)
    if not start:
        drill = None if run_id else newest(root, target, cluster_file, drills=True)
        aside = f"; {drill.id} is a drill, and must be named" if drill else ""
        lost = "; what a lost run left in the account: gpurunbook reap" if target == "eks" else ""
        raise RunbookError(f"there is no run {run_id + ' ' if run_id else ''}of target {target} to go on with{aside}",
                           where=str(root / "runs"),
                           next=f"gpurunbook status; begin with notebooks/01_preflight.ipynb, or: gpurunbook run{lost}")
    return _start(root, target, cluster_file, run_id)


def machine() -> str:
    """What tells this machine from others: a hash of its id, or of its name where it has none."""
    try:
        text = Path("/etc/machine-id").read_text().strip()
    except OSError:
        text = ""
    return hashlib.sha256((text or platform.node()).encode()).hexdigest()[:16]


def _place(folder: Path) -> str:
    """A folder's path, told to nobody: an account id in it would be masked in one process and not in the next."""
    return hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _at_home(info: RunInfo) -> Path:
    """The folder of a run, unless it is a copy: its kubeconfig would lead to the other's cluster, its pids to strangers.

    Raises:
        RunbookError: it was begun on another machine, or in another folder.
    """
    folder, place, begun_on, host = info.home
    away = f"on another machine ({host})" if begun_on not in ("", machine()) else ""
    if not away and place not in ("", _place(info.folder)):
        away = f"in another folder ({folder})"
    if away and os.environ.get(MOVED) == info.id:
        Journal(info.folder).append("run", state="moved", place=_place(info.folder), machine=machine(), host=platform.node(),
                                    folder=str(info.folder))
    elif away:
        raise RunbookError(f"run {info.id} was begun {away}: this folder is a copy of it, or was moved", where=str(info.folder),
                           next="go on with it there, or begin another here: gpurunbook run --run-id OTHER. If there is no more: "
                           f"set {MOVED}={info.id} and run the same again. Its cluster is looked at before anything is written")
    return info.folder


def _start(root: Path, target: str, cluster_file: Path, run_id: str) -> Path:
    runs, made = root / "runs", None
    today = dt.date.today().strftime("%Y%m%d")
    names = [run_id] if run_id else [f"{today}-{word}" for word in random.sample(WORDS, len(WORDS))]
    try:
        runs.mkdir(mode=0o700, exist_ok=True)
        name = next(name for name in names if run_id or not (runs / name).exists())
        if not (folder := runs / name).exists():
            folder.mkdir(mode=0o700)
            made = folder
        if not (copy := folder / "cluster.yaml").exists():
            whole(copy, cluster_file.read_bytes())  # a teardown must not depend on what the file has become
        Journal(folder).append("run", state="started", id=name, target=target, cluster_file=str(cluster_file),
                               named=bool(run_id), folder=str(folder), place=_place(folder), machine=machine(),
                               host=platform.node())
    except StopIteration:
        raise RunbookError(f"all names for {today} are taken", where=str(runs), next="give one with --run-id") from None
    except (OSError, RunbookError) as error:
        if made:
            shutil.rmtree(made, ignore_errors=True)  # a folder without its beginning is no run, and would keep its name
        why = error.strerror if isinstance(error, OSError) else error.what
        raise RunbookError(f"the run folder cannot be written: {why}", where=str(runs),
                           next="free space, or mend the permissions; nothing was started") from error
    return folder
