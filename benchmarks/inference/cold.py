"""From nothing to the first token, by part: a process of main.py, and one of arms.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.inference.worker import ROOT

TIMES = 3
PARTS = ("start", "imports", "load", "first call", "after")


def parts(model: Path, kept: Path, prompt: str) -> dict[str, dict[str, float]]:
    """Medians of TIMES processes each, in turns, in seconds, with the files in the page cache.

    `start` is the interpreter and the arguments; `imports` in main.py includes the tokenizer; `first call` allocates and pages
    in, which is all the warm-up that a process with one question has: what it takes beyond a later forward pass is warm-up.
    `after` the first token main.py hashes the weights, says which they were, and ends.
    """
    program = str(ROOT / "manifests" / "model")
    calls: dict[str, Callable[[], dict[str, float]]] = {
        "main.py, LLM.int8 (the tutorial's)": lambda: main_py([f"{program}/main.py", "--precisions", "int8"], model, prompt),
        "main.py, bf16": lambda: main_py([f"{program}/main.py", "--precisions", "bf16"], model, prompt),
        "arms.py, int4 packed each time": lambda: arms_py([f"{program}/arms.py"], model, prompt),
        "arms.py, int4 kept": lambda: arms_py([f"{program}/arms.py", "--kept", str(kept)], model, prompt),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for _ in range(TIMES):
        for name, call in calls.items():
            found[name].append(call())
    return {name: {part: median(run[part] for run in runs) for part in PARTS} for name, runs in found.items()}


def main_py(call: list[str], model: Path, prompt: str) -> dict[str, float]:
    """By the lines that it says on stderr as it goes, and what its answer says of the load."""
    begun = time.time()
    said: dict[str, float] = {}
    logits = os.devnull
    with subprocess.Popen([sys.executable, *call, "--model", str(model), "--prompt", prompt, "--logits", logits], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"HF_HUB_OFFLINE": "1"}) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stderr:
            for part in ("importing", "loading"):
                if line.startswith(f"main.py: {part}"):
                    said[part] = time.time()
        answer = json.loads(process.stdout.read())
    ended, arm = time.time(), answer["arms"][0]
    return {"start": said["importing"] - begun, "imports": said["loading"] - said["importing"], "load": arm["load_seconds"],
            "first call": arm["first_seconds"], "after": ended - said["loading"] - arm["load_seconds"] - arm["first_seconds"]}


def arms_py(call: list[str], model: Path, prompt: str) -> dict[str, float]:
    """Its own stamps; the interpreter's start is an empty one's, since arms.py imports torch in its first lines."""
    begun = time.time()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    start = time.time() - begun
    begun = time.time()
    done = subprocess.run([sys.executable, *call, "--model", str(model), "--prompt", prompt], capture_output=True, text=True,
                          check=True)
    ended, answer = time.time(), json.loads(done.stdout)
    return {"start": start, "imports": answer["imported"] - begun - start, "load": answer["loaded"] - answer["imported"],
            "first call": answer["first"] - answer["loaded"], "after": ended - answer["first"]}
