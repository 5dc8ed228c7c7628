"""How long things take on AWS, and so in a rehearsal that is told to take its time. Seeded: a run's times are its own.

Some take longer than what stands here, since one thing disturbs another: the toolkit's restart of containerd ends the
pulls that run on its node, and their next try waits for the kubelet's back-off (pulls.py).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping

from gpurunbook.errors import ConfigError
from gpurunbook.targets.rehearsal.world import World

WORDS: Mapping[str, float] = {"instant": 0.0, "real": 1.0}
MOST = 10.0
PLAIN = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+\.")
STARTS, TAKES = "gpurunbook.dev/starts", "gpurunbook.dev/takes"
"""Annotations that KWOK's Stages read (stages.yaml): until a pod's containers run, and from there until it is Ready."""

# Seconds, from and to. perf: facts/performance.md, field: facts/field.md, with the row or the number there.
USUAL: Mapping[str, tuple[float, float]] = {
    "node join": (60, 90),  # perf 1, "GPU node pending to Ready": from the instance's start to the Node object
    "node ready": (5, 30),  # the network plug-in's first start on a registered node
    "pod": (2, 8),  # an image of some 50 MB and a program that starts at once: NFD, the operator's controller
    # perf 1: 3 to 5 minutes for the whole stack (NVIDIA's maintainer; field P19), 2 to 3 of them the driver's compilation
    "driver manager": (8, 15),
    "driver": (110, 170),
    "driver validation": (5, 10),  # the toolkit's init container, once the driver is there
    "toolkit": (8, 20),  # it writes containerd's configuration and restarts it
    "validation": (10, 25),  # the validator's init containers, a CUDA pod among them
    "validator": (1, 3),
    "toolkit validation": (2, 5),
    "device plug-in": (3, 10),
    "gfd": (2, 8),
    "dcgm exporter": (4, 12),
    "mig manager": (2, 8),
    # perf 1: 9.35 GB in 130.8 s by containerd on a large node, 9.72 GB in 419 s from a 125 MB/s disk; 9.35 GB in 39.6 s by SOCI
    "image pull per GB": (14, 43),
    "image pull per GB, parallel": (4, 7),
    "container start": (0.3, 1.5),
}


def number(text: str) -> float:
    """What a person says of the pace: `instant`, `real`, or how much of real time. Raises ConfigError otherwise."""
    try:
        value = WORDS[text] if text in WORDS else float(text if PLAIN.fullmatch(text) else "")  # float reads 1_0 and ٣ too
    except ValueError:
        value = math.nan
    if not 0 <= value <= MOST:
        raise ConfigError(f"pace is {text[:40]!r}", where="notebook 02, pace",
                          next=f"say {', '.join(WORDS)}, or how much of real time, such as 0.1 (at most {MOST:g})")
    return value


def seconds(what: str, world: World, *key: str) -> float:
    """How long `what` takes in this world: between its usual times, times the pace; at pace 0, 0.

    Args:
        what: one of USUAL.
        key: whose it is (a node, a pod): the same key takes the same time again, another one its own.
    """
    low, high = USUAL[what]
    if not world.pace:
        return 0.0
    digest = hashlib.sha256("/".join((str(world.seed), what, *key)).encode()).digest()
    spread = int.from_bytes(digest[:4]) / 2**32
    return round((low + (high - low) * spread) * world.pace, 3)


def duration(seconds: float) -> str:
    """As a Stage's `durationFrom` reads it, and its conditions compare it: `0s`, `92.3s`."""
    return f"{seconds:.6g}s"
