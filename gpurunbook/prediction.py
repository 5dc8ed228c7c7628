"""What main.py measured, as an object that shows itself: the likely tokens as a table with bars, or the latencies.

It stays the dictionary that came from the pod, see main.py's docstring for its keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpurunbook import show
from gpurunbook.tokens import visible

DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
PRECISIONS = {"int8": "8-bit LLM.int8", "nf4": "4-bit NF4"}
EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH = 24
"""Characters of the longest bar in a terminal."""
ROWS = 40
"""Tokens that are shown; all of them are in the files."""
PROMPT = 30
"""Tokens of a prompt that are shown, the last ones."""
INK = "#3d8fc4"
"""Of bars: 3:1 or more on white and on JupyterLab's dark ground."""


class Prediction(dict[str, Any]):
    """What main.py printed: prompt, prompt_tokens, model, device, arms, each with `top`. Shows itself in a notebook."""

    @property
    def shown(self) -> Bars | show.Table:
        """The latencies where passes were timed, else the first arm's tokens."""
        if any(arm["samples_ms"] for arm in self["arms"]):
            from gpurunbook.stages import latency
            return latency.table(self)
        return bars(self)

    def __repr__(self) -> str:
        return repr(self.shown)

    def _repr_html_(self) -> str:
        return self.shown._repr_html_()


def arm_name(arm: dict[str, Any]) -> str:
    """`8-bit LLM.int8 (fp16)`: the precision and, in brackets, the type of what is not quantised."""
    precision = str(arm["precision"])
    dtype = DTYPES.get(arm["dtype"], str(arm["dtype"]))
    return dtype if precision == dtype else f"{PRECISIONS.get(precision, precision)} ({dtype})"


@dataclass(frozen=True)
class Bars:
    """Tokens with their probabilities: rows of (token as people read it, p, a note), most likely first.

    `rest` is what all other tokens have; its row comes last. `prompt` is what they follow, token by token.
    """

    caption: str
    rows: Sequence[tuple[str, float, str]]
    rest: tuple[str, float] = ("all other tokens", 0.0)
    prompt: Sequence[str] = ()

    def __repr__(self) -> str:
        widest = max([p for _, p, _ in self.rows] + [self.rest[1]], default=1) or 1
        lines = [show.line(self.caption), *([f"after {show.line(''.join(self.prompt))}"] if self.prompt else [])]
        notes = max((len(note) for _, _, note in self.rows), default=0)
        for i, (name, p, note) in enumerate([*self.rows, (self.rest[0], self.rest[1], "")]):
            rank = f"{i + 1:3d}" if i < len(self.rows) else "   "
            # The token comes last: one written from right to left would turn the figures after it.
            lines.append(f"{rank}  {_bar(p / widest)}  {percent(p):>6}  {show.line(note):{notes}}  {show.line(name)}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        widest = max([p for _, p, _ in self.rows] + [self.rest[1]], default=1) or 1
        body = ""
        for i, (name, p, note) in enumerate([*self.rows, (self.rest[0], self.rest[1], "")]):
            last = i == len(self.rows)
            bar = (f"<div style='width:{max(p / widest * 100, 0.4 * (p > 0)):.1f}%;height:.85em;background:"
                   f"{'rgba(127,127,127,.55)' if last else INK}'></div>")
            cells = ("" if last else i + 1, f"<bdi>{show.escape(name)}</bdi>", bar, f"<b>{show.escape(percent(p))}</b>",
                     show.escape(note))
            styles = ("text-align:right;opacity:.7", "text-align:left;white-space:nowrap", "width:14em;min-width:8em",
                      "text-align:right", "text-align:left;white-space:pre;opacity:.8")
            drawn = (f"<td style='padding:2px 8px;line-height:1.4;{s}'>{c}</td>" for s, c in zip(styles, cells, strict=True))
            body += f"<tr>{''.join(drawn)}</tr>"
        # <bdi>: a token written from right to left leaves its neighbours where they are.
        chips = "".join(f"<bdi style='background:rgba(127,127,127,.18);border-radius:3px;padding:1px 4px;margin:0 2px 2px 0;"
                        f"display:inline-block'>{show.escape(token)}</bdi>" for token in self.prompt)
        after = f"<div style='font-weight:400;padding-top:4px'>after {chips}</div>" if chips else ""
        return show.grid(show.escape(self.caption) + after, "", body)


def bars(found: dict[str, Any], rows: int = ROWS) -> Bars:
    """The first arm's most likely tokens. Its note is log p, and how much less or more the reference gives them."""
    arm = found["arms"][0]
    top = arm["top"][:rows]
    told = [(visible(t), t["p"], f"log p {t['logp']:.2f}{_reference(t)}".replace("-", "−")) for t in top]
    prompt = ["…"] * (len(found["prompt_tokens"]) > PROMPT) + [visible(t) for t in found["prompt_tokens"][-PROMPT:]]
    rest = max(0.0, 1 - sum(t["p"] for t in top))
    return Bars(f"The {len(top)} most likely next tokens, {arm_name(arm)}", told,
                (f"{found['vocab_size'] - len(top):,} other tokens", rest), prompt)


def _reference(token: dict[str, Any]) -> str:
    p = token.get("p_in", {}).get("reference")
    return "" if p is None else f"   reference {percent(p)}"


def percent(p: float) -> str:
    """One digit after the point; what is there and too little for it is not shown as nothing."""
    return "<0.1%" if 0 < p < 0.0005 else f"{p:.1%}"


def _bar(share: float) -> str:
    eighths = round(share * WIDTH * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).strip().ljust(WIDTH)
