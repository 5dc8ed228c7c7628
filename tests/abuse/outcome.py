"""What became of one hostile input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

How = Literal["refused", "literal", "violation"]


@dataclass(frozen=True)
class Outcome:
    """One input that was tried.

    Attributes:
        family: the module that tried it.
        name: the input, short; shown only where it did harm.
        how: refused (an error of ours, and nothing begun), literal (it arrived as it was given, and as data), or
            violation (a traceback, markup, a command, a path outside, a secret shown, or no end).
        evidence: what was seen; a violation says enough to begin a search.
    """

    family: str
    name: str
    how: How
    evidence: str = ""
