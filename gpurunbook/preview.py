"""`gpurunbook plan`: what each stage would do now, asked of the stages themselves; nothing is changed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from gpurunbook import runs, stages, targets
from gpurunbook.errors import RunbookError

READS = ("nodes", "next_token", "latency")
"""Stages that only look or measure, and run again each time."""


def plans(root: Path, target: str, cluster_path: Path, cluster_file: str, run_id: str = "") -> list[dict[str, Any]]:
    """One row for each stage: stage, reason, shown (short commands), argv (full ones)."""
    from gpurunbook.runbook import open_run
    rows: list[dict[str, Any]] = []
    try:
        folder = runs.resolve(root, target, cluster_path, run_id, start=False)
    except RunbookError:
        kind = targets.get(target)
        return [{"stage": "preflight", "reason": "only looks", "shown": [], "commands": []},
                {"stage": "provision", "reason": f"a new run on {kind.name}: make the cluster of {cluster_file}",
                 "shown": [], "commands": []},
                *[_unknown(stage) for stage in stages.NAMES[2:]]]
    answers = False
    for stage in stages.NAMES:
        if stage in ("preflight", "teardown"):
            reason = "only looks" if stage == "preflight" else "run by itself at the end, or by: gpurunbook teardown"
            rows.append({"stage": stage, "reason": reason, "shown": [], "commands": []})
            continue
        if stage != "provision" and not answers:
            rows.append(_unknown(stage))
            continue
        run = open_run(stage, run_id=folder.name, target=target, cluster_file=cluster_file, quiet=True)
        module = import_module(f"gpurunbook.stages.{stage}")
        try:
            facts = module.observe(run)
            row = module.plan(run, facts).to_json()
        except RunbookError as error:
            row = {"reason": f"known later: {error.what}", "shown": [], "commands": []}
        if stage == "provision":
            answers = facts.answers
        if stage in READS and not row["commands"]:
            row["reason"] += "; reads and measures again each time"
        rows.append({"stage": stage, **row})
    return rows


def _unknown(stage: str) -> dict[str, Any]:
    return {"stage": stage, "reason": "known after 02", "shown": [], "commands": []}
