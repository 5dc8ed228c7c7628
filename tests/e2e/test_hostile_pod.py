"""A hostile main.py in a real pod: whatever it prints ends as an error that says so, or as harmless text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gpurunbook import show
from tests.answer import answer
from tests.e2e.conftest import REPOSITORY, Checkout, make_checkout

pytestmark = pytest.mark.e2e
ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b8m\u202egnp<script>alert(1)</script>"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HEAD = """import json, sys
said = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
"""
ENDLESS = HEAD + "for _ in range(10**6): sys.stdout.write('x' * 1000)\n"
NOISE = HEAD + f"sys.stderr.write({ESCAPES!r} * 3 + '\\n'); sys.exit({ESCAPES!r})\n"
BYTES = HEAD + "sys.stdout.buffer.write(b'\\xff\\xfe{\\x00\\n'); print(said['sentinel'])\n"


def says(**changes: Any) -> str:
    """A program that prints this answer, and its sentinel as the true one does."""
    return f"{HEAD}print({json.dumps(answer('int8', **changes))!r})\nprint(said['sentinel'])\n"


PROGRAMS = {"a gigabyte": (ENDLESS, "MiB of output"), "escapes in its log and its end": (NOISE, "exit code"),
            "no text": (BYTES, "cannot be used"), "escapes in a name": (says(device=ESCAPES), "cannot be used"),
            "a number that is none": (says().replace('"p": 0.5', '"p": NaN'), "cannot be used"),
            "more than all": (says().replace('"p": 0.5', '"p": 0.9'), "cannot be used")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """One of its own, since main.py is changed in it."""
    made = make_checkout(tmp_path_factory.mktemp("hostile"))
    made("run", "--run-id", "hostile", "--until", "model")
    yield made
    made("teardown", "--run-id", "hostile")


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_hostile_program_prints_is_refused_and_reaches_nobody_raw(checkout: Checkout, name: str) -> None:
    program, why = PROGRAMS[name]
    (checkout.root / "manifests" / "model" / "main.py").write_text(program)
    argv = ("run", "--run-id", "hostile", "--from", "next_token", "--until", "next_token", "-p", "top=3", "-p", "precisions=int8")
    done = checkout(*argv, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    folder = checkout.folder("hostile")
    notebook = json.loads((folder / "notebooks" / "07_next_token.ipynb").read_text())
    texts = ["".join(text) if isinstance(text, list) else text for cell in notebook["cells"] for output in cell.get("outputs", [])
             for text in (output.get("text", ""), *output.get("data", {}).values(), output.get("evalue", ""))
             if isinstance(text, str | list)]
    report = (folder / "report.html").read_text()
    for said in (done.stdout, done.stderr, report, *texts):
        left = show.CONTROL.search(COLOURS.sub("", said))
        assert not left, f"{left[0]!a} in {said[max(0, left.start() - 200):left.end() + 200]!a}"
    assert "<script>alert" not in report
    assert not any("<script>alert" in "".join(output.get("data", {}).get("text/html", ""))
                   for cell in notebook["cells"] for output in cell.get("outputs", []))


def test_the_same_pod_answers_when_the_program_is_the_true_one_again(checkout: Checkout) -> None:
    (checkout.root / "manifests" / "model" / "main.py").write_bytes((REPOSITORY / "manifests/model/main.py").read_bytes())
    done = checkout("run", "--run-id", "hostile", "--from", "next_token", "--until", "next_token")
    assert "the ten most likely next tokens" in done.stdout
