"""Folders and files of a run: for their owner only, and whole or not at all; and YAML as other programs read it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

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


NUMBER_ELSEWHERE = re.compile(r"[-+.]?\d[\w.+-]*")
"""Text that some YAML reader may take for a number: 1e5 is text in YAML 1.1, which PyYAML writes, and a number to kubectl."""


class _Dumper(yaml.SafeDumper):
    """Quotes all text that looks like a number to anybody."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="'" if NUMBER_ELSEWHERE.fullmatch(text) else None))


def to_yaml(documents: Iterable[Any]) -> str:
    """Documents as YAML in the order of their keys."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False))
