"""What people and programs type that they should not, and a checkout of its own to try it in."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from gpurunbook.errors import RunbookError
from tests.abuse.outcome import Outcome

ROOT = Path(__file__).parents[2]
SLOW = 5.0
"""Seconds after which one input has held things up."""
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nobody-at-all",
           "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1", "AWS_CONFIG_FILE": "/dev/null",
           "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
"""No account can be reached from here, whatever stands in the environment."""
TEXTS = (
    "'", '"', "\\", "'''", '"""', "\\'", "a'b\"c\\d", "\\x41", "\\N{BULLET}", "a\nb", "a\rb", "a\tb", "\n", " ", "",
    "\u2028", "\u2029", "\u0085", "\u202e", "\u2066x", "\u200f", "\ufeff", "\0", "a\0b",
    "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\ud800", "\udfff", "\udcff", "é", "é", "日本", "🙂", "Ω" * 3_000,
    "$(id)", "`id`", ";id", "| id", "&& id", "> /tmp/x", "$HOME", "${IFS}", "~", "*", "?", "!!", "#", "%s", "%n", "{0}",
    "{run_id}",
    "{{x}}", "{%x%}", "../../etc/passwd", "/etc/passwd", "..", ".", "/", "//", "a/../b", "C:\\x", "file:///etc/passwd",
    "--kubeconfig=x", "--help", "-x", "-oProxyCommand=id", "--", "-", "@/etc/passwd", "=", "a=b", "<script>alert(1)</script>",
    "[bold]x[/bold]", "[/x]", "\\[/x]", "\\", "[link=x]y", "None", "null", "True", "nan", "inf", "-1", "1e999", "0x10", "1_000",
    "9" * 5_000, "x" * 10_001, "x" * 1_000_000, "__import__('os').system('id')", "{'a': 1}", "[[[[]]]]", "!!python/object:x",
)
NAMES = (
    "x = __import__('os').system('touch CANARY') #", "prompt\nimport os", "prompt = 1\nx", "prompt;x", "__builtins__",
    "__class__", "print", "run", "show", "import", "def", "lambda", "", " ", "prompt ", " prompt", "Prompt", "prompt\0",
    "prompt\u200b", "ｐrompt", "pr\u00f6mpt", "-p", "--p", "prompt.x", "prompt[0]", "0", "1top", "run_id", "target",
    "cluster_file",     "a" * 100_000,
    "\ud800", "\u202eprompt", "$(id)", "../x", "{prompt}", "[/x]", "\\[/x]", "\x1b[31m",
)


def texts(seed: int, more: int) -> Iterator[str]:
    """All of TEXTS, and as many made at random of their pieces and of any character."""
    yield from TEXTS
    dice, pieces = random.Random(seed), [text for text in TEXTS if len(text) < 40]
    for _ in range(more):
        yield "".join(dice.choice((dice.choice(pieces), chr(dice.randrange(0x110000)))) for _ in range(dice.randrange(1, 8)))


@contextlib.contextmanager
def checkout() -> Iterator[Path]:
    """A checkout to stand in, with no run in it and no account behind it; gone afterwards."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="abuse-") as folder, mock.patch.dict(os.environ, NOWHERE):
        root = Path(folder)
        for name in ("notebooks", "manifests"):
            shutil.copytree(ROOT / name, root / name)
        shutil.copy(ROOT / "cluster.yaml", root)
        os.chdir(root)
        try:
            yield root
        finally:
            os.chdir(before)


def papermilled(notebook: Path, given: dict[str, Any]) -> str:
    """Run a notebook with papermill itself, as anybody may; returns "", or the error that ended it, as NAME: TEXT."""
    import papermill
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(str(notebook), str(Path("out.ipynb").resolve()), given, kernel_name="python3",
                                   log_output=False, progress_bar=False, extra_arguments=["--log-level=ERROR"],
                                   shutdown_kernel="immediate")
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    return ""


def tried(family: str, name: str, act: Callable[[], str]) -> Outcome:
    """What becomes of one act: refused when it raises an error of ours, literal when it returns ""; else what it returns."""
    began = time.monotonic()
    try:
        wrong = act()
        how = "violation" if wrong else "literal"
    except RunbookError as error:
        how, wrong = "refused", unfit(str(error))
    except Exception as error:  # a traceback is what must not happen
        how, wrong = "violation", f"{type(error).__name__}: {error}"
    if (seconds := time.monotonic() - began) > SLOW:
        wrong = wrong or f"it took {seconds:.1f} s"
    return Outcome(family, name[:100], "violation" if wrong else how, wrong)  # type: ignore[arg-type]


def unfit(message: str) -> str:
    """Why an error's text is none: no next step, or longer than anybody reads; "" when it is good."""
    if "  next:  " not in message and "\n  where: " not in message:
        return f"it does not say where or what next: {message[:200]}"
    return f"an error of {len(message):,} characters" if len(message) > 20_000 else ""
