"""Making a drill: the stages' own plans, as far as the walk can go, and the fault on the way. The journal holds the seed."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

from gpurunbook import runs
from gpurunbook.config import load_cluster, locate
from gpurunbook.drills import catalogue, record
from gpurunbook.drills.acts import CHART, unseen
from gpurunbook.drills.drill import Drill, Making, Object
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.readiness.rungs import Ladder
from gpurunbook.runbook import Run, open_run

TARGET = "rehearsal"
STAGES = ("provision", "taint", "gpu_operator", "smoke", "model")
TITLES = {"provision": "a control plane and its nodes", "taint": "the cloud controller's work", "gpu_operator": "the operator",
          "smoke": "a CUDA program of our own", "model": "the model's pod", "acts": "waiting until the fault shows"}
USUAL = {"provision": (3, 10), "taint": (0, 2), "gpu_operator": (2, 8), "smoke": (1, 5), "model": (1, 5), "acts": (0, 20)}
SECONDS = 120.0
"""How long the cluster may take to show the fault: most show at once, a node that flaps must first do so twice."""
LOOK = 0.5
Tell = Callable[[str], None]
Look = Callable[[Run], Ladder]


@dataclass(frozen=True)
class Started:
    """A drill that waits for its learner. `export`: the line under which its commands can be pasted."""

    run_id: str
    seed: int
    told: str
    export: str
    seconds: float


def start(root: Path, cluster_file: str, seed: int, *, run_id: str = "", tell: Tell = lambda line: None, look: Look) -> Started:
    """Start a rehearsal with the fault that the seed gives, and return when the ladder shows it.

    Args:
        cluster_file: as notebooks take it.
        run_id: a new one; empty: `drill-WORD`.
        tell: gets a line when a step begins and when it ends.
        look: reads the ladder.

    Raises:
        ConfigError: the run is there already, or the cluster file is none.
        RunbookError: a step failed, or the fault does not show. What is there stays, for a look and a teardown.
    """
    load_cluster(locate(root, cluster_file))  # before it is copied: it may be no cluster file, or have no end
    drill, began = catalogue.pick(seed), time.monotonic()
    folder = _folder(root, cluster_file, run_id)
    Journal(folder).append("drill", seed=seed)
    _prepare(folder, drill.making)
    tell(f"run {folder.name}, seed {seed}")
    with redirect_stdout(io.StringIO()):  # what the stages show is for those who walk, and tells how far this walk gets
        for stage in STAGES[:STAGES.index(drill.making.until) + 1]:
            with _timed(stage, tell):
                run = _stage(folder.name, cluster_file, stage, drill.making)
                _make_objects(run, drill.making.objects.get(stage, ()))
        with _timed("acts", tell):
            for act in drill.making.acts:
                act(run)
            _shown(run, drill, look)
    Journal(folder).append("run", state="kept")  # up on purpose, as a walk with --keep is: not what a dead run left
    return Started(folder.name, seed, drill.told, run.header, round(time.monotonic() - began, 1))


def _folder(root: Path, cluster_file: str, run_id: str) -> Path:
    taken = [name for name in ([run_id] if run_id else []) if (root / "runs" / name).exists()]
    if taken:
        raise ConfigError(f"run {run_id} is there already", where=str(root / "runs" / run_id),
                          next="name another one; what it is: gpurunbook status")
    words = random.sample(runs.WORDS, len(runs.WORDS))
    free = [name for word in words if not (root / "runs" / (name := f"drill-{word}")).exists()]
    if not run_id and not free:
        raise ConfigError("all names of drills are taken", where=str(root / "runs"), next="remove what is torn down, or --run-id")
    return runs.resolve(root, TARGET, (root / cluster_file).resolve(), run_id or free[0], start=True)


def _prepare(folder: Path, making: Making) -> None:
    from gpurunbook.targets.rehearsal import world
    from gpurunbook.targets.rehearsal.pod_status import now
    world.World(since=now(), **making.world).save(world.file(folder))


@contextmanager
def _timed(stage: str, tell: Tell) -> Iterator[None]:
    low, high = USUAL[stage]
    tell(f"{TITLES[stage]} (usually {low} to {high} s)")
    began = time.monotonic()
    yield
    tell(f"  {time.monotonic() - began:.1f} s")


def _stage(run_id: str, cluster_file: str, stage: str, making: Making) -> Run:
    """One stage of the walk, through its own functions; waited for unless it is the one that the fault holds."""
    from gpurunbook.stages import gpu_operator, model, provision, taint
    waits = not (making.holds and stage == making.until)
    name = "gpu_operator" if stage == "smoke" else stage
    run = open_run(name, run_id=run_id, target=TARGET, cluster_file=cluster_file)
    if stage == "provision":
        wishes = provision.Wishes(stuck_taint=making.taint)
        provision.apply(run, provision.plan(run, provision.observe(run), wishes), wishes)
        provision.wait(run)
        run.apply(provision.grant(run))
        run.verify(provision.verify(run))
    elif stage == "taint" and not making.taint:
        run.apply(taint.plan(run, taint.observe(run)))
        run.verify(taint.verify(run))
    elif stage == "gpu_operator":
        _install(run, making)
        if waits:
            gpu_operator.wait(run)
    elif stage == "smoke":
        _smoke(run, waits)
    elif stage == "model":
        run.apply(model.plan(run, model.observe(run, image=making.image, weights="image")))
        if waits:
            model.wait(run)
            run.verify(model.verify(run))
    # What a drill does besides, and looks at, takes an administrator; some stages are walked with fewer rights.
    return Run(run.root, run.folder, run.target, run.cluster, "provision", run.journal)


def _install(run: Run, making: Making) -> None:
    """05's plan; with other values unseen, since the journal would name them."""
    from gpurunbook.stages import gpu_operator
    plan = gpu_operator.plan(run, gpu_operator.observe(run, chart=CHART))
    flags = tuple(word for pair in making.values for word in ("--set", pair))
    if not flags:
        run.apply(plan)
    for command in plan.commands if flags else ():
        unseen(run, replace(command, argv=command.argv + flags) if "--install" in command.argv else command)


def _smoke(run: Run, waits: bool) -> None:
    from gpurunbook.stages import gpu_operator
    run.apply(gpu_operator.smoke_plan(run))
    if waits:
        gpu_operator.wait(run, "smoke")
        run.verify(gpu_operator.verify(run))


def _make_objects(run: Run, objects: tuple[Object, ...]) -> None:
    """Apply them, and wait until the pods they bring are on their nodes: who comes first gets a GPU."""
    if not objects:
        return
    whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    unseen(run, run.kubectl("apply", "-f", "-", why="what belongs to the drill", stdin=json.dumps(whole).encode()))
    for item in objects:
        if item["kind"] in ("Deployment", "DaemonSet"):
            unseen(run, run.kubectl("wait", "pod", "-n", item["metadata"]["namespace"], "--for=condition=PodScheduled",
                                    "--timeout=30s", "-l", ",".join(f"{k}={v}" for k, v in
                                                                    item["spec"]["selector"]["matchLabels"].items()),
                                    why="who comes first gets a GPU"))


def _shown(run: Run, drill: Drill, look: Look) -> None:
    """Wait until the ladder shows this fault and no other. Raises RunbookError, which does not name it."""
    began, found = time.monotonic(), None
    while time.monotonic() - began < SECONDS:
        # Opened anew: a client that is open has signed in, and would go on where another is turned away.
        found = {finding.cause for finding in look(record.opened(run.id, TARGET, str(run.cluster.path))).findings}
        if found == {drill.cause}:
            return
        time.sleep(LOOK)
    raise RunbookError(f"the drill did not come about within {SECONDS:g} s: the cluster shows {len(found or ())} trouble(s) "
                       "that are not all as they should be", where=f"gpurunbook gpu --run-id {run.id}",
                       next=f"gpurunbook teardown --run-id {run.id}, and start it again")
