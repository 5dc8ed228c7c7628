"""A folder to work in, as `gpurunbook init` makes it: the notebooks, manifests and cluster files that this version ships.

In a checkout they lie at its top; a wheel has copies of them inside the package, in `shipped/`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gpurunbook import yaml_file
from gpurunbook.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent
SOURCE = PACKAGE / "shipped" if (PACKAGE / "shipped").is_dir() else PACKAGE.parent
"""The folder with notebooks/, manifests/, tools/ and cluster.yaml of this version."""
FOLDERS = ("notebooks", "manifests")
CLUSTER_FILES = ("cluster.yaml", "cluster.al2023.yaml")
THEIRS = (*CLUSTER_FILES, "README.md", ".gitignore")
"""What belongs to whoever works in the folder: it is written once, and never again."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
"""eksctl's rule for a cluster's name, at the length that a Kubernetes label takes."""


@dataclass(frozen=True)
class Made:
    """What `init` did. Paths are relative to `folder`; `kept_in` holds what stood where `written` is now, "" if nothing did."""

    folder: Path
    cluster: str
    written: tuple[str, ...]
    left: tuple[str, ...]
    kept_in: str


def contents(cluster: str) -> dict[str, bytes]:
    """Relative path -> bytes of every file of a new folder, for a cluster of this name."""
    found = {}
    for name in FOLDERS:
        for path in sorted((SOURCE / name).rglob("*")):
            relative = path.relative_to(SOURCE)
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in relative.parts):
                found[relative.as_posix()] = path.read_bytes()
    for name in CLUSTER_FILES:
        found[name] = _named((SOURCE / name).read_text(encoding="utf-8"), cluster).encode()
    readme = (PACKAGE / "templates" / "folder.md").read_text(encoding="utf-8")
    return found | {"README.md": readme.replace("CLUSTER", cluster).encode(), ".gitignore": b"/runs/\n.ipynb_checkpoints/\n"}


def _named(text: str, cluster: str) -> str:
    """A cluster file for a cluster of this name, without the comment that leads to the checkout's copy of the schema."""
    value = cluster if yaml_file.parse(cluster, SOURCE) == cluster else json.dumps(cluster)  # `on` and `null` are no text in YAML
    named, count = re.subn(r"(?m)^(metadata:\n  name:) .*$", rf"\1 {value}", text, count=1)
    if count != 1:
        raise ConfigError("the shipped cluster file does not begin its metadata with the name", where=str(SOURCE),
                          next="restore it: git checkout cluster.yaml cluster.al2023.yaml")
    return re.sub(r"(?m)^# yaml-language-server:.*\n", "", named)


def init(folder: Path, name: str = "", *, force: bool = False) -> Made:
    """Make the folder, or complete it.

    A folder that is not there appears whole or not at all. With `force` one that holds something gets what it lacks, and
    notebooks and manifests as shipped; those that were there are moved, and THEIRS stay as they are. Nothing is deleted.

    Args:
        folder: an absolute path.
        name: the cluster's; empty: the folder's.

    Raises:
        ConfigError: the folder holds something (without `force`), is none, or the name will not do. Nothing was written.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is there, and no folder", where=str(folder), next="name another: gpurunbook init my-cluster")
    there = sorted(path.name for path in folder.iterdir() if path.name != ".git") if folder.is_dir() else []
    if there and not force:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise ConfigError(f"{folder} is not empty: {', '.join(there[:3])}{more}", where=str(folder),
                          next="name another folder, or add --force: it writes what is missing and puts notebooks and manifests "
                               "back as shipped; what was there is kept")
    cluster = name or folder.name
    if "cluster.yaml" in there and not name:
        cluster = "gpu-cluster"  # their file stays: what this one would have said is not asked
    if not NAME.fullmatch(cluster):
        raise ConfigError(f"{cluster[:80]!r} can be no cluster's name: eksctl takes letters, digits and hyphens, a letter first, "
                          "and a label at most 63", where="--name" if name else str(folder),
                          next=f"gpurunbook init {'. ' if folder == Path.cwd() else f'{folder.name} '}--name gpu-cluster")
    files = contents(cluster)
    if there or folder.is_dir():
        return _complete(folder, cluster, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}-", dir=folder.parent))
    try:
        made = _complete(making, cluster, files)
        os.umask(mask := os.umask(0o077))
        making.chmod(0o777 & ~mask)  # as mkdir would have made it
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return Made(folder, cluster, made.written, (), "")


def _complete(folder: Path, cluster: str, files: dict[str, bytes]) -> Made:
    written, left, moved = list[str](), list[str](), f"kept-{datetime.now():%Y%m%d-%H%M%S-%f}"
    for relative in files:
        above = (folder / relative).parent
        if not above.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{above} leads out of {folder}", where=str(above), next="replace that link by a folder")
    for relative, data in files.items():
        path = folder / relative
        if os.path.lexists(path):
            if relative in THEIRS:
                left.append(relative)
                continue
            if path.is_file() and path.read_bytes() == data:
                continue
            (folder / moved / relative).parent.mkdir(parents=True, exist_ok=True)
            path.rename(folder / moved / relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written.append(relative)
    return Made(folder, cluster, tuple(written), tuple(left), moved if (folder / moved).exists() else "")
