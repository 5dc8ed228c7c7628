"""manifests/gpu-operator/chart.yaml: every version and date of the GPU stack, read into frozen values; and its age."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gpurunbook import yaml_file
from gpurunbook.errors import ConfigError
from gpurunbook.plan import Check
from gpurunbook.scaffold import SOURCE

FILE = Path("manifests", "gpu-operator", "chart.yaml")
STALE_DAYS, SOON_DAYS = 60, 30
FIX = f"read the sources named in {FILE} again, mend it, and set `dated`"

Life = Literal["standard", "extended", "left", "unknown"]


@dataclass(frozen=True)
class Image:
    """An image that brings NVIDIA's driver.

    Attributes:
        driver: its branch, such as "580".
        types: the EC2 families that AWS lists for it.
        since: family -> the first release of the image for it.
    """

    driver: str
    types: frozenset[str]
    since: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """What is known of versions on the day `dated`.

    Attributes:
        chart: the GPU operator's, such as "v26.7.0"; `lines`: line of the chart -> supported, deprecated or ended.
        driver: the chart's own; `last_for`: generation of GPUs -> the last driver for it.
        kubernetes: first and last minor version that NVIDIA supports the chart on.
        standard, extended: Kubernetes version -> last day of that support on EKS.
        ubuntu: series, such as "2404" -> first and last Kubernetes version with an EKS image ("" when there is no last).
        supported_ubuntu: the series that NVIDIA supports on EKS.
        images: image family -> image with a driver.
        ended: image family -> day on which its maker ended it.
    """

    dated: dt.date
    chart: str
    lines: Mapping[str, str]
    driver: str
    last_for: Mapping[str, str]
    kubernetes: tuple[str, str]
    standard: Mapping[str, dt.date]
    extended: Mapping[str, dt.date]
    ubuntu: Mapping[str, tuple[str, str]]
    supported_ubuntu: frozenset[str]
    images: Mapping[str, Image]
    ended: Mapping[str, dt.date]

    @property
    def ends(self) -> Mapping[str, dt.date]:
        """Kubernetes version -> last day of its present support on EKS."""
        return {**self.extended, **self.standard}

    @property
    def line(self) -> str:
        """How NVIDIA calls the state of the pinned chart's line: supported, deprecated, ended, or unknown."""
        return self.lines.get(".".join(self.chart.removeprefix("v").split(".")[:2]), "unknown")

    def life(self, version: str, today: dt.date) -> tuple[Life, dt.date | None]:
        """Where a Kubernetes version stands on EKS, and until or since when, where the file says it."""
        if version in self.standard:  # after standard support comes a year of the extended, which no file has dated yet
            return ("standard" if today <= self.standard[version] else "extended"), self.standard[version]
        if version in self.extended:
            return ("extended" if today <= self.extended[version] else "left"), self.extended[version]
        return ("left" if minor(version) < min(map(minor, self.ends)) else "unknown"), None


def minor(version: str) -> tuple[int, ...]:
    """Major and minor as numbers: (1, 36) for 1.36, v1.36.3 and "Kubernetes 1.36"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def find() -> Path:
    """The file of the folder that one stands in, or of one above; else the one that came with the package.

    Raises:
        ConfigError: there is neither.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, SOURCE):
        if (folder / FILE).is_file():
            return folder / FILE
    raise ConfigError(f"there is no {FILE} here or above", where=str(here), next="make a folder: gpurunbook init my-cluster")


def facts(path: Path | None = None) -> Facts:
    """What the file says. Raises ConfigError naming what is wrong in it."""
    path = path or find()
    try:
        return _read(path.resolve(), path.stat().st_mtime_ns)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, OSError, ConfigError) as error:
        told = error.what if isinstance(error, ConfigError) else " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(f"{FILE.name} cannot be read: {told}", where=str(path),
                          next=f"mend the file; as shipped: git checkout {FILE}, or: gpurunbook init . --force") from error


@cache
def _read(path: Path, _changed: int) -> Facts:
    found: dict[str, Any] = yaml_file.load(path)
    parts, eks = found["components"], found["eks"]
    return Facts(
        dated=_date(found["dated"]), chart=found["version"], lines=found["lines"], driver=parts["driver"],
        last_for=parts["last_for"], kubernetes=(found["kubernetes"]["min"], found["kubernetes"]["max"]),
        standard={version: _date(day) for version, day in eks["standard"].items()},
        extended={version: _date(day) for version, day in eks["extended"].items()},
        ubuntu={series: (known["first"], known.get("last", "")) for series, known in found["ubuntu"].items()},
        supported_ubuntu=frozenset(found["supported_ubuntu"]),
        images={family: Image(known["driver"], frozenset(known["types"]), known.get("since", {}))
                for family, known in found["images"].items()},
        ended={family: _date(day) for family, day in found["ended"].items()})


def _date(day: Any) -> dt.date:
    if type(day) is not dt.date:
        raise ValueError(f"expected a day such as 2026-11-22, found {day!r}")
    return day


def stale(known: Facts, today: dt.date, version: str) -> list[Check]:
    """What doctor warns of: an old file, and support that is over or soon will be.

    Args:
        version: what cluster.yaml asks for; "" when it asks for none.
    """
    age, soon = (today - known.dated).days, today + dt.timedelta(days=SOON_DAYS)
    over = [f"{v} {_when(day, today)}" for v, day in known.ends.items() if day < today]
    life, day = known.life(".".join(map(str, minor(version))), today) if version else ("unknown", None)
    ending = day is not None and day <= soon
    said = {"standard": "in standard support", "extended": "in extended support, which costs more", "left": "out of support",
            "unknown": "not in the file"}[life]
    return [
        Check("the GPU stack's versions were read lately", "warn" if age > STALE_DAYS else "pass",
              f"{FILE.name} is dated {known.dated}, {_days(age)} ago", FIX, "a recipe for versions that are gone"),
        Check("NVIDIA supports the pinned chart's line",
              "pass" if known.line == "supported" else "unknown" if known.line == "unknown" else "warn",
              f"{known.chart}: {known.line}", f"pin a chart of a supported line in {FILE}", "faults that nobody mends"),
        Check("EKS versions in the file are supported", "warn" if over else "pass",
              "; ".join(over) or f"{', '.join(sorted(known.ends, key=minor))}: none has left its support", FIX,
              "a cluster that AWS refuses, or bills at the extended rate"),
        Check("cluster.yaml's Kubernetes is supported",
              "unknown" if life == "unknown" else "warn" if life != "standard" or ending else "pass",
              f"{version}: {said}" + (f"; {_when(day, today)}" if day else "") if version else "cluster.yaml asks for none",
              f'set version: "{max(known.standard, key=minor)}" in cluster.yaml',
              "a cluster that AWS refuses, or bills at the extended rate"),
    ]


def _when(day: dt.date, today: dt.date) -> str:
    days = (day - today).days
    return f"left its support on {day}, {_days(-days)} ago" if days < 0 else f"leaves its support on {day}, in {_days(days)}"


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"
