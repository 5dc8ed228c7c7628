"""A token as people can read it: nothing invisible, nothing that the charts' font cannot draw."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

WHITESPACE = {" ": "·", "\n": "⏎", "\t": "⇥"}


def show_token(text: str) -> str:
    """A token with nothing invisible left in it.

    Space, newline and tab become · ⏎ ⇥. Characters that would not show, or not be told from these (controls, other
    spaces, marks without a letter, glyphs that the font lacks), become ⟨U+1F984⟩. A byte that is no character on its
    own (Python's surrogateescape) becomes ⟨0xF0⟩.
    """
    shown = ""
    for i, char in enumerate(text):
        code, kind = ord(char), unicodedata.category(char)
        if char in WHITESPACE:
            shown += WHITESPACE[char]
        elif 0xDC80 <= code <= 0xDCFF:
            shown += f"⟨0x{code - 0xDC00:02X}⟩"
        elif kind[0] in "CZ" or char in WHITESPACE.values() or code not in _glyphs() or (kind[0] == "M" and i == 0):
            shown += f"⟨U+{code:04X}⟩"
        else:
            shown += char
    return shown


@cache
def _glyphs() -> frozenset[int]:
    """Code points that DejaVu Sans, which comes with matplotlib, can draw."""
    from matplotlib import font_manager
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


@cache
def _bytes_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes in byte-level vocabularies: printable ones as themselves, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(others)}


def visible(token: dict[str, Any]) -> str:
    """A token's visible text; its bytes where it is only a part of a character."""
    alphabet, spelled = _bytes_alphabet(), str(token.get("token") or "")
    if "�" in token["text"] and spelled and all(char in alphabet for char in spelled):
        return show_token(bytes(alphabet[char] for char in spelled).decode("utf-8", "surrogateescape"))
    return show_token(str(token["text"]))
