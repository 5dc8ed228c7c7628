"""`gpurunbook plan`: what each stage would do now, asked of the stages themselves; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from gpurunbook import runs, stages, targets
from gpurunbook.config import load_cluster
from gpurunbook.errors import RunbookError
from gpurunbook.journal import ReadOnlyJournal
from gpurunbook.plan import Plan
from gpurunbook.runbook import Run
from gpurunbook.stages import gpu_operator, pulling

NEW = "new"
ASIDE = {"preflight": "only looks", "teardown": "run by itself at the end, or by: gpurunbook teardown"}
READS = ("nodes", "next_token", "latency")
"""Stages that only look or measure, and run again each time."""


def plans(root: Path, target: str, cluster_path: Path, run_id: str = "") -> list[dict[str, Any]]:
    """One row for each stage: stage, reason, shown (short commands), commands (full argv).

    Without a run to go on with, the commands are those of a run that would be called NEW.
    """
    kind, cluster = targets.get(target), load_cluster(cluster_path)
    going = runs.newest(root, target, cluster_path)
    folder = (runs.resolve(root, target, cluster_path, run_id, start=False) if run_id
              else going.folder if going else root / "runs" / NEW)
    rows: list[dict[str, Any]] = []
    answers = False
    for stage in stages.NAMES:
        if stage in ASIDE:
            row = nothing(ASIDE[stage])
        elif stage != "provision" and not answers:
            row = nothing("known after 02")
        else:
            run = Run(root, folder, kind, kind.describe(folder, cluster), stage, ReadOnlyJournal(folder))
            module = import_module(f"gpurunbook.stages.{stage}")
            try:
                facts = module.observe(run)
                row = joined([module.plan(run, facts), *beside(run)])
                answers = answers or facts.answers
            except RunbookError as error:
                row = nothing(f"known later: {error.what}")
            if stage in READS and not row["commands"]:
                row |= nothing(f"{row['reason']}; reads and measures again each time")
        rows.append({"stage": stage, **row})
    return rows


def beside(run: Run) -> list[Plan]:
    """What a stage's notebook does besides its own plan; what cannot be known now does not hide that."""
    try:
        if run.stage == "provision":
            return [run.target.grant(run)]
        if run.stage == "taint":
            return [pulling.plan(run, pulling.observe(run))]
        if run.stage == "model":
            return [pulling.end(run, pulling.look(run))]
        return [gpu_operator.smoke_plan(run)] if run.stage == "gpu_operator" else []
    except RunbookError as error:
        return [run.plan((), f"known later: {error.what}")]


def joined(found: Sequence[Plan]) -> dict[str, Any]:
    """Several plans as one row: those that do nothing are named only where none does anything. No command stands twice."""
    told = [plan for plan in found if plan] or found[:1]
    commands = {command.argv: command.short for plan in told for command in plan}
    return {"reason": "; ".join(plan.reason for plan in told), "commands": list(commands), "shown": list(commands.values())}


def nothing(reason: str) -> dict[str, Any]:
    return {"reason": reason, "shown": [], "commands": []}
