"""What comes out of the pod: answers of main.py, what the pod says of itself, and endless output."""

from __future__ import annotations

import copy
import json
import math
import random
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

from gpurunbook import command, show
from gpurunbook.command import Command, Result
from gpurunbook.errors import RunbookError
from gpurunbook.stages import answer as answers
from gpurunbook.stages import in_pod, next_token
from gpurunbook.tokens import visible
from tests import answer
from tests.abuse.outcome import Outcome
from tests.abuse.texts import MARKUP, TERMINAL, harmless, made

BAD: tuple[Any, ...] = (
    None, True, -1, 2, 1e308, float("nan"), float("inf"), float("-inf"), 10**400, 2**63, -0.5, 1.5, "", "x", "1", [], {}, [[]],
    {"a": 1},
    "../../x", "/etc/passwd", "x" * 100_001, *MARKUP[:4], *TERMINAL)
LIMIT = 5.0
"""Seconds for one input."""


def attack(seed: int) -> Iterator[Outcome]:
    dice = random.Random(seed)
    yield from _answers(dice)
    yield from _places(dice)
    yield from _endless()


def _result(raw: bytes) -> Result:
    asked = Command(("kubectl", "exec", "p", "--", "python", f"--prompt={answer.PROMPT}", "--top=3", "--precisions=int8",
                     "--repetitions=0", "--sentinel=end-1"), why="w", limit=1, data=True)
    return Result(asked, 0, raw + b"\nend-1", "", 1.0)


def _answers(dice: random.Random) -> Iterator[Outcome]:
    good = answer.answer()
    if next_token.read(_result(json.dumps(good).encode()))["arms"][0]["top"][0]["id"] != 7:
        yield Outcome("answers", "the good answer", "violation", "it is not read")
    for path in list(_paths(good)):
        for bad in (*BAD, made(dice)):
            yield _answer(f"{'.'.join(map(str, path))} = {bad!r:.60}", json.dumps(_with(good, path, bad)).encode(), path, bad)
        yield _answer(f"{path} is absent", json.dumps(_with(good, path)).encode(), path, None)
    for spoil in _spoilt():
        yield _answer(spoil[:60].decode("latin-1"), spoil, (), None)
    text = json.dumps(good)
    for _ in range(300):  # a few bytes changed
        raw = bytearray(text.encode())
        for _ in range(dice.randrange(1, 4)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        yield _answer("bytes changed", bytes(raw), (), None)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, below in inner:
        yield from _paths(below, (*at, key))


def _with(good: dict[str, Any], path: tuple[Any, ...], *bad: Any) -> dict[str, Any]:
    """The answer with another value at one place, or without it."""
    spoilt = copy.deepcopy(good)
    place: Any = spoilt
    for key in path[:-1]:
        place = place[key]
    if bad:
        place[path[-1]] = bad[0]
    else:
        del place[path[-1]]
    return spoilt


def _spoilt() -> Iterator[bytes]:
    good = answer.answer()
    text = json.dumps(good)
    top = good["arms"][0]["top"]

    def arm(**changes: Any) -> bytes:
        return json.dumps({**good, "arms": [{**good["arms"][0], **changes}]}).encode()

    yield from (b"", b"{", b"{}", b"[]", b"null", b"{" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"[" * 500_000,
                b'{"arms":' + b"9" * 500_000 + b"}",
                b'{"\xff": 1}', b"{" + b"\x00" * 1000 + b"}", text.encode("utf-16"), text.encode()[:-1], text.encode() + b"}",
                b'{"x":"' + b"y" * (answers.LARGEST + 1) + b'"}', text.replace("0.5", "NaN", 1).encode(),
                text.replace("0.5", "1e999", 1).encode(),
                text.replace("0.5", "-Infinity", 1).encode(), text.replace("0.5", "0.5" + "0" * 5000, 1).encode()[:4000],
                text.replace('"vocab_size"', '"vocab_size": 1, "vocab_size"').encode(), text.replace("land0", "\\ud800").encode(),
                text.replace("land0", "\xff").encode("latin-1"))
    yield arm(top=top[::-1])
    yield arm(top=[*top, top[0]])
    yield arm(top=top[:2], top_mass=0.7)
    yield arm(top=[{**t, "p": 0.9, "logp": math.log(0.9)} for t in top], top_mass=2.7)
    yield arm(top=[{**t, "p": 0.9, "logp": math.log(0.9)} for t in top], top_mass=1.0)
    yield arm(top=[{**t, "logp": -9.0} for t in top])
    yield arm(top=[{**t, "id": 7} for t in top])
    yield arm(top=[{**t, "id": 49152 + i} for i, t in enumerate(top)])
    yield arm(top_mass=0.1)
    yield arm(samples_ms=[1.0])
    yield arm(samples_ms=[-1.0] * 9)
    yield arm(precision="../../../../tmp/x")
    yield arm(precision="nf4")
    yield json.dumps({**good, "arms": good["arms"] * 2}).encode()
    yield json.dumps({**good, "prompt": "another"}).encode()
    yield json.dumps({**good, "schema": "gpurunbook/next-token/2"}).encode()
    yield json.dumps({**good, "more": "x"}).encode()


def _answer(name: str, raw: bytes, path: tuple[Any, ...], bad: Any) -> Outcome:
    """Refused with where and what; or its text is a token's, which is shown as harmless text wherever it goes."""
    began = time.monotonic()
    try:
        found = next_token.read(_result(raw))
    except RunbookError as error:
        slow, said = time.monotonic() - began > LIMIT, str(error)
        if slow or len(said) > 1000 or not harmless(show.clean(said)) or "cannot be used: " not in said:
            return Outcome("answers", name, "violation", said[:300])
        return Outcome("answers", name, "refused", said[:200])
    except Exception as error:
        return Outcome("answers", name, "violation", f"{type(error).__name__}: {str(error)[:200]}")
    if not _may_be(found, path, bad):
        return Outcome("answers", name, "violation", "it was taken for an answer")
    shown = "".join(visible(t) for t in (*found["prompt_tokens"], *found["arms"][0]["top"]))
    saved = show.clean(json.dumps(found, ensure_ascii=False))
    if not (harmless(shown) and harmless(saved) and json.loads(saved) == found):
        return Outcome("answers", name, "violation", shown[:200])
    return Outcome("answers", name, "literal", shown[:80])


def _may_be(found: dict[str, Any], path: tuple[Any, ...], bad: Any) -> bool:
    """Whether an answer that was taken is one: numbers in their ranges, names that are plain, sums that are right."""
    arm = found["arms"][0]
    ps, names = [t["p"] for t in arm["top"]], [found["model"], found["device"], *found["versions"], *found["versions"].values(),
                                               found["revision"] or "", arm["precision"], arm["dtype"], *arm["linear_layers"]]
    return (all(0 <= p <= 1 for p in ps) and ps == sorted(ps, reverse=True) and sum(ps) <= 1 + 1e-6 and len(ps) == 3
            and all(type(t["id"]) is int and 0 <= t["id"] < found["vocab_size"] for t in arm["top"])
            and all(harmless(name) and "\n" not in name and len(name) <= 200 for name in names) and "/" not in arm["precision"]
            and all(math.isfinite(arm[key]) and arm[key] >= 0 for key in ("load_seconds", "first_seconds", "top_mass"))
            and found["prompt"] == answer.PROMPT)


def _places(dice: random.Random) -> Iterator[Outcome]:
    """What the pod says of itself, before main.py is copied."""
    good: dict[str, Any] = {"digest": "", "tar": True, "folder": True, "writable": True, "user": 0, "owner": 0, "read_only": ""}
    for key in good:
        for bad in (*BAD, made(dice)):
            raw = json.dumps({**good, key: bad}).encode()
            try:
                place = in_pod.place(_result(raw))
                table = in_pod.table(place, "x")
                told = str(in_pod.unwritable(place, "p", "/f"))
            except RunbookError as error:
                yield Outcome("answers", f"{key} = {bad!r:.60}", "refused", str(error)[:200])
                continue
            except Exception as error:
                yield Outcome("answers", f"{key} = {bad!r:.60}", "violation", f"{type(error).__name__}: {str(error)[:200]}")
                continue
            good_type = type(bad) is type(good[key])
            yield Outcome("answers", f"{key} = {bad!r:.60}", "literal" if good_type and harmless(repr(table) + show.clean(told))
                          else "violation", repr(table)[:200])


def _endless() -> Iterator[Outcome]:
    """A gigabyte, with and without lines, on either stream: it is ended, and not kept."""
    line = "x" * 1000
    for stream in ("stdout", "stderr"):
        for end in ("\\n", ""):
            script = f"import sys\nfor _ in range(10**6): sys.{stream}.write('{line}{end}')"
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            name = f"1 GB on {stream}{' without lines' * (not end)}"
            try:
                command.run(Command((sys.executable, "-c", script), why="w", limit=60, data=True), env=command.environment({}))
            except RunbookError as error:
                grown, seconds = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, time.monotonic() - began
                good = "MiB of output" in str(error) and len(str(error)) < 50_000 and grown < 600 and seconds < 30
                yield Outcome("answers", name, "refused" if good else "violation",
                    f"{grown:.0f} MiB more, {seconds:.1f} s, {str(error)[:100]}")
            else:
                yield Outcome("answers", name, "violation", "it was all taken")


