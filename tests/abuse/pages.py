"""Text of the cluster and the model on its way to a person's eyes: the report, and what a notebook shows."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gpurunbook import show
from gpurunbook.command import Command
from gpurunbook.journal import Journal
from gpurunbook.plan import Check, Checks, Plan
from gpurunbook.report import page as report
from tests import answer
from tests.abuse.outcome import Outcome
from tests.abuse.texts import MARKUP, TERMINAL, harmless, made


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
        append("error", stage=stage, error=text, what=text, where=text, next=text)
        append("changed", stage=stage, rows=[[text, text, text]], left_out={text: text}, since="")
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
    step = {"rung": "driver", "state": "trouble", "since": None, "evidence": text, "next": f"a{text}"}
    (folder / "artifacts" / "ladder.json").write_text(json.dumps({
        "nodes": [{"node": text, "steps": [step]}], "findings": [{"title": text, "evidence": text, "next": text}]}))
    return report.write(folder).read_text(encoding="utf-8")


def attack(seed: int) -> Iterator[Outcome]:
    """Hostile text must leave the same elements and attributes as harmless text does, and nothing to follow but its own."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="abuse-") as top:
        plain = Tags(page(Path(top) / "plain", "x"))
        for i, text in enumerate((*MARKUP, "".join(TERMINAL), "a" * 9_000, *(made(dice) for _ in range(6)))):
            try:
                written = page(Path(top) / str(i), text)
                found = Tags(written)
            except Exception as error:
                yield Outcome("pages", f"report of {text!r:.60}", "violation", f"{type(error).__name__}: {str(error)[:200]}")
                continue
            good = (found.seen == plain.seen and found.followed == plain.followed and harmless(written)
                    and "default-src 'none'" in written)
            yield Outcome("pages", f"report of {text!r:.60}", "literal" if good else "violation", _difference(plain, found))
            for one, other in zip(things(text), things("x"), strict=True):
                whole = Tags(one._repr_html_())
                good = whole.seen == Tags(other._repr_html_()).seen and harmless(one._repr_html_()) and harmless(repr(one))
                yield Outcome("pages", f"{type(one).__name__} of {text!r:.60}", "literal" if good else "violation",
                    str(whole.seen)[:300])


def _difference(plain: Tags, found: Tags) -> str:
    at = next((i for i, (a, b) in enumerate(zip(plain.seen, found.seen, strict=False)) if a != b), len(plain.seen))
    return f"element {at}: {found.seen[at:at + 3]} instead of {plain.seen[at:at + 3]}"
