"""Whether what the journal calls done is so."""

from __future__ import annotations

from pathlib import Path

from gpurunbook import runs

LOOKED_AT = ("provision", "nodes", "taint", "gpu_operator", "model", "next_token", "latency")
"""Stages whose checks ask the cluster."""


def newest_done(folder: Path) -> str:
    """The furthest stage that is done by the journal, "" when none is; nothing is asked of a run that is being torn down."""
    info = runs.read(folder)
    if info is None or "teardown" in info.stages:
        return ""
    done = [stage for stage in LOOKED_AT if info.stages.get(stage) == "done"]
    return done[-1] if done else ""


def failed(folder: Path) -> list[str]:
    """The checks of that stage that do not hold now."""
    from gpurunbook.runbook import open_run
    stage = newest_done(folder)
    if not stage:
        return []
    module = __import__(f"gpurunbook.stages.{stage}", fromlist=["verify"])
    run = open_run(stage, run_id=folder.name, quiet=True)
    checks = module.verify(run, repetitions=2) if stage == "latency" else module.verify(run)
    return [f"{stage}: {check.name}: {check.evidence}" for check in checks if check.state == "fail"]
