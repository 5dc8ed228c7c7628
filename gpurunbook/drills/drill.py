"""What a drill is: a cause with a name, how its fault is made, and what a learner is told before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

Act = Callable[["Run"], None]
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Making:
    """How a fault is made, on the way from nothing to a model's pod that answers.

    Attributes:
        until: the last stage of the walk: provision, taint, gpu_operator, smoke or model.
        holds: that stage cannot succeed, so it is not waited for.
        world: fields of targets.rehearsal.world.World.
        taint: the GPU nodes keep the cloud controller's taint.
        values: KEY=VALUE given to helm besides the values file.
        image: another image of the model than the manifest's.
        objects: stage -> what is applied once that stage is done.
        acts: what is done once the walk is over and everything else is made, in order.
    """

    until: str = "model"
    holds: bool = False
    world: Mapping[str, Any] = field(default_factory=dict)
    taint: bool = False
    values: tuple[str, ...] = ()
    image: str = ""
    objects: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    acts: tuple[Act, ...] = ()


@dataclass(frozen=True)
class Mend:
    """One way to mend it: a sentence, and lines for a shell under the run's `export` line.

    {node} is the GPU node, {run} the run, {folder} its folder, {name} the release's or Deployment's name.
    """

    how: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Drill:
    """One fault to find.

    Attributes:
        cause: its name in gpurunbook.readiness.causes, which says where it shows, why, and what next.
        told: what the team is told: the symptom, in a sentence that does not name the cause.
        teaches: what is known afterwards.
        minutes: for somebody who meets it for the first time.
        made: where the fault lives, for the reveal.
        making: how it gets there.
        hints: two, the second closer than the first.
        mends: one or more ways, the usual one first.
    """

    cause: str
    told: str
    teaches: str
    minutes: int
    made: str
    making: Making
    hints: tuple[str, str]
    mends: tuple[Mend, ...]
