"""All drills, and which seed gives which."""

from __future__ import annotations

import hashlib
import itertools
import secrets

from gpurunbook.drills import access, image, nodes, operator, pod
from gpurunbook.drills.drill import Drill
from gpurunbook.errors import ConfigError
from gpurunbook.readiness.rungs import RUNGS

ALL: tuple[Drill, ...] = (*nodes.DRILLS, *operator.DRILLS, *image.DRILLS, *pod.DRILLS, *access.DRILLS)
BY_NAME = {drill.cause: drill for drill in ALL}
MOST_SEED = 10**6
"""Seeds that are picked are below this: short enough to be read out."""


def pick(seed: int) -> Drill:
    """The drill of a seed: the one with the highest SHA-256 of "seed/name". Uniform.

    So a drill that is added takes only its own share of the seeds: every other seed keeps its drill across versions.
    """
    return max(ALL, key=lambda drill: hashlib.sha256(f"{seed}/{drill.cause}".encode()).digest())


def seed_for(name: str) -> int:
    """A seed that gives this drill, not always the same. Raises ConfigError when there is no such drill."""
    if name not in BY_NAME:
        raise ConfigError(f"there is no drill {name!r}", where="--fault", next="gpurunbook drill lists all of them")
    begin = secrets.randbelow(MOST_SEED)
    return next(seed for seed in itertools.chain(range(begin, MOST_SEED), itertools.count()) if pick(seed).cause == name)


def rung(drill: Drill) -> str:
    """The rung on which it shows."""
    from gpurunbook.readiness.causes import CAUSES
    return CAUSES[drill.cause].rung


def by_rung() -> list[Drill]:
    """All drills, from the lowest rung up."""
    order = [one.name for one in RUNGS]
    return sorted(ALL, key=lambda drill: (order.index(rung(drill)), drill.cause))
