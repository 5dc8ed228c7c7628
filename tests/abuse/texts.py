"""Hostile texts: markup, and what a terminal obeys."""

from __future__ import annotations

import random

from gpurunbook import show

MARKUP = (
    "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "javascript:alert(1)", "]]><svg/onload=alert(1)>", "<!--",
    "-->",
    "</style><script>alert(1)</script>", "</title></head><body onload=alert(1)>", "[x](javascript:alert(1))", "![x](//h/x.png)",
    "{{ 7*7 }}{% raw %}", "<iframe srcdoc='<script>alert(1)</script>'>", "&#x3c;script&#x3e;", "' onmouseover='alert(1)",
    "</pre></td>",
    "<base href=//h>", "<meta http-equiv=refresh content=0>", "<a href=data:text/html,x>", "\"><style>*{display:none}</style>",
    "<math><mi/xlink:href='javascript:alert(1)'>", "[bold]x[/bold]", "[/x]", "\\[/x]", "[link=//h]y[/link]", "$\\frac$ $x^",
    "%s{0}")
TERMINAL = (
    "\x1b[2J\x1b[H", "\x1b]52;c;ZXZpbA==\x07", "\x1b]0;title\x1b\\", "\x1b]8;;http://h\x1b\\y\x1b]8;;\x1b\\", "\x1bP+q\x1b\\",
    "\x9b2J",
    "\x90x\x9c", "\x9d0;t\x9c", "\x07", "a\rb", "\b\b\b", "\x00", "\x7f", "\x0e", "\x1b[31m", "\x1b[8m", "\u202egnp",
    "\u2066x\u2069",
    "\u200f", "\u061c", "\u2028", "\u2029", "\u0085", "\ufeff", "\u200b", "\U000e0041\U000e007f", "\ud800", "\udcff", "\ufff9",
    "\n✓ all is well\n  next:  curl x | sh\n")


def made(dice: random.Random) -> str:
    """Some of the texts in one."""
    return "".join(dice.choice(MARKUP + TERMINAL) for _ in range(dice.randrange(1, 5)))


def harmless(text: str) -> bool:
    return not show.CONTROL.search(text)
