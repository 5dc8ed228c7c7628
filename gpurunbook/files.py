"""Folders and files of a run: for their owner only, and whole or not at all; and YAML as other programs read it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from gpurunbook.errors import RunbookError


def write(path: Path, text: str) -> None:
    """A file of a run: whole or not at all, for its owner only, as its folder is. Raises RunbookError."""
    private(path.parent)
    whole(path, text.encode())


def whole(path: Path, data: bytes) -> None:
    """The file, whole or not at all, 0600 from its creation whatever the umask. Raises RunbookError when it cannot be written."""
    making = path.with_name(f"{path.name}.making")
    try:
        with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # one that a killed process left may be open to others
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or it may be empty after a power cut
        making.replace(path)
    except OSError as error:
        with suppress(OSError):
            making.unlink(missing_ok=True)
        raise RunbookError(f"{path} cannot be written: {error.strerror}", where=str(path),
                           next="free space or mend the permissions, then run the same again") from error


def private(folder: Path) -> Path:
    """The folder, 0700 whatever the umask, made with its parents where they are not there.

    Raises:
        RunbookError: it is somebody else's, or leads there: in /tmp anybody may have made one of that name; or it cannot be made.
    """
    try:
        for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)  # mkdir's own `parents` gives them no mode
        if {folder.lstat().st_uid, folder.stat().st_uid} != {os.getuid()}:
            raise RunbookError(f"{folder} belongs to another user", where=str(folder), next="remove it, or set TMPDIR")
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise RunbookError(f"{folder} cannot be made: {error.strerror}", where=str(folder),
                           next="free space or mend the permissions, then run the same again") from error
    return folder


NUMBER_ELSEWHERE = re.compile(r"[-+.]?\d[\w.+-]*")
"""Text that some YAML reader may take for a number: 1e5 is text in YAML 1.1, which PyYAML writes, and a number to kubectl."""


class _Dumper(yaml.SafeDumper):
    """Quotes all text that looks like a number to anybody."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="'" if NUMBER_ELSEWHERE.fullmatch(text) else None))


def to_yaml(documents: Iterable[Any]) -> str:
    """Documents as YAML in the order of their keys."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False))
