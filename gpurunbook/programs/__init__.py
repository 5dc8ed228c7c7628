"""The outside programs: which versions fit, and where one is found: on the PATH, else in our cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import platformdirs

from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.programs import locate


@dataclass(frozen=True)
class Found:
    """One program as it was found. `path` is empty when nothing that fits was; then `how` says why."""

    name: str
    path: str
    version: str
    how: str
    needed: str
    get: str

    @property
    def fits(self) -> bool:
        return bool(self.path)

    def fitting(self) -> str:
        """The path. Raises RunbookError when nothing fits."""
        if not self.fits:
            raise RunbookError(f"{self.name} {self.needed} is needed: {self.how}", where="gpurunbook doctor",
                               next=f"`gpurunbook setup {self.name}` builds it, or get it yourself: {self.get}")
        return self.path

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"fits": self.fits}


@cache
def table() -> dict[str, locate.Program]:
    """Every program we know, from programs.json, which tools/build.py reads too."""
    return {p.name: p for group in ("rehearsal", "eksctl") for p in locate.load(group).programs}


def find(name: str) -> Found:
    """Look for a program whose version fits. An absent one is no error here: look at `fits`.

    Raises:
        ConfigError: a program we know nothing of.
    """
    if name not in table():
        raise ConfigError(f"unknown program {name!r}", where=str(locate.HERE / "programs.json"), next="add it there")
    program = table()[name]
    here = locate.on_path(program)
    if here.path:
        return Found(name, here.path, here.version or "", "PATH", program.needs(), program.get)
    built = platformdirs.user_cache_path("gpurunbook").glob(f"tools/*/bin/{name}")
    for path in sorted(built, key=lambda p: p.stat().st_mtime, reverse=True):
        version, _ = locate.probe(program, path)
        if version and program.accepts(version):
            return Found(name, str(path), version, "cache", program.needs(), program.get)
    return Found(name, "", "", here.note, program.needs(), program.get)
