"""How things show themselves: tables and boxes in a notebook, aligned text everywhere else.

Text from the cluster or a program is escaped here, once: no markup and no terminal control sequence passes.
"""

from __future__ import annotations

import html
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?", "": " "}
COLOURS = {"pass": "#1a7f37", "warn": "#9a6700", "fail": "#cf222e", "unknown": "#6e7781"}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""All controls but tab and line feed, line separators, marks that turn the writing direction, lone surrogates."""


def clean(text: object) -> str:
    """Text with control and bidirectional-override characters made visible, safe for a terminal."""
    return CONTROL.sub(lambda m: f"\\u{ord(m[0]):04x}", str(text))


def line(text: object) -> str:
    """`clean` text on one line: a tab becomes a space, a line break is shown as one."""
    return clean(text).replace("\t", " ").replace("\n", " ⏎ ")


def escape(text: object) -> str:
    """`clean` text, safe inside HTML."""
    return html.escape(clean(text))


@dataclass(frozen=True)
class Table:
    """A small table. `states`, if given, marks each row pass, warn, fail or unknown."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    states: Sequence[str] = ()

    def __repr__(self) -> str:
        head, *rows = [[line(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        marks = [MARKS[state] + " " for state in self.states] or [""] * len(rows)
        lines = [" " * len(marks[0] if marks else "") + "  ".join(map(str.ljust, head, widths))]
        lines += [mark + "  ".join(map(str.ljust, row, widths)) for mark, row in zip(marks, rows, strict=True)]
        return "\n".join(text.rstrip() for text in ([line(self.caption)] if self.caption else []) + lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th scope='col' style='text-align:left'>{escape(c)}</th>" for c in self.columns)
        body = ""
        for i, row in enumerate(self.rows):
            state = self.states[i] if self.states else ""
            mark = f"<b style='color:{COLOURS[state]}' title='{state}'>{MARKS[state]}</b> " if state else ""
            cells = [f"<td style='text-align:left;vertical-align:top'>{mark if j == 0 else ''}{escape(cell)}</td>"
                     for j, cell in enumerate(row)]
            body += f"<tr>{''.join(cells)}</tr>"
        caption = (f"<caption style='text-align:left;font-weight:600'>{escape(self.caption)}</caption>"
                   if self.caption else "")
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Box:
    """A titled paragraph with a coloured edge: a banner, a note, an instruction."""

    title: str
    lines: tuple[str, ...]
    state: str = "unknown"

    def __repr__(self) -> str:
        return "\n".join([clean(self.title), *(f"  {clean(line)}" for line in self.lines)])

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{escape(line)}</div>" for line in self.lines)
        return (f"<div style='border-left:4px solid {COLOURS[self.state]};padding:4px 12px;margin:4px 0'>"
                f"<b>{escape(self.title)}</b>{lines}</div>")


def commands_html(header: str, shown: Iterable[str], full: Iterable[str]) -> str:
    """The short commands under their `export` line, and the full ones one fold away; both can be pasted."""
    style = "style='white-space:pre-wrap;word-break:break-all;margin:2px 0'"
    short = "\n".join([header, *shown] if header else shown)
    return (f"<pre {style}>{escape(short)}</pre><details><summary>exactly what runs</summary>"
            f"<pre {style}>{escape(chr(10).join(full))}</pre></details>")


def in_notebook() -> bool:
    """Whether a Jupyter kernel is running this."""
    shell = sys.modules.get("IPython")
    return bool(shell and getattr(shell.get_ipython(), "kernel", None))


def show(thing: object) -> None:
    """Display in a notebook, print elsewhere."""
    if in_notebook():
        from IPython.display import display
        display(thing)  # type: ignore[no-untyped-call]
    else:
        print(thing, flush=True)


class Live:
    """One place on the screen for a step that takes time: phase, elapsed, usual range, last line.

    In a notebook one display is updated in place; elsewhere a line is printed when there is news, at most
    each five seconds.
    """

    def __init__(self, phase: str, usual: tuple[float, float] | None = None) -> None:
        self.phase, self.usual, self.last = phase, usual, ""
        self._shown, self._handle, self._started = 0.0, None, time.monotonic()

    def __call__(self, elapsed: float, said: str) -> None:
        if said:
            self.last = said
        every = 0.5 if in_notebook() else 5.0
        # A step that ends within the first second needs no progress line.
        if elapsed < 1 or time.monotonic() - self._shown < every:
            return
        self._shown = time.monotonic()
        usual = f", usually {self.usual[0]:g} to {self.usual[1]:g} s" if self.usual else ""
        self._update(f"⏳ {self.phase}: {elapsed:.0f} s{usual}{' · ' + line(self.last)[:160] if self.last else ''}")

    def done(self, seconds: float) -> None:
        """The last word, only if something was shown before."""
        if self._shown:
            self._update(f"✓ {self.phase}: {seconds:.1f} s")

    def _update(self, text: str) -> None:
        if not in_notebook():
            print(text, flush=True)
        else:
            from IPython.display import display
            box = Box(text, (), "unknown")
            if self._handle is None:
                self._handle = display(box, display_id=True)  # type: ignore[no-untyped-call]
            else:
                self._handle.update(box)
