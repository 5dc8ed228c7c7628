"""Folders and files of a run: for their owner only, and whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from gpurunbook.errors import RunbookError


def write(path: Path, text: str) -> None:
    """The file, whole or not at all, for its owner only. Raises RunbookError when it cannot be written."""
    making = private(path.parent) / f"{path.name}.making"
    try:
        making.touch(mode=0o600)
        making.write_text(text)
        making.replace(path)
    except OSError as error:
        raise RunbookError(f"{path} cannot be written: {error.strerror}", where=str(path),
                           next="free space or mend the permissions, then run the same again") from error


def private(folder: Path) -> Path:
    """The folder, made 0700 when it is not there. Raises RunbookError when it is somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RunbookError(f"{folder} belongs to another user", where=str(folder), next="remove it, or set TMPDIR")
    return folder
