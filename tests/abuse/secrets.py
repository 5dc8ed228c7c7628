"""Secrets of every kind through everything that writes: none comes out; and what only looks like one comes out as it is."""

from __future__ import annotations

import html
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import quote

import nbformat

from gpurunbook import command, executed, masking, show
from gpurunbook.command import Command
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal
from gpurunbook.report import page as report
from tests import canaries
from tests.abuse import pages
from tests.abuse.outcome import Outcome

FAMILY = "secrets"
CARRIERS: dict[str, Callable[[str], str]] = {
    "as it is": str, "in a sentence": lambda text: f"error: {text}: refused", "in JSON": lambda text: json.dumps({"a": [text]}),
    "in JSON twice": lambda text: json.dumps(json.dumps({"a": text})), "in HTML": lambda text: f"<td>{html.escape(text)}</td>",
    "in a list": lambda text: json.dumps(text.splitlines(keepends=True), indent=1), "in a repr": lambda text: repr({"a": text}),
    "in a URL's user": lambda text: f"git clone https://{text}@h/x.git" if text.isascii() and "\n" not in text else text,
    "in a URL's path": lambda text: f"https://h/s3/{text}" if "\n" not in text and " " not in text else text,
    "after a line": lambda text: json.dumps(f"x\n{text}\n"), "in colour": lambda text: json.dumps(f"\x1b[1;31m{text}\x1b[0m"),
}
KNOWN: dict[str, Callable[[str], str]] = {
    "in a URL": lambda text: f"https://h/?a={quote(text, safe='')}&b=c",
    "cut in two lines": lambda text: f"{text[:len(text) // 2]}\n{text[len(text) // 2:]}",
    "cut in two outputs": lambda text: f'"{text[:len(text) // 2]}"}}, {{"text": "{text[len(text) // 2:]}"',
}
"""Ways that only a secret known by its value is followed on."""
PLAIN = (
    "Basic authentication is off", "https://127.0.0.1:6443/a@b", "docker-pullable://nginx:1.27@sha256:" + "a" * 64,
    '{"token": "Ġland"}',
    "imagePullSecrets: [registry]", "sk-gpu-node-group-with-a-name", "password=$PASSWORD",
    "arn:aws:eks:eu-central-1::cluster/x", "  ",
    "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----", "bearer of news", "api_key=<yours>", "the token: expired",
    "tokens: 12",
)


def attack(seed: int) -> Iterator[Outcome]:
    birds = canaries.made(seed)
    dice = random.Random(seed)
    with (mock.patch.dict(os.environ, {bird.variable: bird.text for bird in birds}),
          tempfile.TemporaryDirectory(prefix="abuse-") as top):
        for bird in birds:
            for how, carried in CARRIERS.items() | (KNOWN.items() if bird.known and len(bird.text) >= 26 else ()):
                text = f"{'x' * dice.randrange(40)} {carried(bird.text)} {dice.randrange(10**6)}"
                yield _outcome(f"{bird.name} {how}", birds, masking.hide(text) + show.clean(text) + show.escape(text))
        for writer, write in WRITERS.items():
            for bird in birds:
                yield _outcome(f"{bird.name} by {writer}", birds, write(Path(tempfile.mkdtemp(dir=top)), bird.text))
            everything = "\n".join(bird.text for bird in birds)
            yield _outcome(f"all by {writer}", birds, write(Path(tempfile.mkdtemp(dir=top)), everything))
    for text in PLAIN:
        yield Outcome(FAMILY, text, "literal" if masking.hide(text) == text else "violation", masking.hide(text))


def _outcome(name: str, birds: list[canaries.Canary], written: str) -> Outcome:
    found = canaries.leaks(birds, written)
    if not found and masking.HIDDEN not in written:
        return Outcome(FAMILY, name, "violation", "it was not written at all: nothing is proved")
    return Outcome(FAMILY, name, "violation" if found else "refused", f"shown: {', '.join(found)}" if found else "hidden")


# Everything that writes

def _journal(folder: Path, text: str) -> str:
    journal = Journal(folder)
    journal.append("note", text=text, deep={"list": [text, {text: text}]}, argv=(f"--x={text}",))
    return journal.path.read_text()


def _program(folder: Path, text: str) -> str:
    """A program's own words, in two writes and with a failure: the log, the error, the end that the journal keeps."""
    said: list[str] = []
    half = len(text) // 2
    script = f"import sys\nfor part in {(text[:half], text[half:])!r}: sys.stderr.write(part); sys.stderr.flush()\nsys.exit(3)"
    (folder / "x.py").write_text(script)
    result = command.run(Command((sys.executable, str(folder / "x.py")), why="w", limit=20), env=command.environment({}),
        check=False,
                         log=folder / "x.log", watch=lambda seconds, line: said.append(show.line(line)))
    (folder / "x.py").unlink()
    return (folder / "x.log").read_text() + result.tail + str(command.failure(result)) + "".join(said)


def _error(folder: Path, text: str) -> str:
    error = RunbookError(text, where=text, next=text)
    return "\n".join([str(error), repr(error), *error._render_traceback_()])


def _shown(folder: Path, text: str) -> str:
    return "".join(repr(thing) + thing._repr_html_() for thing in pages.things(text))


def _notebook(folder: Path, text: str) -> str:
    """All kinds of outputs, parameters and tracebacks, as papermill writes them."""
    v4 = nbformat.v4
    half = len(text) // 2
    cell = v4.new_code_cell(f"x = {text!r}", outputs=[
        v4.new_output("stream", name="stdout", text=f"{text}\n{text[:half]}"), v4.new_output("stream", name="stderr",
        text=text + "\n"),
        v4.new_output("stream", name="stdout", text=text[half:]),
        v4.new_output("display_data", data={"text/html": f"<b>{text}</b>", "text/plain": text, "application/json": {"a": text},
                                            "text/markdown": f"`{text}`",
                                            "image/svg+xml": f"<svg><text>{html.escape(text)}</text></svg>"}),
        v4.new_output("error", ename="E", evalue=text, traceback=text.splitlines()), v4.new_output("error", ename="E",
        evalue="", traceback=[
            f"File x, line 1\n----> {text[:half]}{text[half:]}"])])
    book = v4.new_notebook(cells=[cell], metadata={"papermill": {"parameters": {"prompt": text}, "exception": text}})
    executed.Writer().write(nbformat.writes(book), str(folder / "x.ipynb"))
    written = (folder / "x.ipynb").read_text()
    json.loads(written)
    return written


def _report(folder: Path, text: str) -> str:
    journal = Journal(folder)
    journal.append("run", state="started", target="rehearsal", cluster_file="cluster.yaml")
    journal.append("stage", stage="taint", state="started")
    journal.append("error", stage="taint", error=text)
    journal.append("checks", stage="taint", checks=[{"name": text, "state": "fail", "evidence": text, "fix": text}])
    return report.write(folder).read_text()


WRITERS: dict[str, Callable[[Path, str], str]] = {
    "the journal": _journal, "a program's log": _program, "an error": _error, "what is shown": _shown, "a notebook": _notebook,
    "the report": _report}
