"""What a rehearsal imitates besides the objects: how long things take, and what is broken. One file in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpurunbook.errors import ConfigError
from gpurunbook.files import write


@dataclass(frozen=True)
class World:
    """Everything is as it should be, and happens at once, unless said otherwise.

    Attributes:
        pace: 1 takes as long as AWS, 0 no time at all.
        seed: of the delays' spread.
        since: RFC 3339; device plug-in pods made before it are ill when `unhealthy`.
        images: entries beside those of manifests/rehearsal/images.yaml, as there.
        disk_gib: the GPU nodes' disks; 0: as cluster.yaml says.
        unplaced: the GPU nodes have neither providerID nor zone: no cloud controller came by.
        controller: a cloud controller renews its lease, and does nothing else.
        no_pci_label: feature discovery leaves out the GPU's label; one that a person sets stays.
        unhealthy: the device plug-in reports its GPUs as unhealthy, until its pod is made anew.
        cuda_error: what the CUDA driver answers in the GPU nodes' pods (0: all is well), until the driver's pod is made anew.
        cut_streams: exec streams break, without an exit code, in the first pod that the pod host sees of each owner.
        flapping: the GPU nodes' kubelets fall silent now and then, until their Node is made anew.
    """

    pace: float = 0.0
    seed: int = 0
    since: str = ""
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disk_gib: int = 0
    unplaced: bool = False
    controller: bool = False
    no_pci_label: bool = False
    unhealthy: bool = False
    cuda_error: int = 0
    cut_streams: bool = False
    flapping: bool = False

    def save(self, path: Path) -> None:
        """Write it (0600): whoever reads this file learns what is broken."""
        write(path, self.text())

    def text(self) -> str:
        """What `save` writes and `load` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"


PLAIN = World()


def file(folder: Path) -> Path:
    """Where it lies in a run folder."""
    return folder / "rehearsal" / "world.json"


def load(path: Path) -> World:
    """The world of a run's file; the plain one where there is none. Raises ConfigError when it says something unknown."""
    if not path.exists():
        return PLAIN
    try:
        return World(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ConfigError("the rehearsal's world cannot be read", where=str(path), next=str(error)) from error
