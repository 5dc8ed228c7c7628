"""llama.cpp, which is measured beside the arms and is no dependency: an environment of its own, built once, kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOCK = Path(__file__).with_name("peer.lock")
"""llama-cpp-python and what it needs, with hashes: `uv pip compile --generate-hashes --universal --python-version 3.11`."""
MINUTES = 60


def python(cache: Path, say: Callable[[str], None]) -> str | None:
    """The environment's interpreter. None when it cannot be had, which is said, with why: the other arms are measured without it.

    Its C++ is compiled here, with this CPU's instructions, in 5 to 10 minutes of two cores.
    """
    folder = cache / f"peer-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if (folder / "ready").exists():
        return str(folder / "bin" / "python")
    uv = shutil.which("uv") or max(map(str, cache.glob("uv-*/bin/uv")), default=None)
    needed = {"uv": uv, "g++": shutil.which("g++"), "cmake": shutil.which("cmake")}
    if missing := [name for name, found in needed.items() if not found]:
        say(f"llama.cpp is left out: to build it needs {' and '.join(missing)}")
        return None
    assert uv
    say("building llama.cpp once, for this CPU: 5 to 10 minutes of two cores; kept for later runs")
    begun, log = time.monotonic(), cache / "peer.log"
    with log.open("w") as file:
        for call in ([uv, "venv", "--clear", "--python", sys.executable, str(folder)],
                     [uv, "pip", "install", "--require-hashes", "-r", str(LOCK)]):
            process = subprocess.Popen(call, stdout=file, stderr=file, env=os.environ | {"VIRTUAL_ENV": str(folder)})
            while process.poll() is None and time.monotonic() - begun < MINUTES * 60:
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    say(f"building llama.cpp: {time.monotonic() - begun:.0f} s")
            if process.poll() is None:
                process.terminate()
            if process.wait():
                say(f"llama.cpp is left out: it could not be built; why stands in {log}")
                return None
    (folder / "ready").write_text(f"{time.monotonic() - begun:.0f} s\n")
    say(f"built llama.cpp in {time.monotonic() - begun:.0f} s")
    return str(folder / "bin" / "python")
