"""What main.py may answer: sizes, types, ranges and sums, checked before anything else uses it.

The pod is not trusted: its image may be another, and so may its main.py. Names are plain text of one line; the text of a
token may be anything that Unicode has, and is made visible where it is shown (gpurunbook.tokens, gpurunbook.show).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gpurunbook.show import CONTROL

SCHEMA = "gpurunbook/next-token/1"
LARGEST = 16 * 2**20
"""Bytes: 200 times the answer to the longest prompt with a thousand tokens; more is never parsed."""
SLACK = 1e-6
"""What sums and logarithms of floats may be off."""


def _plain(text: str) -> str:
    if CONTROL.search(text) or "\n" in text or "\t" in text:
        raise ValueError("it has control characters")
    return text


def _whole(parts: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(parts)
    if len(found) < len(parts):
        raise ValueError("a name stands twice in one object")
    return found


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
Text = Annotated[str, Field(max_length=10_000)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,40}$")]
"""Goes into a file's name and into a chart."""
Number = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
P = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())


class _Token(_Strict):
    id: Count
    text: Text
    token: Text | None


class _Likely(_Token):
    p: P
    logp: Annotated[float, Field(le=0, allow_inf_nan=False)]
    p_in: dict[Word, P] = Field(default_factory=dict, max_length=10)


class _Arm(_Strict):
    precision: Word
    dtype: Word
    top: Annotated[list[_Likely], Field(min_length=1, max_length=1000)]
    top_mass: Annotated[float, Field(ge=0, le=1 + SLACK, allow_inf_nan=False)]
    entropy_bits: Annotated[float, Field(ge=-SLACK, le=64, allow_inf_nan=False)]
    linear_layers: dict[Name, Count] = Field(max_length=100)
    load_seconds: Number
    first_seconds: Number
    weight_bytes: Count  # that a pass reads: of an embedding that is not the output layer too, the prompt's rows
    peak_memory_bytes: Count
    logits_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    warm_up: Count
    samples_ms: Annotated[list[Number], Field(max_length=1_000_000)]


class _Answer(_Strict):
    schema_: Literal["gpurunbook/next-token/1"] = Field(alias="schema")
    prompt: Annotated[str, Field(min_length=1, max_length=10_000)]
    prompt_tokens: Annotated[list[_Token], Field(min_length=1, max_length=100_000)]
    model: Name
    vocab_size: Annotated[int, Field(ge=1, le=10_000_000)]
    revision: Name | None
    versions: dict[Name, Name] = Field(max_length=100)
    device: Name
    device_memory_bytes: Count | None = None
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,2}\.\d{1,2}$")] | None = None
    copy_bytes_per_second: Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)] | None = None
    arms: Annotated[list[_Arm], Field(min_length=1, max_length=10)]


def parse(line: bytes, asked: Mapping[str, str]) -> dict[str, Any]:
    """The answer of one line.

    Args:
        asked: main.py's options, such as {"top": "10"}; the answer has to be to this question.

    Raises:
        ValueError: what is wrong with it, and where in it; nothing of its content.
    """
    if len(line) > LARGEST:
        raise ValueError(f"{len(line):,} bytes in one line, and at most {LARGEST:,} are read")
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_refused, object_pairs_hook=_whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start:,} of it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos:,}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    check(found)
    answers(found, asked)
    return dict(found)


def check(found: Any) -> None:
    """Raises ValueError when it is not what main.py prints; a saved one may have `p_in`."""
    try:
        _Answer.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # A name out of the answer may be anything.
        where = ".".join(ascii(part)[1:-1][:40] if isinstance(part, str) else str(part) for part in first["loc"])
        raise ValueError(f"{where or 'the whole'}: {first['msg'].removeprefix('Value error, ')}") from None
    vocabulary, precisions = found["vocab_size"], [arm["precision"] for arm in found["arms"]]
    _need(len(set(precisions)) == len(precisions), "arms", "a precision stands there twice")
    _need(all(token["id"] < vocabulary for token in found["prompt_tokens"]), "prompt_tokens", "an id beyond the vocabulary")
    for i, arm in enumerate(found["arms"]):
        ids, ps = [token["id"] for token in arm["top"]], [token["p"] for token in arm["top"]]
        where = f"arms.{i}.top"
        _need(all(one < vocabulary for one in ids), where, "an id beyond the vocabulary")
        _need(len(set(ids)) == len(ids), where, "a token stands there twice")
        _need(ps == sorted(ps, reverse=True), where, "not sorted by p")
        _need(sum(ps) <= 1 + SLACK, where, "the probabilities add up to more than 1")
        _need(all(math.isclose(math.exp(t["logp"]), t["p"], abs_tol=SLACK) for t in arm["top"]), where, "p is not exp(logp)")
        _need(math.isclose(arm["top_mass"], sum(ps), abs_tol=SLACK), f"arms.{i}.top_mass", "not the sum of p")


def answers(found: Mapping[str, Any], asked: Mapping[str, str]) -> None:
    """Raises ValueError when it is the answer to another question."""
    if "prompt" in asked:
        _need(found["prompt"] == asked["prompt"], "prompt", "not the one that was asked")
    if "precisions" in asked:
        _need([arm["precision"] for arm in found["arms"]] == asked["precisions"].split(","), "arms", "not the precisions asked")
    for option, key in (("top", "top"), ("repetitions", "samples_ms")):
        if option in asked:
            for i, arm in enumerate(found["arms"]):
                _need(len(arm[key]) == int(asked[option]), f"arms.{i}.{key}", f"{len(arm[key])} of {asked[option]} asked for")


def _need(good: bool, where: str, wrong: str) -> None:
    if not good:
        raise ValueError(f"{where}: {wrong}")
