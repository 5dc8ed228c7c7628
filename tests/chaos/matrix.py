"""The matrix: an undisturbed run, chains of kills at the journal's boundaries, and pairs of boundary and victim."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import audit, invariants, leftovers
from tests.chaos.audit import Writes
from tests.chaos.boundary import spread
from tests.chaos.invariants import Violation
from tests.chaos.lane import RUN, TEARDOWN, Lane, Life
from tests.chaos.runner import Arms, after, of_child
from tests.chaos.state import Cluster, Objects

PHASES = (RUN, TEARDOWN)
VICTIMS = ("kernel", "child", "etcd", "api-server", "kwok", "pod-host", "walker")
REAL = ("kernel", "walker")
"""Victims of a walk with papermill and kernels."""
SETTLE = 20.0
"""Seconds in which the cluster's controllers finish what the last act brought."""
TRIES = 3
"""How often the same command may fail after a kill before that is a violation: a victim that was hit fails it once."""
MOST_LANES = 12
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Reference:
    """The undisturbed run: its objects, its writes, and its boundaries (name, seconds to the next) of both phases.

    `again`: the boundaries of a second `run`, which has nothing to do.
    """

    objects: Objects
    writes: Writes
    names: tuple[tuple[tuple[str, float], ...], ...]
    again: frozenset[str]

    @property
    def boundaries(self) -> list[str]:
        return list(dict.fromkeys(name for phase in self.names for name, _ in phase))


@dataclass(frozen=True)
class Pair:
    """One victim at one boundary. `phase`: 0 run, 1 teardown; `delay` in seconds."""

    number: int
    victim: str
    boundary: str
    phase: int
    delay: float

    def __str__(self) -> str:
        return f"{self.victim} {f'{self.delay:.3f} s ' if self.delay else ''}after {self.boundary}"


@dataclass
class Figures:
    """What the matrix counts."""

    points: set[str] = field(default_factory=set)
    kills: int = 0
    resumes: int = 0
    pairs: int = 0
    lanes: int = 0
    violations: list[Violation] = field(default_factory=list)


class Matrix:
    """`folder` takes a checkout for each lane; they are removed unless something did not hold."""

    def __init__(self, folder: Path, seed: int, tell: Tell) -> None:
        self.folder, self.seed, self._tell, self.figures, self._began = folder, seed, tell, Figures(), time.monotonic()

    def tell(self, line: str) -> None:
        self._tell(f"{time.monotonic() - self._began:5.0f} s  {line}")

    # The undisturbed run

    def reference(self, runs: int = 1) -> Reference:
        """Undisturbed runs, which must be alike; the last one's boundaries count. A second walk of each writes nothing."""
        found: list[Reference] = []
        for number in range(1, runs + 1):
            with self._lane(f"undisturbed-{number}") as lane:
                lives = [lane.live(RUN)]
                writes = audit.read(lane.folder)
                second = lane.live(RUN)
                objects, wrong = self._settled(lane, found[0].objects if found else None)
                wrong += invariants.done_once(writes, audit.read(lane.folder), 0)
                given = leftovers.ports(lane.folder)
                lives.append(lane.live(TEARDOWN))
                wrong += [f"exit code {life.code}: {lane.tail()}" for life in lives if life.code != 0]
                wrong += invariants.nothing_left(leftovers.after(lane, given))
                self._note("undisturbed run", wrong, f"undisturbed {number}")
                found.append(Reference(objects, writes, tuple(tuple(_timed(life)) for life in lives),
                                       frozenset(name for name, _ in second.names)))
            self.tell(f"undisturbed {number}: {len(found[-1].boundaries)} boundaries, {len(objects)} objects")
        return found[-1]

    def _settled(self, lane: Lane, wanted: Objects | None) -> tuple[Objects, list[str]]:
        """The objects once they are as wanted, or, where nothing is, once two looks see the same; else what differs."""
        deadline, cluster, before = time.monotonic() + SETTLE, Cluster(lane.folder), wanted
        while True:
            objects = cluster.objects()
            wrong = invariants.same_state(before, objects) if before else ["no second look yet"]
            if not wrong or time.monotonic() > deadline:
                return objects, wrong
            before = wanted or objects
            time.sleep(0.5)

    # Chains: the runner dies at one boundary after the other of one run

    def chains(self, reference: Reference, points: Sequence[str] | None) -> None:
        """Lane after lane, until one comes to its end without a point that was not met before.

        A runner killed while an act was under way finds it done: its later points are met in the next lane.

        Args:
            points: where to kill; None: wherever a record is appended.
        """
        for number in range(1, MOST_LANES + 1):
            before = len(self.figures.points)
            with self._lane(f"chain-{number}") as lane:
                self._chain(lane, reference, points)
            met = len(self.figures.points)
            self.tell(f"chain {number}: {met - before} kills, {met} in all")
            if met == before or (points is not None and self.figures.points >= set(points)):
                return
        self._note("chains", [f"{MOST_LANES} lanes, and still new boundaries"], "chains")

    def _chain(self, lane: Lane, reference: Reference, points: Sequence[str] | None) -> None:
        given: set[int] = set()
        for argv in PHASES:
            failed = 0
            while True:
                arms = Arms(None if points is None else tuple(points), tuple(self.figures.points), seed=self.seed)
                life = lane.live(argv, arms)
                if life.at:
                    self.figures.points.add(life.at)
                    self.figures.kills += 1
                    self.figures.resumes += 1
                    self._note("what the journal calls done is so", lane.untrue(), life.at)
                    given |= leftovers.ports(lane.folder)
                    if self.figures.kills % 20 == 0:
                        self.tell(f"{self.figures.kills} kills; the last: {life.at}")
                    continue
                if life.code == 0:
                    break
                failed += 1
                self._note("a resumed run comes to its end", [f"exit code {life.code}: {lane.tail()}"], self._last(lane))
                if failed == TRIES:
                    return
            if argv == RUN:
                self._judge(lane, reference, set(), self._last(lane))
        self._over(lane, given, self._last(lane))

    def _last(self, lane: Lane) -> str:
        return f"{lane.root.name}, up to point {len(self.figures.points)}"

    def _judge(self, lane: Lane, reference: Reference, victims: set[str], where: str, again: str = "") -> None:
        _, wrong = self._settled(lane, reference.objects)
        self._note("the same final state", wrong, where, again)
        records = list(lane.records())
        cluster = Cluster(lane.folder)
        self._note("one cluster", invariants.one_cluster(records, cluster.uid()), where, again)
        undone = invariants.undone(records)
        self._note("each act once", invariants.done_once(reference.writes, audit.read(lane.folder), undone), where, again)
        if "pod-host" not in victims:  # a kubelet that is killed starts its pods' containers anew
            self._note("no container started anew", invariants.one_stretch(cluster.restarts()), where, again)

    def _over(self, lane: Lane, given: set[int], where: str, again: str = "") -> None:
        self._note("nothing left", invariants.nothing_left(leftovers.after(lane, given)), where, again)
        self._note("every intent closed", invariants.closed(lane.records()), where, again)

    # Pairs

    def pairs(self, reference: Reference, count: int) -> list[Pair]:
        """`count` pairs by the seed, victims in turn; the first of each at a boundary that a second walk has too.

        So these can be had one after the other in one run, where the cluster may already be complete.
        """
        rng, found = random.Random(self.seed), []
        for number in range(count):
            victim = VICTIMS[number % len(VICTIMS)]
            phase, (name, seconds) = rng.choice([
                (phase, named) for phase, names in enumerate(reference.names) for named in names
                if _fits(victim, named[0], phase, [name for name, _ in names])
                and (number >= len(VICTIMS) or victim == "child" or named[0] in reference.again)])
            found.append(Pair(number, victim, name, phase, rng.random() * seconds * 0.7 if victim == "child" else 0.0))
        return found

    def pair(self, reference: Reference, pair: Pair) -> None:
        """One pair on a cluster of its own; a child that had ended before its kill is hit at once on another one."""
        with self._lane(f"pair-{pair.number}") as lane:
            missed = self._disturbed(lane, reference, [pair])
        if missed and pair.delay:
            with self._lane(f"pair-{pair.number}-at-once") as lane:
                self._disturbed(lane, reference, [replace(pair, delay=0.0)])

    def pairs_in_one(self, reference: Reference, pairs: Sequence[Pair]) -> list[Pair]:
        """All of them in one run, one after the other along the walk. Returns those whose boundary was not met."""
        order = {name: n for n, name in enumerate(reference.boundaries)}
        with self._lane("pairs") as lane:
            return self._disturbed(lane, reference, sorted(pairs, key=lambda p: (p.phase, order[p.boundary])))

    def _disturbed(self, lane: Lane, reference: Reference, pairs: Sequence[Pair]) -> list[Pair]:
        """At each pair the victim dies; the same command goes on, and in the end comes to its end. Returns who was missed."""
        again, given, missed = f"python -m tests.chaos --seed {self.seed} --pair ", set[int](), []
        where, last = lane.root.name, "0 to " + str(len(pairs) - 1) + ", one by one"
        for phase, argv in enumerate(PHASES):
            real = False
            for pair in (p for p in pairs if p.phase == phase):
                where, last, real = str(pair), str(pair.number), pair.victim in REAL
                arms = Arms((after(pair.boundary),), victim=pair.victim, delay=pair.delay, seed=self.seed)
                life = lane.live(argv, arms, real=real)
                self.figures.pairs += bool(life.hit)
                missed += [] if life.hit else [pair]
                self.figures.resumes += 1
                given |= leftovers.ports(lane.folder)
                if life.code == 0:
                    self._note("no success that did not happen", lane.untrue(), where, again + last)
                if life.code is None:
                    self._note("a disturbed run ends", [lane.tail()], where, again + last)
                self.tell(f"{'hit   ' if life.hit else 'missed'} {where}: exit code {life.code}")
            if not self._through(lane, argv, where, again + last, real=real and len(pairs) == 1):
                return missed
            if argv == RUN:
                self._judge(lane, reference, {p.victim for p in pairs if p.phase == 0}, where, again + last)
                given |= leftovers.ports(lane.folder)
        self._over(lane, given, where, again + last)
        return missed

    def _through(self, lane: Lane, argv: Sequence[str], where: str, again: str, *, real: bool) -> bool:
        """Whether the command comes to its end; once more is allowed, since a victim may die unnoticed in the last life."""
        for attempt in range(TRIES):
            life = lane.live(argv, real=real)
            if life.code == 0:
                return True
            self.figures.resumes += 1
            self.tell(f"resume {attempt + 1} of {where}: exit code {life.code}: {lane.tail(4)}")
        self._note("a resumed run comes to its end", [f"exit code {life.code}: {lane.tail()}"], where, again)
        return False

    # What both need

    def _note(self, rule: str, wrong: Sequence[str], where: str, again: str = "") -> None:
        for line in wrong:
            found = Violation(rule, line, where, again or f"python -m tests.chaos --seed {self.seed} --chains")
            self.figures.violations.append(found)
            self.tell(f"VIOLATION {rule}: {line}\n         at {where}\n         again: {found.again}")

    @contextmanager
    def _lane(self, name: str) -> Iterator[Lane]:
        before = len(self.figures.violations)
        lane = Lane(self.folder / name, self.seed)
        self.figures.lanes += 1
        try:
            yield lane
        finally:
            lane.close(keep=len(self.figures.violations) > before)


def sample(reference: Reference, count: int, seed: int) -> list[str]:
    """So many points, evenly spread over the boundaries that every undisturbed run has: not every one has to wait."""
    return spread([name for name in reference.boundaries if ": wait" not in name], count, seed)


def _timed(life: Life) -> Iterator[tuple[str, float]]:
    """Each boundary with the seconds to the next one."""
    for n, (name, when) in enumerate(life.names):
        yield name, life.names[n + 1][1] - when if n + 1 < len(life.names) else 0.0


def _fits(victim: str, name: str, phase: int, names: Sequence[str]) -> bool:
    """Whether there is such a victim right after that boundary, and always will be."""
    if ": wait" in name:  # not every walk has to wait
        return False
    if victim == "walker":
        return True
    if victim == "kernel":
        return not name.startswith("walk:") and ": notebook" not in name
    if victim == "child":
        return of_child(name)
    if phase == 0:  # there is a cluster once it is known
        known = next(n for n, other in enumerate(names) if ": identity" in other)
        return names.index(name) >= known
    return name.startswith("teardown:") and names.index(name) <= next(
        n for n, other in enumerate(names) if "intent sh" in other or "intent kill" in other)
