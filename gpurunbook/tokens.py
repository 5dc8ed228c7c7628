"""A token as people can read it: nothing invisible, nothing that the charts' font cannot draw, nothing that reads as markup."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

WHITESPACE = {" ": "·", "\n": "⏎", "\t": "⇥"}
OURS = frozenset("·⏎⇥⟨⟩")
"""What marks something here. In a token itself they are escaped, or a token could look like another."""
MARKS = 2
"""Marks on one letter that are drawn; more would pile up over the lines above."""
BLANK = frozenset((0x034F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)))
"""Letters, marks and symbols that have no ink: fillers, variation selectors, the empty braille cell."""
BYTE = re.compile("<0x([0-9A-F]{2})>")
"""A byte, as SentencePiece spells it."""
WORD = "▁"
"""SentencePiece's space before a word, which decoding a single token drops."""


def show_token(text: str) -> str:
    """A token with nothing invisible left in it.

    Space, newline and tab become · ⏎ ⇥. Characters that would not show, or not be told from these (controls, other
    spaces, marks without a letter, glyphs that the font lacks), become ⟨U+1F984⟩. A byte that is no character on its
    own (Python's surrogateescape) becomes ⟨0xF0⟩.
    """
    return "".join(WHITESPACE.get(char, "") or _shown(text, i) for i, char in enumerate(text))


def drawable(text: str) -> str:
    """Any other text that goes into a chart, such as a model's name: spaces stay, and · is a dot."""
    return "".join(char if char in {" ", *OURS} else _shown(text, i) for i, char in enumerate(text))


def _shown(text: str, i: int) -> str:
    char, code, kind = text[i], ord(text[i]), unicodedata.category(text[i])
    if 0xDC80 <= code <= 0xDCFF:
        return f"⟨0x{code - 0xDC00:02X}⟩"
    if kind[0] in "CZ" or char in OURS or code not in _glyphs() or code in BLANK or (kind[0] == "M" and _loose(text, i)):
        return f"⟨U+{code:04X}⟩"
    return char


def _loose(text: str, i: int) -> bool:
    """Whether a mark has no drawn letter or digit that carries it, or is one too many."""
    carriers = text[max(0, i - MARKS):i]
    while carriers and unicodedata.category(carriers[-1])[0] == "M":
        carriers = carriers[:-1]
    return not carriers or unicodedata.category(carriers[-1])[0] not in "LN" or ord(carriers[-1]) not in _glyphs()


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
    """A token's visible text; its bytes where it is only a part of a character, its id where it has no text at all."""
    alphabet, spelled, text = _bytes_alphabet(), str(token.get("token") or ""), str(token["text"])
    if "�" in text and (byte := BYTE.fullmatch(spelled)):
        return f"⟨0x{byte[1]}⟩"
    if "�" in text and spelled and all(char in alphabet for char in spelled):
        return show_token(bytes(alphabet[char] for char in spelled).decode("utf-8", "surrogateescape"))
    if not text:  # a vocabulary is padded beyond its tokens, and some have no text of their own
        return show_token(spelled.replace(WORD, " ")) or f"⟨id {token['id']}⟩"
    return show_token(" " * (spelled.startswith(WORD) and not text.startswith(" ")) + text)
