"""How things show themselves: tables, boxes and terminals in a notebook, aligned text everywhere else.

Text from the cluster or a program is escaped here, once: no markup and no terminal control sequence passes.
"""

from __future__ import annotations

import html
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpurunbook.masking import hide

MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?", "": " "}
COLOURS = {"pass": "#218c40", "warn": "#a87100", "fail": "#df3b43", "unknown": "#7a838c"}
"""Middle tones: each has a contrast of 4 or more on white and on JupyterLab's dark ground."""
NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?")
ONE_LINE = 32
"""Characters up to which a cell of a table is never broken, such as a range of versions."""
PRE = ("margin:4px 0;padding:6px 10px;border-radius:4px;background:rgba(127,127,127,.13);"
       "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.9em;line-height:1.45")
TYPED = "display:block;white-space:pre-wrap;word-break:break-all;padding-left:2ch;text-indent:-2ch"
"""Broken at the edge, as a terminal does, and indented below the prompt."""
PROMPT = "<span style='user-select:none;opacity:.5'>$ </span>"
"""It is seen, and not copied with the command."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
                     r"\ufff9-\ufffb\U000e0000-\U000e007f]")
"""All controls but tab and line feed, line separators, marks that turn the writing direction, lone surrogates, and what
takes no room on the screen and would be copied all the same; joiners stay, which some writing and emoji need."""


def clean(text: object) -> str:
    """Text with control and bidirectional-override characters made visible and secrets hidden, safe for a terminal."""
    return CONTROL.sub(lambda m: json.dumps(m[0])[1:-1] if m[0] != "\x7f" else "\\u007f", hide(str(text)))


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
        sides = ["right" if self.rows and all(NUMBER.fullmatch(str(cell)) for cell in column) else "left"
                 for column in zip(*self.rows, strict=True)] or ["left"] * len(self.columns)
        head = "".join(f"<th scope='col' style='text-align:{side}'>{escape(c)}</th>"
                       for c, side in zip(self.columns, sides, strict=True))
        body = ""
        for i, row in enumerate(self.rows):
            state = self.states[i] if self.states else ""
            mark = f"<b style='color:{COLOURS[state]}' title='{state}'>{MARKS[state]}</b> " if state else ""
            cells = [f"<td style='text-align:{side};vertical-align:top;{_breaks(cell)}'>"
                     f"{mark if j == 0 else ''}{escape(cell)}</td>"
                     for j, (cell, side) in enumerate(zip(row, sides, strict=True))]
            body += f"<tr>{''.join(cells)}</tr>"
        caption = (f"<caption style='text-align:left;font-weight:600;padding:2px 6px'>{escape(self.caption)}</caption>"
                   if self.caption else "")
        return (f"<table style='display:block;overflow-x:auto;border:0'>{caption}<thead><tr>{head}</tr></thead>"
                f"<tbody>{body}</tbody></table>")


def _breaks(cell: object) -> str:
    """CSS: a short cell stays on one line; a long one may be broken, a path or a taint's key anywhere."""
    text = str(cell)
    if len(text) <= ONE_LINE:
        return "white-space:nowrap"
    return "min-width:10em;" + ("word-break:break-all" if "/" in text else "overflow-wrap:anywhere")


@dataclass(frozen=True)
class Box:
    """A titled paragraph with a coloured edge: a banner, a note, an instruction.

    `fold`, if given, is a line and what unfolds below it in a notebook.
    """

    title: str
    lines: tuple[str, ...]
    state: str = "unknown"
    fold: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join([clean(self.title), *(f"  {clean(line)}" for line in (*self.lines, *self.fold))])

    def _repr_html_(self) -> str:
        small = "font-size:.9em;opacity:.85"
        lines = "".join(f"<div style='{small}'>{escape(line)}</div>" for line in self.lines)
        if self.fold:
            head, *rest = self.fold
            lines += (f"<details style='{small};margin:0'><summary style='cursor:pointer'>{escape(head)}</summary>"
                      + "".join(f"<div style='padding-left:1.2em'>{escape(line)}</div>" for line in rest) + "</details>")
        return (f"<div style='border-left:4px solid {COLOURS[self.state]};padding:2px 12px;margin:4px 0;line-height:1.45;"
                f"overflow-wrap:anywhere'><b>{escape(self.title)}</b>{lines}</div>")


def banner(title: str, warnings: Sequence[str], target: str, cannot_show: Sequence[str]) -> Box:
    """Where we are, and what this kind of cluster cannot show."""
    head = f"a {target} does not show: " + "; ".join(line.split(":")[0] for line in cannot_show)
    return Box(title, tuple(f"warning: {w}" for w in warnings), "warn" if cannot_show else "pass",
               (head, *cannot_show) if cannot_show else ())


@dataclass(frozen=True)
class Terminal:
    """A line as a person types it, and what was printed below it. Long lines of output scroll: no table is broken.

    `seconds`, if given, says that it ended well, and how long it took.
    """

    command: str
    text: str = ""
    seconds: float | None = None

    def __repr__(self) -> str:
        return "\n".join([f"$ {line(self.command)}", *([clean(self.text.rstrip())] if self.text.strip() else []),
                          *([f"✓ {self.seconds:.1f} s"] if self.seconds is not None else [])])

    def _repr_html_(self) -> str:
        text = (f"<span style='display:block;white-space:pre;overflow-x:auto'>{escape(self.text.rstrip())}</span>"
                if self.text.strip() else "")
        if self.seconds is not None:
            text += f"<b style='display:block;user-select:none;color:{COLOURS['pass']}'>✓ {self.seconds:.1f} s</b>"
        return f"<pre style='{PRE}'><span style='{TYPED}'>{PROMPT}{escape(self.command)}</span>{text}</pre>"


def commands_html(header: str, shown: Iterable[str], full: Iterable[str], fold: str = "exactly what runs") -> str:
    """The short commands under their `export` line, and the full ones one fold away; both can be pasted.

    The `export` line is long and the same everywhere: it takes one line on the screen, and is copied whole.
    """
    cut = "display:block;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;opacity:.65"
    lines = [f"<span style='{cut}'>{PROMPT}{escape(header)}</span>"] if header else []
    lines += [f"<span style='{TYPED}'>{PROMPT}{escape(command)}</span>" for command in shown]
    whole = "".join(f"<span style='{TYPED}'>{PROMPT}{escape(command)}</span>" for command in full)
    return (f"<pre style='{PRE}'>{''.join(lines)}</pre><details><summary style='cursor:pointer;font-size:.9em;opacity:.85'>"
            f"{escape(fold)}</summary><pre style='{PRE}'>{whole}</pre></details>")


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
    each five seconds. `meter` says what it has cost so far, where it costs.
    """

    def __init__(self, phase: str, usual: tuple[float, float] | None = None, meter: Callable[[], str] = str) -> None:
        self.phase, self.usual, self.last, self._meter = phase, usual, "", meter
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
        spent = f", {meter}" if (meter := self._meter()) else ""
        mark = "…" if in_notebook() else "⏳"  # a browser on a plain Linux machine may have no font for emoji
        self._update(f"{mark} {self.phase}: {elapsed:.0f} s{usual}{spent}", self._last())

    def done(self, seconds: float) -> None:
        """The last word, only if something was shown before."""
        if self._shown:
            self._update(f"✓ {self.phase}: {seconds:.1f} s", state="pass")

    def stopped(self, seconds: float) -> None:
        """The last word for a step that failed or was interrupted: no hourglass stays on the screen."""
        if self._shown:
            self._update(f"✗ {self.phase}: stopped after {seconds:.1f} s", self._last(), "fail")

    def _last(self) -> str:
        return line(self.last[:4000])[:160]  # a program may print a line without an end

    def _update(self, text: str, said: str = "", state: str = "unknown") -> None:
        if not in_notebook():
            print(line(f"{text} · {said}" if said else text), flush=True)
        else:
            from IPython.display import display
            box = Box(text, (said,) if said else (), state)
            if self._handle is None:
                self._handle = display(box, display_id=True)  # type: ignore[no-untyped-call]
            else:
                self._handle.update(box)
