"""What comes out of the pod and the cluster: answers of main.py, endless output, and text on every way to a person's eyes."""

from __future__ import annotations

import copy
import json
import math
import os
import pty
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

from gpurunbook import command, report, show
from gpurunbook.command import Command, Result
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal
from gpurunbook.plan import Check, Checks, Plan
from gpurunbook.stages import answer as answers
from gpurunbook.stages import in_pod, next_token
from tests import answer
from tests.abuse.outcome import Outcome

FAMILY = "output"
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
BAD: tuple[Any, ...] = (
    None, True, -1, 2, 1e308, float("nan"), float("inf"), float("-inf"), 10**400, 2**63, -0.5, 1.5, "", "x", "1", [], {}, [[]],
    {"a": 1},
    "../../x", "/etc/passwd", "x" * 100_001, *MARKUP[:4], *TERMINAL)
LIMIT = 5.0
"""Seconds for one input."""
TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Tags(HTMLParser):
    """Every element of a page with the names of its attributes, and the values that a browser would follow or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, ...]] = []
        self.followed: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, *(name for name, _ in attrs)))
        self.followed += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "style",
    "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        self.seen.append((f"/{tag}",))


def attack(seed: int) -> Iterator[Outcome]:
    dice = random.Random(seed)
    yield from _answers(dice)
    yield from _places(dice)
    yield from _endless()
    yield from _pages(dice)
    yield from _screens(dice)


def _made(dice: random.Random) -> str:
    """Some of the texts in one."""
    return "".join(dice.choice(MARKUP + TERMINAL) for _ in range(dice.randrange(1, 5)))


# Answers

def _result(raw: bytes) -> Result:
    asked = Command(("kubectl", "exec", "p", "--", "python", f"--prompt={answer.PROMPT}", "--top=3", "--precisions=int8",
                     "--repetitions=0", "--sentinel=end-1"), why="w", limit=1, data=True)
    return Result(asked, 0, raw + b"\nend-1", "", 1.0)


def _answers(dice: random.Random) -> Iterator[Outcome]:
    good = answer.answer()
    if next_token.read(_result(json.dumps(good).encode()))["arms"][0]["top"][0]["id"] != 7:
        yield Outcome(FAMILY, "the good answer", "violation", "it is not read")
    for path in list(_paths(good)):
        for bad in (*BAD, _made(dice)):
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
    made = copy.deepcopy(good)
    place: Any = made
    for key in path[:-1]:
        place = place[key]
    if bad:
        place[path[-1]] = bad[0]
    else:
        del place[path[-1]]
    return made


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
        if slow or len(said) > 1000 or not _harmless(show.clean(said)) or "cannot be used: " not in said:
            return Outcome(FAMILY, name, "violation", said[:300])
        return Outcome(FAMILY, name, "refused", said[:200])
    except Exception as error:
        return Outcome(FAMILY, name, "violation", f"{type(error).__name__}: {str(error)[:200]}")
    if not _may_be(found, path, bad):
        return Outcome(FAMILY, name, "violation", "it was taken for an answer")
    from gpurunbook.tokens import visible
    shown = "".join(visible(t) for t in (*found["prompt_tokens"], *found["arms"][0]["top"]))
    saved = show.clean(json.dumps(found, ensure_ascii=False))
    if not (_harmless(shown) and _harmless(saved) and json.loads(saved) == found):
        return Outcome(FAMILY, name, "violation", shown[:200])
    return Outcome(FAMILY, name, "literal", shown[:80])


def _may_be(found: dict[str, Any], path: tuple[Any, ...], bad: Any) -> bool:
    """Whether an answer that was taken is one: numbers in their ranges, names that are plain, sums that are right."""
    arm = found["arms"][0]
    ps, names = [t["p"] for t in arm["top"]], [found["model"], found["device"], *found["versions"], *found["versions"].values(),
                                               found["revision"] or "", arm["precision"], arm["dtype"], *arm["linear_layers"]]
    return (all(0 <= p <= 1 for p in ps) and ps == sorted(ps, reverse=True) and sum(ps) <= 1 + 1e-6 and len(ps) == 3
            and all(type(t["id"]) is int and 0 <= t["id"] < found["vocab_size"] for t in arm["top"])
            and all(_harmless(name) and "\n" not in name and len(name) <= 200 for name in names) and "/" not in arm["precision"]
            and all(math.isfinite(arm[key]) and arm[key] >= 0 for key in ("load_seconds", "first_seconds", "top_mass"))
            and found["prompt"] == answer.PROMPT)


def _places(dice: random.Random) -> Iterator[Outcome]:
    """What the pod says of itself, before main.py is copied."""
    good: dict[str, Any] = {"digest": "", "tar": True, "folder": True, "writable": True, "user": 0, "owner": 0, "read_only": ""}
    for key in good:
        for bad in (*BAD, _made(dice)):
            raw = json.dumps({**good, key: bad}).encode()
            try:
                place = in_pod.place(_result(raw))
                table = in_pod.table(place, "x")
                told = str(in_pod.unwritable(place, "p", "/f"))
            except RunbookError as error:
                yield Outcome(FAMILY, f"{key} = {bad!r:.60}", "refused", str(error)[:200])
                continue
            except Exception as error:
                yield Outcome(FAMILY, f"{key} = {bad!r:.60}", "violation", f"{type(error).__name__}: {str(error)[:200]}")
                continue
            good_type = type(bad) is type(good[key])
            yield Outcome(FAMILY, f"{key} = {bad!r:.60}", "literal" if good_type and _harmless(repr(table) + show.clean(told))
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
                yield Outcome(FAMILY, name, "refused" if good else "violation",
                    f"{grown:.0f} MiB more, {seconds:.1f} s, {str(error)[:100]}")
            else:
                yield Outcome(FAMILY, name, "violation", "it was all taken")


# Pages: the report, and what a notebook shows

def _harmless(text: str) -> bool:
    return not show.CONTROL.search(text)


def things(text: str) -> list[Any]:
    """All that shows itself, with this text wherever there is text."""
    typed = Command(("kubectl", text), shown=("kubectl", text), why=text, limit=1)
    return [show.Table((text,), [(text,), ("x",)], text, ("fail", "pass")), show.Box(text, (text,), "warn", (text, text)),
            show.Terminal(text, f"a {text}", 1.0), Plan((typed,), text, text, (typed,)),
            Checks([Check(text, "fail", text, text, text), Check(text, "pass")])]


def page(root: Path, text: str) -> str:
    """The report of a run in which every text of the cluster, of the model and of people is this one."""
    folder = root / "runs" / "abuse"
    (folder / "artifacts").mkdir(parents=True)
    journal, time_ = Journal(folder), "2026-11-22T12:00:00.000+00:00"
    append = journal.append
    append("run", state="started", target="rehearsal", cluster_file=text)
    append("program", name=text, path="/x", version=text, found=text)
    for stage in ("taint", "next_token", "latency"):
        append("notebook", stage=stage, state="started", parameters={"prompt": text}, modified=f"a{text}")
        append("stage", stage=stage, state="started", time=time_)
        append("intent", id=f"{stage}1", stage=stage, argv=["kubectl", text], shown=text, why=text, changes=True)
        append("result", id=f"{stage}1", code=1, seconds=1.0, error=text, tail=text)
        append("intent", id=f"{stage}2", stage=stage, argv=["kubectl", text], shown=text, why=text, changes=False)
        append("checks", stage=stage, checks=[{"name": text, "state": "fail", "evidence": text, "fix": f"a{text}"}])
        append("wait", stage=stage, what=text, blocker=text, seconds=1.0)
        append("event", stage=stage, line=text, status="FAILED")
        append("pull", node=text, image=text, began=time_, ended="2026-11-22T12:00:09.000+00:00")
        append("error", stage=stage, error=text, type=text, traceback=text)
        append("notebook", stage=stage, state="ended", seconds=1.0)
        append("stage", stage=stage, state="done", time=time_)
    told = answer.answer(versions={"torch": "1"})
    arm = {**told["arms"][0], "samples_ms": [1.0]}
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "x"
    arm["top"] = [{**token, "text": text, "token": text} for token in arm["top"]]
    told |= {"arms": [arm], "prompt_tokens": [{"id": 1, "text": text, "token": text}], "prompt": text or "x"}
    (folder / "artifacts" / "next_tokens.json").write_text(json.dumps({**told, "top": arm["top"], "run": text, "target": text}))
    (folder / "artifacts" / "latency.json").write_text(json.dumps({**told, "top": arm["top"], "run": text, "target": text}))
    return report.write(folder).read_text(encoding="utf-8")


def _pages(dice: random.Random) -> Iterator[Outcome]:
    """Hostile text must leave the same elements and attributes as harmless text does, and nothing to follow but its own."""
    with tempfile.TemporaryDirectory(prefix="abuse-") as top:
        plain = Tags(page(Path(top) / "plain", "x"))
        for i, text in enumerate((*MARKUP, "".join(TERMINAL), "a" * 9_000, *(_made(dice) for _ in range(6)))):
            try:
                made = page(Path(top) / str(i), text)
                found = Tags(made)
            except Exception as error:
                yield Outcome(FAMILY, f"report of {text!r:.60}", "violation", f"{type(error).__name__}: {str(error)[:200]}")
                continue
            good = (found.seen == plain.seen and found.followed == plain.followed and _harmless(made)
                    and "default-src 'none'" in made)
            yield Outcome(FAMILY, f"report of {text!r:.60}", "literal" if good else "violation", _difference(plain, found))
            for one, other in zip(things(text), things("x"), strict=True):
                whole = Tags(one._repr_html_())
                good = whole.seen == Tags(other._repr_html_()).seen and _harmless(one._repr_html_()) and _harmless(repr(one))
                yield Outcome(FAMILY, f"{type(one).__name__} of {text!r:.60}", "literal" if good else "violation",
                    str(whole.seen)[:300])


def _difference(plain: Tags, found: Tags) -> str:
    at = next((i for i, (a, b) in enumerate(zip(plain.seen, found.seen, strict=False)) if a != b), len(plain.seen))
    return f"element {at}: {found.seen[at:at + 3]} instead of {plain.seen[at:at + 3]}"


# Screens: a terminal and a pipe

SCREEN = """
import json, sys
from pathlib import Path
from gpurunbook import printing, show
from gpurunbook.errors import RunbookError
from tests.abuse.output import things
text = json.loads(sys.stdin.readline())
for thing in things(text):
    show.show(thing)
live = show.Live(text, meter=lambda: text)
live._started = live._shown = -100.0
live(9.0, text); live.done(9.0); live.stopped(9.0)
printing.complain(RunbookError(text, where=text, next=text))
for record in ({"kind": "intent", "changes": True, "shown": text}, {"kind": "wait", "what": text, "blocker": text + "x"},
               {"kind": "event", "line": text, "status": "FAILED"},
               {"kind": "checks", "checks": [{"state": "fail", "name": text, "evidence": text}]}):
    printing.tell(record)
printing.table(things(text)[0]); printing.checks(things(text)[4])
printing.out.print_json(json.dumps({"text": text, text: [text]}))
folder = Path(sys.argv[1])
if (folder / "journal.jsonl").exists():
    printing.outcome(folder, Path("/r"), ("next_token",), False); printing.outcome(folder, Path("/r"), ("next_token",), True)
print("the end")
"""


def _screens(dice: random.Random) -> Iterator[Outcome]:
    texts = ["\n".join((*MARKUP, *TERMINAL)), _made(dice)]
    with tempfile.TemporaryDirectory(prefix="abuse-") as top:
        for i, text in enumerate(texts):
            with mock.patch.dict(os.environ):
                page(Path(top) / str(i), text)
            for name, run in (("pipe", _piped), ("terminal", _typed)):
                said = run(text, Path(top) / str(i) / "runs" / "abuse")
                left = show.CONTROL.search(TERMINAL_COLOURS.sub("", said.replace("\r\n", "\n")))
                good = not left and said.rstrip().endswith("the end") and ("8;;" not in said or "\\u001b]8;;" in said)
                yield Outcome(FAMILY, f"{name}: {text!r:.60}", "literal" if good else "violation",
                              f"{left and ascii(left[0])} in {said[-500:]!a}")


def _argv(folder: Path) -> list[str]:
    return [sys.executable, "-c", SCREEN, str(folder)]


def _piped(text: str, folder: Path) -> str:
    done = subprocess.run(_argv(folder), input=json.dumps(text) + "\n", text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
                          timeout=60, check=False, encoding="utf-8", errors="surrogateescape")
    return done.stdout


def _typed(text: str, folder: Path) -> str:
    """The same on a terminal, which rich colours; an answer of a terminal is nobody's input here."""
    master, slave = pty.openpty()
    process = subprocess.Popen(_argv(folder), stdin=subprocess.PIPE, stdout=slave, stderr=slave, env={**os.environ,
        "TERM": "xterm"})
    os.close(slave)
    assert process.stdin
    process.stdin.write(json.dumps(text).encode() + b"\n")
    process.stdin.close()
    said = b""
    read: Callable[[], bytes] = lambda: os.read(master, 65536)  # noqa: E731
    try:
        while chunk := read():
            said += chunk
    except OSError:  # Linux's end of a terminal
        pass
    process.wait(timeout=60)
    os.close(master)
    return said.decode("utf-8", "surrogateescape")
