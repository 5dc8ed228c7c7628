"""What a plan changed in the cluster: two looks (glance.py), before and after, and a small table of what differs.

The first look is in the journal before the plan begins, so that whoever resumes a killed run sees what it had done. Evidence
never stops the work: what could not be seen is said in the table's name. Whoever else is at work in the cluster may have had
a part in what differs, as far as it is about the walk's own objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpurunbook import show
from gpurunbook.glance import ABSENT, CLUSTER, INSIDE, NONE, Fields, Look, Object, look
from gpurunbook.start import when

if TYPE_CHECKING:
    from gpurunbook.command import Command
    from gpurunbook.plan import Plan
    from gpurunbook.runbook import Run

MOST_ROWS, ALIKE = 14, 3
"""Rows of a table; and objects that change in the same way share one when they are more than so many."""
OLD_SECONDS = 3600

Row = tuple[str, str, str]


# Around a plan

@contextmanager
def watched(run: Run, plan: Plan) -> Iterator[None]:
    """Show and journal what the plan's commands changed, once they are done.

    Where an earlier runner was killed, or failed, between its two looks, its first one counts: an empty plan, too, then shows
    what that one had done.
    """
    before = unfinished(run)
    if before is None and not any(_shows(command) for command in plan):
        yield
        return
    if before is None:
        before = look(run)
        run.journal.append("before", stage=run.stage, seen=before.seen, left_out=before.left_out)
    yield
    tell(run, before, look(run), ran=bool(plan))


def _shows(command: Command) -> bool:
    """Whether objects can show what it does; what is done inside a pod they do not."""
    return command.changes and not {"exec", "cp"} & set(command.argv)


def tell(run: Run, before: Look, after: Look, *, ran: bool = False) -> None:
    """Journal what differs between two looks, and show it; nothing where there is no cluster at either end.

    Nor at one end, where the cluster is not ours: the kubeconfig came or went then, and not the cluster.

    Args:
        ran: commands ran, whose own lines stand above: they may have made what is not looked at, such as a ConfigMap or a role.
    """
    known = run.target.ours or not (before.absent or after.absent)
    rows, left_out = differences(before, after) if known else [], before.left_out | after.left_out
    run.journal.append("changed", stage=run.stage, rows=rows, left_out=left_out, since=before.time)
    if known and (before.there or after.there):
        since = f" since {when(before.time)} UTC, when an earlier try began" if before.time else ""
        show.show(table(rows, left_out, since, _kinds(before, after) if ran else ""))


def since_plan(run: Run) -> show.Table | show.Box:
    """What has changed since this notebook's last plan began: a second look, for when a wait is over."""
    record = None
    for one in run.journal.records():
        if one["kind"] == "before" and one["stage"] == run.stage:
            record = one
        elif one["kind"] == "stage" and one["stage"] == run.stage and one["state"] == "started":
            record = None  # what an earlier walk of the stage did is not meant
    if record is None:
        return table([], {}, ": no command ran in this notebook")
    before, now = _of(record), look(run)
    rows, left_out = differences(before, now), before.left_out | now.left_out
    run.journal.append("changed", stage=run.stage, rows=rows, left_out=left_out, since=before.time, later=True)
    return table(rows, left_out, f" since {when(before.time)} UTC, before the command: by it, and by others meanwhile")


def unfinished(run: Run) -> Look | None:
    """The look before a plan of this stage whose end nobody saw; None where that is an hour ago: much else has changed since."""
    last = None
    for record in run.journal.records():
        if record["kind"] == "run" and record["state"] == "finished":
            last = None
        elif record["kind"] in ("before", "changed") and record.get("stage") == run.stage and not record.get("later"):
            last = record
    if last is None or last["kind"] != "before":
        return None
    return _of(last) if (datetime.now(UTC) - datetime.fromisoformat(last["time"])).total_seconds() < OLD_SECONDS else None


def _of(record: Object) -> Look:
    return Look(record["seen"], record["left_out"], record["time"])


def _kinds(before: Look, after: Look) -> str:
    """What was looked at, at both ends: `nodes, pods`; "" where a cluster came or went, which is told whole."""
    both = [kind for kind in before.seen if kind in after.seen and kind != CLUSTER and kind not in after.left_out]
    return ", ".join(dict.fromkeys(f"{kind.partition(INSIDE)[0].removesuffix('s')}s" for kind in both))


def table(rows: list[Row], left_out: dict[str, str], since: str = "", kinds: str = "") -> show.Table | show.Box:
    """object | before | after; a line where nothing differs.

    Args:
        kinds: of what the rows are, where a command ran that may have made something else.
    """
    if CLUSTER in left_out:
        return show.Box(f"what changed in the cluster{since} was not seen: it {left_out[CLUSTER]}", ())
    caption = f"{'what' if rows else 'nothing that this looks at'} changed in the cluster{since}"
    if kinds:
        caption = f"{caption}, of its {kinds}" if rows else (
            f"no change{since} in what is looked at ({kinds}); the lines above tell what else was done")
    for why in dict.fromkeys(left_out.values()):
        unseen = dict.fromkeys(_many(kind) for kind, other in left_out.items() if other == why)
        caption += f"; {why}: {', '.join(unseen)}"
    return show.Table(("object", "before", "after"), rows, caption) if rows else show.Box(caption, ())


def _many(kind: str) -> str:
    inside = kind.partition(INSIDE)[2]
    return f"what is in {inside}" if inside else f"{kind}s"


# What differs

def differences(before: Look, after: Look) -> list[Row]:
    """Only what differs, at most MOST_ROWS rows; kinds that one of the looks lacks are left out. None where one saw nothing."""
    whole = before.there and after.there
    if not (before.seen and after.seen):
        return []
    kinds = [kind for kind in dict.fromkeys([*before.seen, *after.seen])
             if not {kind} & {*before.left_out, *after.left_out} and (whole or kind in (CLUSTER, "node", "Helm release"))]
    changes: dict[tuple[str, str, str, str], list[str]] = {}
    for kind in kinds:
        old, new = before.seen.get(kind, {}), after.seen.get(kind, {})
        for name in dict.fromkeys([*old, *new]):
            for aspect, was, now in _changes(old.get(name), new.get(name)):
                changes.setdefault((kind, aspect, was, now), []).append(name)
    rows = [(_title(kind, group, aspect), was, now) for (kind, aspect, was, now), names in changes.items()
            for group in ([names] if len(names) > ALIKE else [[name] for name in names])]
    return rows if len(rows) <= MOST_ROWS else [*rows[:MOST_ROWS - 1], (f"and {len(rows) - MOST_ROWS + 1} more", "", "")]


def _changes(old: Fields | None, new: Fields | None) -> Iterator[Row]:
    """An object that came or went is one row, one that stayed a row for each aspect."""
    if old is None or new is None:
        yield "", _all(old), _all(new)
        return
    for aspect in dict.fromkeys([*old, *new]):
        if (was := old.get(aspect, NONE)) != (now := new.get(aspect, NONE)):
            yield aspect, was, now


def _all(fields: Fields | None) -> str:
    if fields is None:
        return ABSENT
    return ", ".join(value if aspect in ("", "status", "image") else f"{aspect} {value}" for aspect, value in fields.items())


def _title(kind: str, names: list[str], aspect: str) -> str:
    name = names[0] if not names[1:] else f"{names[0]} and {len(names) - 1} like it"
    named = f"{kind.partition(INSIDE)[0]} {name}" if name else kind
    return f"{named}: {aspect}" if aspect else named
