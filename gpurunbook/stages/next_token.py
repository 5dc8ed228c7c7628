"""07: main.py copied into the pod and run there; the ten most likely next tokens come back."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook.command import Command, Result
from gpurunbook.errors import RunbookError
from gpurunbook.files import write
from gpurunbook.masking import hide
from gpurunbook.plan import Check, Plan
from gpurunbook.stages import model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpurunbook.runbook import Run

FOLDER = "/home/bentoml/bento"
PROGRAM = f"{FOLDER}/main.py"
SCHEMA = "gpurunbook/next-token/1"
EXEC_LIMIT = 1800.0
"""Seconds; on a first run in a fresh pod the weights may have to be downloaded."""

Prediction = dict[str, Any]
"""What main.py prints, see its docstring: prompt, prompt_tokens, model, device, arms, each with `top`."""


@dataclass(frozen=True)
class Facts:
    """`here`, `there`: SHA-256 of main.py in manifests/ and in the pod ("" when absent)."""

    pod: model.Pod
    container: str
    here: str
    there: str


def observe(run: Run) -> Facts:
    pod, container = model.ready_pod(run), model.manifest(run).container
    asked = run.ask(run.kubectl.exec(pod.name, "sha256sum", PROGRAM, container=container,
                                     why="which main.py is in the pod?"), check=False)
    there = asked.stdout.split()[0] if asked.code == 0 and asked.stdout.split() else ""
    return Facts(pod, container, hashlib.sha256(_program(run).read_bytes()).hexdigest(), there)


def plan(run: Run, facts: Facts) -> Plan:
    if facts.here == facts.there:
        return run.plan((), f"main.py is in the pod, with the same SHA-256 ({facts.here[:12]})")
    return run.plan([run.kubectl.cp_into(_program(run), facts.pod.name, PROGRAM, container=facts.container)],
                    "main.py is not in the pod" if not facts.there else "the pod has another main.py")


def command(run: Run, facts: Facts, *, prompt: str, top: int = 10, precisions: str = "int8,reference",
            repetitions: int = 0) -> Command:
    """The exec that runs main.py in the pod: a measurement, which runs again each time."""
    return run.kubectl.exec(
        facts.pod.name, "python", PROGRAM, f"--prompt={prompt}", f"--top={top}", f"--precisions={precisions}",
        f"--repetitions={repetitions}", f"--logits={FOLDER}/logits.f32", container=facts.container,
        why="run main.py in the pod", limit=EXEC_LIMIT, data=True, usual=(8, 40))


def read(result: Result) -> Prediction:
    """Parse and check what main.py printed.

    Raises:
        RunbookError: no JSON line of our schema, or probabilities that cannot be.
    """
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    try:
        found: Prediction = json.loads(lines[-1], parse_constant=_refuse)
        arms = found["arms"]
        good = found["schema"] == SCHEMA and bool(arms) and all(_sound(arm) for arm in arms)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(result, f"{type(error).__name__}: {error}") from error
    if not good:
        raise _unreadable(result, "not our schema, or probabilities that are no distribution")
    return found


def _sound(arm: dict[str, Any]) -> bool:
    ps = [float(token["p"]) for token in arm["top"]]
    return bool(ps) and ps == sorted(ps, reverse=True) and all(0 <= p <= 1 for p in ps) and sum(ps) <= 1 + 1e-6


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no probability")


def _unreadable(result: Result, why: str) -> RunbookError:
    return RunbookError(f"main.py's answer cannot be used: {why}", where=str(result.log),
                        next=f"run it by hand: {result.command.short}")


def fetch(run: Run, facts: Facts, found: Prediction) -> dict[str, Path]:
    """Fetch every arm's logits (float32, little-endian, one per token of the vocabulary) with their checksum.

    Raises:
        RunbookError: what arrived is not what main.py wrote.
    """
    fetched = {}
    for arm in found["arms"]:
        precision = str(arm["precision"])
        name = f"logits.{precision}.f32"
        raw = run.ask(run.kubectl.exec(facts.pod.name, "cat", f"{FOLDER}/{name}", container=facts.container, data=True,
                                       why=f"fetch the {precision} logits")).raw
        if hashlib.sha256(raw).hexdigest() != arm["logits_sha256"]:
            raise RunbookError(f"the {precision} logits arrived damaged ({len(raw)} bytes)", where=f"{FOLDER}/{name}",
                               next="run this cell again")
        fetched[precision] = run.artifacts / name
        fetched[precision].write_bytes(raw)
    return fetched


def compare(found: Prediction, logits: dict[str, Path]) -> Prediction:
    """Add to every token of every arm what the other precisions say of it: `p_in`, precision -> probability."""
    known = {precision: probabilities(path) for precision, path in logits.items()}
    for arm in found["arms"]:
        for token in arm["top"]:
            token["p_in"] = {precision: float(p[token["id"]]) for precision, p in known.items()}
    return found


def probabilities(path: Path) -> NDArray[np.float64]:
    """Softmax of a file of float32 logits: shape (vocabulary,), sum 1."""
    import numpy as np
    logits = np.fromfile(path, dtype="<f4").astype(np.float64)
    shifted = np.exp(logits - logits.max())
    total: NDArray[np.float64] = shifted / shifted.sum()
    return total


def save(run: Run, found: Prediction, name: str = "next_tokens") -> Path:
    """Write artifacts/NAME.json: what main.py said, with the first arm's `top` at its top level too."""
    path = run.artifacts / f"{name}.json"
    whole = {"prompt": found["prompt"], "top": found["arms"][0]["top"], **found, "run": run.id, "target": run.target.name}
    write(path, hide(json.dumps(whole, indent=1, ensure_ascii=False)) + "\n")
    run.journal.append("artifact", stage=run.stage, path=f"artifacts/{path.name}")
    return path


def footer(run: Run, found: Prediction) -> str:
    """Provenance for a chart: model, device, target; a rehearsal says so."""
    where = "REHEARSAL on CPU, not a GPU result" if run.target.cannot_show else run.target.name
    return f"{found['model']} · {found['device']} · {where} · run {run.id}"


def verify(run: Run) -> list[Check]:
    """Do the probabilities that the pod reported follow from the logits that were fetched?"""
    import numpy as np
    facts = observe(run)
    found: Prediction = json.loads((run.artifacts / "next_tokens.json").read_text())
    checks = [Check("the pod's main.py is ours", "pass" if facts.here == facts.there else "fail",
                    f"SHA-256 {facts.there[:12] or 'absent'}", "run this stage again")]
    for arm in found["arms"]:
        p = probabilities(run.artifacts / f"logits.{arm['precision']}.f32")
        worst = max(abs(p[t["id"]] - t["p"]) for t in arm["top"])
        order = list(np.argsort(-p, kind="stable")[:len(arm["top"])]) == [t["id"] for t in arm["top"]]
        good = worst < 1e-5 and (order or math.isclose(p[arm["top"][-1]["id"]], arm["top"][-1]["p"], abs_tol=1e-6))
        checks.append(Check(f"the {arm['precision']} top {len(arm['top'])} follow from its logits",
                            "pass" if good else "fail", f"largest difference {worst:.1e} over {len(p):,} tokens",
                            "run this stage again"))
    return checks


def _program(run: Run) -> Path:
    return run.manifest("model", "main.py")
