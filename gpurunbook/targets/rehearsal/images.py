"""The image map: which images run for real in a rehearsal, and what each adds to the jail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from gpurunbook import yaml_file
from gpurunbook.errors import ConfigError

KEYS = {"workdir", "environment", "command", "model", "gigabytes", "pull_error", "lacks"}
NEEDED = {"sh", "setsid", "mkdir"}
"""What the jail itself starts a program with (jail.LAUNCH), so that no image can lack it."""
MOST = 100_000  # gigabytes


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        workdir: absolute path in the pod; made and writable.
        environment: variables of every process in it.
        command: argv of a container that names none; None means that it idles until it is ended.
        model: absolute path in the pod where the model folder is mounted read-only, or None.
        gigabytes: its size, 10^9 bytes, as a registry and a node's status.images count it.
        pull_error: what the registry answers, always; "": it can be pulled.
        lacks: names of programs that are on this machine and not in the image.
    """

    workdir: str
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    model: str | None = None
    gigabytes: float = 0.0
    pull_error: str = ""
    lacks: tuple[str, ...] = ()


def load(path: Path, extra: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> dict[str, Image]:
    """The images of a map, by the exact text that a pod's `image:` carries.

    Args:
        extra: more entries (World.images). One for an image of the file is laid over the file's entry, key by key.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something that no image has.
    """
    try:
        found = yaml_file.load(path)
    except ConfigError as error:
        raise ConfigError("The rehearsal's image map cannot be read", where=str(path), next=error.what) from error
    if not isinstance(found, dict) or not found:
        raise ConfigError("The rehearsal's image map names no image", where=str(path),
                          next="write at least one `image: {workdir: /path}`")
    entries: dict[str, object] = {str(name): entry for name, entry in found.items()}
    for name, more in extra.items():
        known = entries.get(name)
        entries[name] = {**known, **more} if isinstance(known, dict) and isinstance(more, Mapping) else more
    return {name: _image(path, name, entry) for name, entry in entries.items()}


def _image(path: Path, name: str, entry: object) -> Image:
    def need(right: bool, key: str, expected: str) -> None:
        if not right:
            raise ConfigError(f"{name}: {key} is wrong", where=str(path), next=f"{key} must be {expected}")

    def absolute(value: object) -> bool:
        return isinstance(value, str) and PurePosixPath(value).is_absolute() and ".." not in PurePosixPath(value).parts

    need(isinstance(entry, dict), "the entry", "a mapping with workdir")
    assert isinstance(entry, dict)
    need(entry.keys() <= KEYS, ", ".join(sorted(map(str, entry.keys() - KEYS))), f"one of {sorted(KEYS)}")
    need(absolute(entry.get("workdir")), "workdir", "an absolute path")
    environment, command, model = entry.get("environment", {}), entry.get("command"), entry.get("model")
    need(isinstance(environment, dict) and all(isinstance(x, str) for pair in environment.items() for x in pair),
         "environment", "a mapping of strings to strings")
    need(command is None or (isinstance(command, list) and bool(command) and all(isinstance(x, str) for x in command)),
         "command", "a list of strings")
    need(model is None or absolute(model), "model", "an absolute path")
    gigabytes, pull_error, lacks = entry.get("gigabytes", 0), entry.get("pull_error", ""), entry.get("lacks", [])
    need(isinstance(gigabytes, (int, float)) and not isinstance(gigabytes, bool) and 0 <= gigabytes < MOST, "gigabytes",
         f"a number from 0 to {MOST}")
    need(isinstance(pull_error, str), "pull_error", "a text")
    need(isinstance(lacks, list) and all(isinstance(x, str) and x and "/" not in x and x not in NEEDED for x in lacks),
         "lacks", f"a list of programs' names, none of them {', '.join(sorted(NEEDED))}")
    return Image(entry["workdir"], environment, None if command is None else tuple(command), model, float(gigabytes),
                 pull_error, tuple(lacks))
