"""Pure: what must hold after a run was killed and gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpurunbook.journal import Record
from tests.chaos.audit import Writes
from tests.chaos.state import Objects, differences, digest

MOST = 6
"""Lines that a violation shows."""


@dataclass(frozen=True)
class Violation:
    """What did not hold, and how to see only it again."""

    rule: str
    evidence: str
    where: str
    again: str = ""


def same_state(wanted: Objects, found: Objects) -> list[str]:
    """The cluster is as the undisturbed run left it."""
    return [] if digest(wanted) == digest(found) else differences(wanted, found)[:MOST] or ["the hash differs"]


def done_once(wanted: Writes, found: Writes, undone: int) -> list[str]:
    """Nothing was made, changed or deleted more often by helm or kubectl than in the undisturbed run, nor less often.

    Args:
        undone: how often the run took away a half-made release before it installed it again: so often helm may repeat itself.
    """
    wrong = []
    for program, more in (("kubectl", 0), ("helm", undone)):
        for verb in ("create", "patch", "update", "delete"):
            names = {name for who, what, name in wanted | found if (who, what) == (program, verb)}
            for name in sorted(names):
                usual, times = wanted[program, verb, name], found[program, verb, name]
                undoing = more if verb == "delete" else 0
                if not usual <= times <= usual * (1 + more) + undoing:
                    wrong.append(f"{program} {verb} {name}: {times} times, undisturbed: {usual}")
    return wrong


def one_cluster(records: Iterable[Record], uid: str) -> list[str]:
    """The journal knows one cluster, and it is this one."""
    known = {r["uid"] for r in records if r["kind"] == "identity" and "uid" in r}
    return [] if known == {uid} else [f"clusters in the journal: {sorted(known)}; there is: {uid}"]


def one_stretch(restarts: Mapping[str, int]) -> list[str]:
    """No container was started anew."""
    return [f"pod {name} was restarted {count} times" for name, count in sorted(restarts.items())]


def undone(records: Iterable[Record]) -> int:
    """How often a half-made release was taken away or rolled back before the teardown."""
    stage, count = "", 0
    for record in records:
        stage = record["stage"] if record["kind"] == "notebook" else stage
        count += record["kind"] == "intent" and stage != "teardown" and any(
            word in record["argv"][1:3] for word in ("uninstall", "rollback"))
    return count


def nothing_left(left: Mapping[str, Sequence[Any]]) -> list[str]:
    """What was found after the teardown, by kind: nothing."""
    return [f"{kind}: {item}" for kind, items in sorted(left.items()) for item in items][:MOST]


def closed(records: Iterable[Record]) -> list[str]:
    """Every intent has its result, if only to say that it is unknown."""
    records = list(records)
    ended = {r["id"] for r in records if r["kind"] == "result"}
    return [f"no result of: {r['shown'][:100]}" for r in records if r["kind"] == "intent" and r["id"] not in ended][:MOST]
