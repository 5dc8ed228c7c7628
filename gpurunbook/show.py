"""How things show themselves: tables, boxes and terminals in a notebook, aligned text everywhere else.

Text from the cluster or a program is escaped here, once: no markup and no terminal control sequence passes.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpurunbook.masking import hide

MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?", "": " "}
COLOURS = {"pass": "#218c40", "warn": "#a87100", "fail": "#df3b43", "unknown": "#7a838c"}
"""Middle tones: each has a contrast of 4 or more on white and on JupyterLab's dark ground."""
NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?")
NARROWEST = 12
"""Columns of a terminal below which no column of a table is cut."""
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

    def lines(self, width: int | None = None) -> list[list[str]]:
        """The caption, if there is one, the header and each row as lines: one each, or where that is wider than `width` (in
        columns of a terminal) as many as its longest cell takes when the wide columns share the room.
        """
        head, *rows = [[line(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(map(wide, column)) for column in zip(head, *rows, strict=True)]
        marks = [MARKS[state] + " " for state in self.states] or [""] * len(rows)
        edge = " " * len(marks[0] if marks else "")
        if width is not None:
            widths = _narrowed(widths, width - len(edge) - 2 * (len(widths) - 1))
        made = [[line(self.caption)]] if self.caption else []
        for mark, row in zip([edge, *marks], [head, *rows], strict=True):
            cells = [wrapped(cell, most) for cell, most in zip(row, widths, strict=True)]
            deep = max(map(len, cells))
            made.append([((edge if i else mark) + "  ".join(
                (part := cell[i] if i < len(cell) else "") + " " * (most - wide(part))
                for cell, most in zip(cells, widths, strict=True))).rstrip() for i in range(deep)])
        return made

    def __repr__(self) -> str:
        # A person's terminal is only so wide; in a log or a file a row is a line, which can be searched.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        return "\n".join(one for lines in self.lines(width) for one in lines)

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
        return grid(escape(self.caption), f"<thead><tr>{head}</tr></thead>", body)


def grid(caption: str, head: str, body: str) -> str:
    """HTML of a table that scrolls where it is too wide, of parts that are HTML already; `caption` and `head` may be empty."""
    above = f"<caption style='text-align:left;font-weight:600;padding:2px 6px'>{caption}</caption>" if caption else ""
    return f"<table style='display:block;overflow-x:auto;border:0'>{above}{head}<tbody>{body}</tbody></table>"


def wide(text: str) -> int:
    """Columns that a text takes on a terminal: two for a Chinese character, none for a mark above a letter."""
    from rich.cells import cell_len
    return len(text) if text.isascii() else cell_len(text)


def wrapped(text: str, most: int) -> list[str]:
    """The text in lines of at most so many columns, broken between words, and inside one that is longer than a line."""
    lines: list[str] = []
    now = ""
    for word in re.findall(r"\S+\s*|\s+", text):
        if now and wide(now + word.rstrip()) > most:
            lines, now = [*lines, now.rstrip()], ""
        for letter in word if wide(word.rstrip()) > most else [word]:
            if wide((now + letter).rstrip()) > most and now:
                lines, now = [*lines, now], ""
            now += letter
    return [*lines, now.rstrip()]


def _narrowed(widths: list[int], room: int) -> list[int]:
    """Widths whose sum is at most `room`, where that can be: the widest are cut to the same, none below NARROWEST."""
    cap = min(max(widths, default=0), max(room, NARROWEST))
    while sum(min(width, cap) for width in widths) > room and cap > NARROWEST:
        cap -= 1
    return [min(width, cap) for width in widths]


def _breaks(cell: object) -> str:
    """CSS: a short cell stays on one line; a long one may be broken, a path or a taint's key anywhere."""
    text = str(cell)
    if len(text) <= ONE_LINE:
        return "white-space:nowrap"
    return "min-width:10em;" + ("word-break:break-all" if "/" in text else "overflow-wrap:anywhere")


@dataclass(frozen=True)
class Box:
    """A titled paragraph with a coloured edge: a banner, a note, an instruction.

    `fold`, if given, is a line and what unfolds below it in a notebook. `links` are (text, address) pairs.
    """

    title: str
    lines: tuple[str, ...]
    state: str = "unknown"
    fold: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        links = [text if address in text else f"{text}: {address}" for text, address in self.links]
        return "\n".join([clean(self.title), *(f"  {clean(line)}" for line in (*self.lines, *self.fold, *links))])

    def _repr_html_(self) -> str:
        small = "font-size:.9em;opacity:.85"
        lines = "".join(f"<div style='{small}'>{escape(line)}</div>" for line in self.lines)
        if self.fold:
            head, *rest = self.fold
            lines += (f"<details style='{small};margin:0'><summary style='cursor:pointer'>{escape(head)}</summary>"
                      + "".join(f"<div style='padding-left:1.2em'>{escape(line)}</div>" for line in rest) + "</details>")
        if self.links:
            lines += f"<div>{' · '.join(link(*one) for one in self.links)}</div>"
        return framed(COLOURS[self.state], self.title, lines)


def framed(colour: str, title: str, inside: str) -> str:
    """HTML with a coloured edge: a title as text, and below it what is HTML already."""
    return (f"<div style='border-left:4px solid {colour};padding:2px 12px;margin:4px 0;line-height:1.45;overflow-wrap:anywhere'>"
            f"<b>{escape(title)}</b>{inside}</div>")


def link(text: str, address: str) -> str:
    """HTML of a link, from text."""
    return f"<a href='{escape(address)}'>{escape(text)}</a>"


@dataclass(frozen=True)
class Fold:
    """What only some readers want, a click away in a notebook: named parts, each a text of any length."""

    title: str
    parts: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        """A line for each part: of a text that has several, how many."""
        told = [(name, text if len(text.splitlines()) <= 1 else f"{len(text.splitlines())} lines") for name, text in self.parts]
        return "\n".join([line(self.title), *(f"  {line(name)}: {line(text)}" for name, text in told)])

    def _repr_html_(self) -> str:
        block = f"{PRE};display:block;white-space:pre-wrap;overflow-wrap:anywhere;max-height:24em;overflow-y:auto"
        parts = "".join(f"<div style='padding-left:1.2em'>{escape(name)}: <code>{escape(text)}</code></div>"
                        if len(text.splitlines()) <= 1 else
                        f"<div style='padding-left:1.2em'>{escape(name)}:<pre style='{block}'>{escape(text)}</pre></div>"
                        for name, text in self.parts)
        return (f"<details style='font-size:.9em;margin:4px 0'><summary style='cursor:pointer'>{escape(self.title)}</summary>"
                f"{parts}</details>")


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
        from gpurunbook import live  # shows itself with what is here
        with live.lifted():
            print(thing, flush=True)
