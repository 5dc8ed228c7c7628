"""The stages of the walk, in order; each module is named after its notebook.

A stage is three functions beside `Run.apply`, and no framework:

    observe(run) -> facts        what is there now, read from the cluster
    plan(run, facts) -> Plan     what is missing, as commands; empty when nothing is
    verify(run) -> list[Check]   is it as it should be?
"""

from __future__ import annotations

NAMES = ("preflight", "provision", "nodes", "taint", "gpu_operator", "model", "next_token", "latency", "teardown")
START = "start"
"""The notebook before the stages: it only looks, and is none of them."""


def stem(stage: str) -> str:
    """`05_gpu_operator`: a stage's notebook, or START's, without the ending of its file."""
    return f"{(START, *NAMES).index(stage):02d}_{stage}"


def notebook(stage: str) -> str:
    """File name of a stage's notebook, or of START's."""
    return f"{stem(stage)}.ipynb"


def title(stage: str) -> str:
    """`05 gpu operator`."""
    return stem(stage).replace("_", " ")
