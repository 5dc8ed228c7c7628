"""Measure all arms in one run: `make bench-inference`.

    python -m benchmarks.inference [--repetitions 100] [--arms NAME,NAME] [--result FILE] [--device cpu|gpu|tiny]

Timed are the forward pass of the whole prompt and one decode step with the prompt's cache; load and first call stand apart. Exit
code 1 when a limit is not held. `tiny` is the GPU's code path on a CPU, with a model too small to say anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import psutil
from numpy.typing import NDArray

from benchmarks.inference import cold, peer, results, table
from benchmarks.inference.harness import AGAIN, Machine, measure
from benchmarks.inference.quality import GATE, PROMPTS, quality
from benchmarks.inference.worker import ROOT, Worker

RESULTS = ROOT / "benchmarks" / "results"
WHAT = ("forward", "step")
REST = 0.005
"""Seconds between two arms' calls: OpenMP's threads spin for some milliseconds after their work."""


def say(text: str) -> None:
    print(f"bench-inference: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu", "tiny"), default="cpu")
    parser.add_argument("--arms", help="some of them, with commas (default: all)")
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--model", type=Path, help="a folder with real weights, on a GPU (default: dolly-v2-3b's shape, random)")
    parser.add_argument("--result", type=Path, help="default: benchmarks/results/inference.json, or inference-gpu.json")
    args = parser.parse_args()
    cache = platformdirs.user_cache_path("gpurunbook")
    cache.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpurunbook-bench-")))
        found = run(args, cache, folder, stack)
    file = args.result or RESULTS / ("inference.json" if args.device == "cpu" else f"inference-{args.device}.json")
    print(*report(found, json.loads(file.read_text()) if file.exists() else None), sep="\n")
    file.write_text(results.written(found))
    print(f"kept in {file}")
    sys.exit(any(limit["over"] for limit in found["limits"]))


def run(args: argparse.Namespace, cache: Path, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Load, time, ask for quality; everything that is kept."""
    kind = import_module("benchmarks.inference.cpu" if args.device == "cpu" else "benchmarks.inference.gpu")
    names = args.arms.split(",") if args.arms else list(kind.ARMS)
    threads = min(2, len(os.sched_getaffinity(0)))
    settings: dict[str, Any] = {"kind": kind.__name__.rpartition(".")[2], "device": args.device,
                                "model": args.model and str(args.model)}
    state = [kind.state()]
    prompts, begun = [list(range(1, 7)), list(range(11, 17))], time.monotonic()
    if args.device == "cpu":
        prompts = rehearsal_model(settings)
    arms: dict[str, Any] = {}
    workers, left_out, copied = {}, {}, 0.0
    compiler = peer.python(cache, say) if kind.PEER in names else None
    for name in names + list(kind.LOADED_ONLY if not args.arms else ()):
        python = compiler if name == kind.PEER else sys.executable
        if python is None:
            left_out[name] = "could not be built"
            continue
        say(f"loading {name}")
        try:
            worker = Worker(name, threads=threads, python=python, cache=cache, **settings)
            stack.callback(worker.end)
            if name == kind.REFERENCE:
                copied = worker.ask("copy")
            arms[name] = {"load": {"imports_s": worker.imports_s, **worker.load(prompts[0])}}
        except RuntimeError as error:  # e.g. what a GPU's memory does not hold; the others are measured
            left_out[name] = str(error)
            continue
        if name in kind.LOADED_ONLY:
            arms[name]["load"]["peak_after_bytes"] = worker.ask("prompt", prompts[0], 1) and worker.ask("peak")
            worker.end()
        else:
            workers[name] = worker
    base = next(name for name in (kind.TUTORIAL, *workers) if name in workers)
    reference, twice = workers[kind.REFERENCE], kind.PEER if kind.PEER in workers else base
    then = next_tokens(reference, prompts, folder)
    doubts = {}
    for what in WHAT:
        for name, worker in workers.items():
            if name.endswith("compiled"):
                first_compiled(worker, what, arms[name], prompts[0], then[0])
            worker.ask("prompt", prompts[0], then[0])
        say(f"{what}: {args.repetitions} repetitions of {len(workers)} arms in turns")
        machine = Machine()
        calls = {name: worker.timed(what) for name, worker in workers.items()}
        samples = measure({**calls, twice + AGAIN: calls[twice]}, repetitions=args.repetitions, rest=REST, machine=machine,
                          own_cpu=lambda: cpu_seconds(workers.values()))
        itself = results.against_itself(samples, twice)
        doubts[what] = {"complaints": [*machine.complaints(), *([itself] if itself else [])], **vars(machine),
                        "itself": {"arm": twice, "ratio": results.ratio(samples[twice + AGAIN].ms, samples[twice].ms)}}
        for name in workers:
            arms[name].setdefault(what, {}).setdefault("first_ms", samples[name].first.ms)
            arms[name][what] |= {"ms": samples[name].ms, "cpu_ms": [sample.cpu_ms for sample in samples[name].timed],
                                 **results.quantiles(samples[name].ms)}
    for what in WHAT:
        logits = {name: asked(worker, prompts, then if what == "step" else None, folder) for name, worker in workers.items()}
        for name in workers:
            row, gate = arms[name][what], quality(logits[name], logits[kind.REFERENCE])
            told = kind.has_quality(settings)
            row |= {"quality": vars(gate) if told else None, "fails": gate.complaints() if told else []}
            row["ratio"] = None if row["fails"] and name != base else results.ratio(row["ms"], arms[base][what]["ms"])
    for name, worker in workers.items():
        arms[name]["load"]["peak_after_bytes"] = worker.ask("peak")
    copied = max(copied, reference.ask("copy"))
    found = {
        "schema": "gpurunbook/inference/1", "when": datetime.now(UTC).isoformat(timespec="seconds"), "prompt": PROMPTS[0],
        "tokens": prompts[0], "then": then[0], "prompts": len(prompts), "repetitions": args.repetitions, "threads": threads,
        "device": args.device, "machine": kind.machine(), "state": [*state, kind.state()], "versions": {
            "python": platform.python_version(), "llama-cpp-python": pinned(compiler),
            **{name: version(name) for name in ("torch", "transformers", "bitsandbytes", "numpy")}},
        "weights": kind.weights(settings), "copy_bytes_per_second": copied, "base": base, "reference": kind.REFERENCE,
        "gate": GATE, "noise": doubts, "left_out": left_out, "arms": {name: arms[name] for name in workers},
        "loaded_only": {name: arm for name, arm in arms.items() if name not in workers}}
    found["limits"] = limits(found, kind.LIMITS)
    if args.device != "tiny":  # there what is loaded besides is more than the weights
        found["limits"] += frugal(found, kind.FRUGAL, kind.MOST_TO_LOAD)
    for worker in workers.values():
        worker.end()
    if args.device == "cpu":
        say("cold processes")
        found["cold"] = cold.parts(Path(settings["model"]), cache / "packed", PROMPTS[0])
    found["minutes"] = (time.monotonic() - begun) / 60
    return found


def rehearsal_model(settings: dict[str, Any]) -> list[list[int]]:
    """Put the rehearsal's model into the settings; the prompts' tokens, all equally many."""
    from tokenizers import Tokenizer

    from gpurunbook.targets.rehearsal import weights

    model = weights.prepare(say=say)
    settings |= {"model": str(model), "gguf": str(weights.bundled_gguf())}
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    assert len({len(ids) for ids in prompts}) == 1, [len(ids) for ids in prompts]
    return prompts


def next_tokens(reference: Worker, prompts: list[list[int]], folder: Path) -> list[int]:
    """The token that a decode step continues with: the reference's most likely one."""
    return [int(row.argmax()) for row in asked(reference, prompts, None, folder)]


def asked(worker: Worker, prompts: list[list[int]], then: list[int] | None, folder: Path) -> NDArray[np.float32]:
    """The arm's logits of shape (prompts, vocabulary): after each prompt, or after the token `then` beyond it."""
    worker.ask("logits", prompts, then, str(folder / "logits.npy"))
    found: NDArray[np.float32] = np.load(folder / "logits.npy")
    return found


def first_compiled(worker: Worker, what: str, arm: dict[str, Any], ids: list[int], then: int) -> None:
    """The first call compiles, on all cores; it is said and kept apart."""
    say(f"compiling {worker.name}, {what}")
    worker.ask("unpin")
    if what == "step":
        arm[what] = {"first_ms": worker.timed("step")().ms}
    else:
        arm[what] = {"first_ms": worker.timed("forward")().ms}
    worker.ask("pin")


def cpu_seconds(workers: Any) -> float:
    """Of this process and of all workers."""
    times = [psutil.Process(worker.process.pid).cpu_times() for worker in workers]
    return time.process_time() + sum(one.user + one.system for one in times)


def limits(found: dict[str, Any], wanted: tuple[tuple[str, str, str, float], ...]) -> list[dict[str, Any]]:
    """Of each limit whose arms were measured: the ratio. "" is the fastest arm of torch that passes the gate."""
    rows = []
    for wants, base, what, limit in wanted:
        of = {name: arm[what] for name, arm in found["arms"].items() if not (arm[what]["fails"] or name.startswith("llama.cpp"))}
        if base in found["arms"] and (wants in of or (of and not wants)):
            name = wants or min(of, key=lambda one: of[one]["p50"])
            ratio = results.ratio(of[name]["ms"], found["arms"][base][what]["ms"])
            rows.append({"what": what, "arm": name, "base": base, "ratio": ratio, "limit": limit, "over": ratio[0] > limit})
    return rows


def frugal(found: dict[str, Any], names: tuple[str, ...], most: float) -> list[dict[str, Any]]:
    """Of each of these arms: what it took at most while it loaded (on a GPU of its memory, else of its own), over its weights."""
    rows = []
    for name, arm in {**found["arms"], **found["loaded_only"]}.items():
        if name in names:
            load = arm["load"]
            ratio = load["peak_bytes" if found["device"] == "gpu" else "own_peak_bytes"] / load["resident_bytes"]
            rows.append({"what": "memory", "arm": name, "base": "its weights", "ratio": [ratio] * 3, "limit": most,
                         "over": ratio > most})
    return rows


def pinned(compiler: str | None) -> str | None:
    return next(line.split("==")[1].split()[0] for line in peer.LOCK.read_text().splitlines()
                if line.startswith("llama-cpp-python==")) if compiler else None


def report(found: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    lines = [f"{found['weights']}; {found['machine']['name']}, {found['threads']} threads; copy "
             f"{found['copy_bytes_per_second'] / 1e9:.1f} GB/s; {found['repetitions']} repetitions, ms; "
             f"gate over {found['prompts']} prompts against {found['reference']}"]
    for what in WHAT:
        lines += ["", *table.arms(found, what, found["base"]), *table.noise(found["noise"][what]["complaints"], what)]
        itself = found["noise"][what]["itself"]
        lines.append("A/A: {} / itself {:.3f} ({:.3f} to {:.3f})".format(itself["arm"], *itself["ratio"]))
    lines += ["", *table.loads(found), ""]
    lines += [f"left out: {name}: {why}" for name, why in found["left_out"].items()]
    if "cold" in found:
        lines += [*table.cold(found["cold"]), ""]
    lines += [*table.limits(found["limits"]), f"{found['minutes']:.1f} minutes"]
    if before is None:
        return [*lines, "no earlier run to compare with"]
    if why := results.comparable(found, before):
        return [*lines, f"not compared: {why}"]
    for what in WHAT:
        for name, (word, change) in results.later(found, before, what).items():
            lines.append("{:8} {:22} {:8} {:.2f} ({:.2f} to {:.2f}) of {}".format(what, name, word, *change, before["when"]))
    return lines


if __name__ == "__main__":
    main()
