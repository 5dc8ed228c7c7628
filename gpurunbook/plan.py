"""What a stage would do, and whether the cluster is as it should be: Plan and Check, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpurunbook import show
from gpurunbook.command import Command

NOTHING = "nothing to do"
State = Literal["pass", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Check:
    """One question put to the cluster or the machine.

    Attributes:
        name: what is asked.
        state: pass, warn, fail, or unknown when it could not be asked; never pass without evidence.
        evidence: what was found.
        fix: what to type or change when it is not a pass.
        later: what it would have cost to find this out later.
    """

    name: str
    state: State
    evidence: str = ""
    fix: str = ""
    later: str = ""

    def __repr__(self) -> str:
        return repr(Checks((self,)))

    def _repr_html_(self) -> str:
        return Checks((self,))._repr_html_()


class Checks(tuple[Check, ...]):
    """Checks that show themselves as a table."""

    @property
    def table(self) -> show.Table:
        columns, rows = ["check", "found"], [[c.name, c.evidence] for c in self]
        for title, cells in (("what finding it out later costs", [c.later for c in self]),
                             ("what mends it", ["" if c.state == "pass" else c.fix for c in self])):
            if any(cells):
                columns.append(title)
                rows = [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
        return show.Table(columns, rows, "" if self else "no checks: nothing was asked", states=[c.state for c in self])

    @property
    def failed(self) -> list[Check]:
        return [c for c in self if c.state == "fail"]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(c) for c in self]

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True)
class Plan:
    """Commands in order, and the reason for them, or for there being none.

    Attributes:
        header: the `export` line under which the short commands can be pasted.
        elsewhere: commands that another target would run: shown, never run here.
        files: what the commands read and `Run.apply` writes first (path -> text, made 0600).
        notes: what a reader should see before the commands, such as the difference to a file, or a bill.
    """

    commands: tuple[Command, ...]
    reason: str
    header: str = ""
    elsewhere: tuple[Command, ...] = ()
    files: Mapping[Path, str] = field(default_factory=dict, repr=False)
    notes: tuple[Any, ...] = ()

    def __iter__(self) -> Iterator[Command]:
        return iter(self.commands)

    def __bool__(self) -> bool:
        return bool(self.commands)

    def __repr__(self) -> str:
        lines = [self.reason or NOTHING] + [f"  (not run here) {c.short}" for c in self.elsewhere]
        if self.commands:
            lines += [f"  {self.header}"] * bool(self.header) + [f"  {c.short}" for c in self.commands]
        return "\n".join([*map(repr, self.notes), *map(show.clean, lines)])

    def _repr_html_(self) -> str:
        parts = [f"<p>{show.escape(self.reason or NOTHING)}</p>", *(note._repr_html_() for note in self.notes)]
        if self.elsewhere:
            parts.append("<p><i>On AWS this would run; <b>not run here</b>:</i></p>"
                         + show.commands_html("", [c.short for c in self.elsewhere], [c.full for c in self.elsewhere],
                                              "with all its paths"))
        if self.commands:
            if self.elsewhere:
                parts.append("<p><i>Here this runs:</i></p>")
            parts.append(show.commands_html(self.header, [c.short for c in self], [c.full for c in self]))
        return "".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "commands": [c.argv for c in self], "shown": [c.short for c in self]}
