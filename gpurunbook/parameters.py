"""What may be given to a notebook as a parameter: names that it declares, values of the declared type, within bounds.

papermill only warns about an unknown name, and runs a hostile one as code. So `gpurunbook run -p` is checked here before
papermill sees it; and the notebook itself asks once more (cells.py), for whoever calls papermill by himself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpurunbook import notebooks, show, stages
from gpurunbook.config import NAME
from gpurunbook.deployment import REFERENCE
from gpurunbook.errors import ConfigError

OURS = ("run_id", "target", "cluster_file")
"""Parameters that the command line sets by its own options."""
OF_THE_WALK = {"allow_modified": False}
"""Parameters that are for the walk alone, and no notebook's; with their defaults."""
LONGEST, LARGEST = 10_000, 1_000_000
"""Most characters of a text parameter, and the largest number."""
NO_TEXT, NOT_ONE_LINE = re.compile("[\0\ud800-\udfff]"), re.compile(rf"[\t\n]|{show.CONTROL.pattern}")
"""What no argument of a program can hold; and what only a prompt may hold: it goes through as it is, and is shown escaped."""
PRECISIONS = {"int8", "nf4", "bf16", "fp16", "fp32", "reference"}
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt": (bool, "text, not empty"),
    "top": (lambda v: 1 <= v <= 1000, "a number from 1 to 1000"),
    "repetitions": (lambda v: v >= 1, "a number from 1"),
    "weights": (lambda v: v in ("image", "volume"), "image or volume"),
    "selector": (lambda v: not v or bool(re.fullmatch(r"([\w./-]+=[\w.-]*)(,[\w./-]+=[\w.-]*)*", v)), "KEY=VALUE"),
    "precisions": (lambda v: bool(names := v.split(",")) and set(names) <= PRECISIONS and len(set(names)) == len(names),
                   f"some of {', '.join(sorted(PRECISIONS))}, with commas, each once"),
    "image": (lambda v: not v or bool(REFERENCE.fullmatch(v)), "an image's name, such as registry/path:tag"),
    "account_check": (lambda v: not v or bool(NAME.fullmatch(v)), "a cluster's name: letters, digits and hyphens"),
    "pace": (lambda v: v in ("instant", "real") or bool(re.fullmatch(r"\d{1,2}(\.\d{1,9})?|\.\d{1,9}", v)),
             "instant, real, or how much of real time, such as 0.1"),
}
"""What the stages and main.py would refuse, said before a cluster is made for it."""


def parameters(root: Path) -> dict[str, dict[str, Any]]:
    """Stage -> the literals of its notebook's `parameters` cell."""
    return {stage: notebooks.declared(notebooks.path(root, stage)) for stage in stages.NAMES}


def check_parameters(root: Path, given: Sequence[str]) -> dict[str, Any]:
    """Turn NAME=VALUE texts into values of the type that the parameters cell has.

    Raises:
        ConfigError: no such parameter, or a value of the wrong type or out of bounds.
    """
    known = OF_THE_WALK | {name: value for cell in parameters(root).values() for name, value in cell.items()
                           if name not in OURS}
    values = {}
    for text in given:
        name, equals, raw = text.partition("=")
        if not equals or name not in known:
            close = difflib.get_close_matches(name[:100], known, 1)
            raise ConfigError(f"unknown parameter {_short(name)}" if equals else f"{_short(text)} is not NAME=VALUE", where="-p",
                              next=f"did you mean {close[0]}?" if close else f"one of: {', '.join(sorted(known))}")
        values[name] = _typed(name, raw, known[name])
        if expected := problem(name, values[name], known[name]):
            raise ConfigError(f"parameter {name} is {_short(raw)}", where="-p", next=f"give {expected}")
    return values


def problem(name: str, value: Any, default: Any) -> str:
    """What is expected instead of a value; "" when it is good."""
    kind = type(default)
    if type(value) is not kind and not (kind is float and type(value) is int):
        return f"{'text' if kind is str else f'a value like {default!r} ({kind.__name__})'}, not {type(value).__name__}"
    if kind in (int, float) and not 0 <= value <= LARGEST:
        return f"a number from 0 to {LARGEST:,}"
    if kind is str:
        if len(value) > LONGEST:
            return f"text of at most {LONGEST:,} characters"
        if name == "prompt":
            if NO_TEXT.search(value):
                return "text without NUL, in UTF-8"
        elif NOT_ONE_LINE.search(value):
            return "text on one line, without control characters"
    good, expected = RULES.get(name, (lambda v: True, ""))
    return "" if good(value) else expected


def _typed(name: str, raw: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[raw.lower()]
        value = type(default)(raw)
        if len(raw) > LONGEST or (isinstance(value, int | float) and not 0 <= value <= LARGEST):
            raise ValueError(raw)
        return value
    except (KeyError, ValueError):
        raise ConfigError(f"parameter {name} is {_short(raw)}", where="-p", next=f"give a value like {default!r} "
                          f"({type(default).__name__}); numbers up to {LARGEST:,}, text up to {LONGEST:,}") from None


def _short(raw: str) -> str:
    return repr(raw if len(raw) < 80 else f"{raw[:60]}... ({len(raw):,} characters)")
