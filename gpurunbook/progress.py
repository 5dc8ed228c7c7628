"""One look at a step that takes time, as data that shows itself: in a cell, on a terminal, as a line of a log."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from gpurunbook import show
from gpurunbook.times import took

BAR = 24
"""Characters of the bar in plain text."""
State = Literal["going", "done", "stopped"]
MARKS: dict[State, str] = {"going": "…", "done": "✓", "stopped": "✗"}
COLOURS: dict[State, str] = {"going": show.COLOURS["unknown"], "done": show.COLOURS["pass"], "stopped": show.COLOURS["fail"]}


@dataclass(frozen=True, repr=False)
class Progress:
    """One look at a step; `events` are the last things that happened, oldest first. Times are seconds."""

    phase: str
    seconds: float
    usual: tuple[float, float] | None = None
    state: State = "going"
    blocker: str = ""
    events: tuple[str, ...] = ()
    spent: str = ""
    interrupt: str = ""

    @property
    def headline(self) -> str:
        """Such as `… install: 12 s, usually 5 to 60 s`."""
        if self.state != "going":
            return f"{MARKS[self.state]} {self.phase}: {'' if self.state == 'done' else 'stopped after '}{took(self.seconds)}"
        now = f"{MARKS['going']} {self.phase}: {took(self.seconds, whole=True)}"
        return ", ".join(filter(None, (now, self._usually, self.spent)))

    @property
    def _usually(self) -> str:
        if not self.usual:
            return ""
        low, high = (f"{one:g}" for one in self.usual) if self.usual[1] < 120 else (took(one, whole=True) for one in self.usual)
        unit = " s" if self.usual[1] < 120 else ""
        return f"{'longer than usual,' if self.seconds > self.usual[1] else 'usually'} {low} to {high}{unit}"

    @property
    def last(self) -> str:
        """What blocks it, else what happened last."""
        return self.blocker or (self.events[-1] if self.events else "")

    @property
    def pieces(self) -> list[tuple[float, str]]:
        """The bar, from the left: (part of the whole width, over | usual | gone | ahead). Empty where nothing is usual."""
        if not self.usual:
            return []
        low, high = self.usual
        whole = max(self.seconds, high * 1.2, 0.1)
        cuts = sorted({0.0, min(low, whole), high, min(self.seconds, whole), whole})
        return [((right - left) / whole, "over" if right <= self.seconds and left >= high else "gone" if right <= self.seconds
                 else "usual" if low <= left and right <= high else "ahead")
                for left, right in pairwise(cuts)]

    def __repr__(self) -> str:
        """One line for logs and pipes."""
        return show.line(f"{self.headline} · {self.last}" if self.last and self.state != "done" else self.headline)

    @property
    def text(self) -> str:
        """The lines for a terminal, where they are updated in place."""
        fill = {"over": "█", "gone": "█", "usual": "▒", "ahead": "░"}
        bar, done = "", 0.0
        for width, kind in self.pieces:
            done += width
            bar += fill[kind] * (round(done * BAR) - len(bar))
        lines = [f"{self.headline}  {bar}".rstrip(), *self._details] if self.state == "going" else [self.headline]
        return "\n".join(show.line(one) for one in lines)

    @property
    def _details(self) -> list[str]:
        return [f"  {one}" for one in (f"waits for: {self.blocker}" if self.blocker else "",
                                       *(f"· {event}" for event in self.events), self.interrupt) if one]

    def _repr_html_(self) -> str:
        small = "font-size:.9em;opacity:.85"
        rest = "" if self.state == "done" else self._bar() + "".join(
            f"<div style='{small}'>{show.escape(one.strip())}</div>" for one in (self._details if self.state == "going" else ()))
        if self.state == "stopped" and self.last:
            rest = f"<div style='{small}'>last: {show.escape(self.last)}</div>"
        return show.framed(COLOURS[self.state], self.headline, rest)

    def _bar(self) -> str:
        """Blocks in a row: a sanitised notebook keeps widths and colours, and no positions. The words above say the same."""
        colour = {"over": show.COLOURS["warn"], "gone": show.COLOURS["pass"], "usual": "rgba(33,140,64,.35)",
                  "ahead": "rgba(127,127,127,.25)"}
        whole = "width:240px;max-width:100%;height:7px;margin:2px 0;line-height:0;font-size:0"
        return "".join([f"<div aria-hidden='true' style='{whole}'>",
                        *(f"<span style='display:inline-block;height:7px;width:{100 * width:.2f}%;background:{colour[kind]}'>"
                          "</span>" for width, kind in self.pieces), "</div>"]) if self.pieces else ""
