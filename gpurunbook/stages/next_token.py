"""07: main.py copied into the pod and run there; the ten most likely next tokens come back."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook import show
from gpurunbook.command import Command, Result
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.files import whole, write
from gpurunbook.plan import Check, Plan
from gpurunbook.prediction import Prediction
from gpurunbook.stages import answer, in_pod, model

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

FOLDER = "/home/bentoml/bento"
PROGRAM = f"{FOLDER}/main.py"
NEW = f"{PROGRAM}.new"
"""Copied beside it, and renamed once it is whole: a main.py that runs is not written over."""
SCHEMA = answer.SCHEMA
SAID = "main.py: "
"""How each line of its progress begins."""
EXEC_LIMIT = 1800.0
"""Seconds; on a first run in a fresh pod the weights may have to be downloaded."""

LOGITS = "logits"
"""The files of all logits: logits.PRECISION.f32, in the pod as in the run folder."""


@dataclass(frozen=True)
class Question:
    """The one call by which `observe` asks `pod`; it only reads."""

    pod: model.Pod
    command: Command


@dataclass(frozen=True)
class Facts:
    """`here`: SHA-256 of manifests/model/main.py. `place`, `life`: what the pod says of its main.py, and of itself."""

    pod: model.Pod
    container: str
    here: str
    place: in_pod.Place
    life: in_pod.Life

    @property
    def copied(self) -> bool:
        return self.place.digest == self.here

    @property
    def table(self) -> show.Table:
        return in_pod.table(self.place, self.here)


def question(run: Run, pod: model.Pod | None = None) -> Question:
    """What to ask, and which pod: a ready one unless it is given. Raises RunbookError when none is ready."""
    pod = pod or model.ready_pod(run)
    return Question(pod, in_pod.look(run.kubectl, pod.name, model.manifest(run).container, PROGRAM))


def observe(run: Run, asking: Question | None = None) -> Facts:
    """Ask the pod, by `asking` if a `question` was shown before.

    Raises:
        RunbookError: no pod is ready, or its answer did not come back whole.
    """
    asking = asking or question(run)
    pod, container = asking.pod, model.manifest(run).container
    life = in_pod.life(run, pod.name, container)
    if life is None:
        raise RunbookError(f"the pod {pod.name} was deleted a moment ago", where="kubectl get pods",
                           next="run this notebook again from its start")
    place = in_pod.place(run.ask(asking.command, check=False))
    return Facts(pod, container, hashlib.sha256(_program(run).read_bytes()).hexdigest(), place, life)


def plan(run: Run, facts: Facts) -> Plan:
    """Copy main.py where the pod does not have it as it is here.

    Raises:
        RunbookError: nothing can be written where main.py and its logits go; nothing was copied.
    """
    place, pod, container = facts.place, facts.pod.name, facts.container
    if not place.writable:
        raise in_pod.unwritable(place, pod, FOLDER)
    if facts.copied:
        return run.plan((), f"main.py is in the pod, with the same SHA-256 ({facts.here[:12]})")
    reason = "the pod has another main.py" if place.digest else "main.py is not in the pod"
    if not place.tar:
        put = run.kubectl.exec_with(_program(run), pod, "python", "-c", in_pod.PUT, PROGRAM, facts.here, container=container,
                                    why="copy main.py into the pod through Python, which checks and renames it")
        return run.plan([put], f"{reason}; its image has no tar, which `kubectl cp` needs: Python there takes it from stdin")
    rename = run.kubectl.exec(pod, "python", "-c", in_pod.RENAME, PROGRAM, facts.here, container=container, changes=True,
                              why="check what arrived, and put it in its place")
    return run.plan([run.kubectl.cp_into(_program(run), pod, NEW, container=container), rename],
                    f"{reason}; it is renamed once its SHA-256 is right, so that none that runs is written over")


def copy(run: Run, before: Facts, plan: Plan) -> Facts:
    """Apply the plan, and look again in the same pod.

    Raises:
        CommandFailed: a command of the plan failed in a pod that is as it was.
        RunbookError: the pod was restarted or went meanwhile, or its main.py is not ours all the same.
    """
    when = "while main.py was copied"
    try:
        run.apply(plan)
    except CommandFailed as error:
        raise _became(run, before, error.result, when, "the copying") or error from error
    life = in_pod.life(run, before.pod.name, before.container)
    if happened := in_pod.became(before.life, life):
        raise in_pod.gone(before.pod.name, happened, before.life, life, when)
    facts = observe(run, asking := question(run, before.pod))
    if not facts.copied:
        raise RunbookError(f"main.py did not arrive in the pod: {'another' if facts.place.digest else 'none'} is there",
                           where=asking.command.short,
                           next="run the cells from the copy again; `gpurunbook gpu` tells more")
    return facts


def command(run: Run, facts: Facts, *, prompt: str, top: int = 10, precisions: str = "int8,reference",
            repetitions: int = 0, logits: str = LOGITS) -> Command:
    """The exec that runs main.py in the pod: a measurement, which runs again each time, with a sentinel of its own."""
    return run.kubectl.exec(
        facts.pod.name, "python", PROGRAM, f"--prompt={prompt}", f"--top={top}", f"--precisions={precisions}",
        f"--repetitions={repetitions}", f"--logits={FOLDER}/{logits}.f32", f"{in_pod.OPTION}{in_pod.sentinel()}",
        container=facts.container, why="run main.py in the pod", limit=EXEC_LIMIT, data=True,
        usual=(12, 60) if repetitions else (8, 40))


def measure(run: Run, facts: Facts, command: Command) -> Prediction:
    """Run main.py once, and believe it only if it came to its end; a measurement is never tried again by itself.

    Raises:
        CommandFailed: main.py's own error.
        RunbookError: it was ended, its pod was, the stream broke, or its answer cannot be used.
    """
    result = run.ask(command, check=False)
    try:
        in_pod.said(result)
    except RunbookError as error:
        when = "while main.py ran" if SAID in result.stderr else "before main.py said a word"
        raise (_became(run, facts, result, when) or (run.target.explain(run, result) if result.code else None)
               or error) from error
    return _prediction(result)


def _became(run: Run, facts: Facts, result: Result, when: str, what: str = in_pod.MAIN) -> RunbookError | None:
    settle = max(1.0, in_pod.SETTLE * run.target.patience(run))
    return in_pod.explain(result, facts.pod.name, facts.life, lambda: in_pod.life(run, facts.pod.name, facts.container),
                          when=when, what=what, settle=settle)


def read(result: Result) -> Prediction:
    """Parse and check what main.py printed.

    Raises:
        CommandFailed: exit code not 0.
        RunbookError: the stream broke, or its JSON line is not an answer to this question: see gpurunbook.stages.answer.
    """
    in_pod.said(result)
    return _prediction(result)


def _prediction(result: Result) -> Prediction:
    line = next((line for line in reversed(result.raw.splitlines()) if line.startswith(b"{")), b"")
    try:
        if not line:
            raise ValueError("no line of JSON in it")
        asked = dict(arg[2:].split("=", 1) for arg in result.command.argv if re.match(r"--\w+=", arg))
        return Prediction(answer.parse(line, asked))
    except ValueError as error:
        raise _unreadable(result, str(error)) from error


def _unreadable(result: Result, why: str) -> RunbookError:
    return RunbookError(f"main.py's answer cannot be used: {why}", where=str(result.log),
                        next=f"run it by hand: {result.command.short}")


def fetch(run: Run, facts: Facts, found: dict[str, Any], logits: str = LOGITS) -> dict[str, Path]:
    """Fetch every arm's logits (float32, little-endian, one per token of the vocabulary), checked by their SHA-256.

    Returns precision -> file.

    What did not arrive whole is fetched once more, since it is only read; that is said.

    Raises:
        RunbookError: what arrived twice is not what main.py wrote, or the pod has it no more.
    """
    fetched = {}
    for arm in found["arms"]:
        name = f"{logits}.{arm['precision']}.f32"
        asked = run.kubectl.exec(facts.pod.name, "python", "-c", in_pod.READ, f"{FOLDER}/{name}", container=facts.container,
                                 data=True, why=f"fetch the {arm['precision']} logits")
        result = run.ask(asked, check=False)
        if why := damage(result, arm, 4 * found["vocab_size"]):
            show.show(show.Box(f"{name}: {why}; fetching it once more", (), "warn"))
            result = run.ask(asked, check=False)
            if again := damage(result, arm, 4 * found["vocab_size"]):
                raise _became(run, facts, result, "after main.py had run", "the fetching") or RunbookError(
                    f"{name} did not arrive whole, twice: {why}; then {again}", where=asked.full,
                    next="run this cell again; `gpurunbook gpu` tells more")
        fetched[str(arm["precision"])] = run.artifacts / name
        whole(fetched[str(arm["precision"])], result.raw)
    return fetched


def damage(result: Result, arm: dict[str, Any], size: int) -> str:
    """How a fetched file of logits differs from what main.py says that it wrote, "" when it does not."""
    if result.code == 0 and len(result.raw) == size and hashlib.sha256(result.raw).hexdigest() == arm["logits_sha256"]:
        return ""
    if result.code != 0:
        return f"exit code {result.code}, {result.tail.splitlines()[-1] if result.tail else 'without a word'}"
    return f"{len(result.raw):,} of {size:,} bytes arrived" if len(result.raw) != size else "its SHA-256 is another"


def compare(found: Prediction, logits: dict[str, Path]) -> Prediction:
    """Add to every token of every arm what the other precisions say of it: `p_in`, precision -> probability.

    Raises:
        RunbookError: logits are no numbers.
    """
    from gpurunbook import distribution
    known = {precision: distribution.probabilities(raw) for precision, raw in distribution.read_all(logits).items()}
    for arm in found["arms"]:
        for token in arm["top"]:
            token["p_in"] = {precision: float(p[token["id"]]) for precision, p in known.items()}
    return found


def save(run: Run, found: Prediction, name: str = "next_tokens") -> Path:
    """Write artifacts/NAME.json: what main.py said, with the first arm's `top` at its top level too."""
    path = run.artifacts / f"{name}.json"
    whole = {"prompt": found["prompt"], "top": found["arms"][0]["top"], **found, "run": run.id, "target": run.target.name}
    # A token may be a control character, which no terminal that shows this file should obey; JSON reads the escape as it.
    write(path, show.clean(json.dumps(whole, indent=1, ensure_ascii=False)) + "\n")
    run.journal.append("artifact", stage=run.stage, path=f"artifacts/{path.name}")
    return path


def footer(run: Run, found: Prediction) -> str:
    """Provenance for a chart: model, device, target; a rehearsal says so."""
    where = "REHEARSAL on CPU, not a GPU result" if run.target.cannot_show else run.target.name
    return f"{found['model']} · {found['device']} · {where} · run {run.id}"


def verify(run: Run) -> list[Check]:
    """Do the probabilities that the pod reported follow from the logits that were fetched?"""
    import numpy as np

    from gpurunbook import distribution
    facts = observe(run)
    found: dict[str, Any] = json.loads((run.artifacts / "next_tokens.json").read_text())
    checks = [Check("the pod's main.py is ours", "pass" if facts.copied else "fail",
                    f"SHA-256 {facts.place.digest[:12] or 'absent'}", "run this stage again")]
    for arm in found["arms"]:
        p = distribution.probabilities(distribution.read(run.artifacts / f"{LOGITS}.{arm['precision']}.f32"))
        worst = max(abs(p[t["id"]] - t["p"]) for t in arm["top"])
        order = list(np.argsort(-p, kind="stable")[:len(arm["top"])]) == [t["id"] for t in arm["top"]]
        good = worst < 1e-5 and (order or math.isclose(p[arm["top"][-1]["id"]], arm["top"][-1]["p"], abs_tol=1e-6))
        checks.append(Check(f"the {arm['precision']} top {len(arm['top'])} follow from its logits",
                            "pass" if good else "fail", f"largest difference {worst:.1e} over {len(p):,} tokens",
                            "run this stage again"))
    return checks


def _program(run: Run) -> Path:
    return run.manifest("model", "main.py")
