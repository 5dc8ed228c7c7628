"""What 07 and 08 left in artifacts/ of the model's answer, for whoever tells of a run afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpurunbook import runs, show


def tokens(folder: Path) -> dict[str, Any] | None:
    """What next_tokens.json holds, None when the stage has not ended well since it last began."""
    info = runs.read(folder)
    done = info is not None and info.stages.get("next_token") == "done"
    return _answer(folder / "artifacts" / "next_tokens.json") if done else None


def latencies(folder: Path) -> list[dict[str, Any]]:
    """Of each precision that was timed: its name, percentiles and samples, in ms; [] where none was."""
    found = _answer(folder / "artifacts" / "latency.json")
    if not found:
        return []
    from gpurunbook.stages.latency import summary
    return [{"precision": arm["precision"], "samples": arm["samples_ms"], **summary(arm["samples_ms"])}
            for arm in found["arms"] if arm["samples_ms"]]


def advice(folder: Path) -> show.Box | None:
    """Which precision to use, as 08 says it; None where it left no answer."""
    found = _answer(folder / "artifacts" / "latency.json")
    if not found:
        return None
    from gpurunbook import recommendation
    return recommendation.of(found)


def read(path: Path) -> dict[str, Any]:
    """What main.py said, as next_token.save wrote it, and who asked.

    Raises:
        FileNotFoundError: it is absent.
        ValueError: it was torn by a kill, or changed by somebody.
    """
    from gpurunbook.stages import answer
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        answer.check({key: value for key, value in found.items() if key not in ("top", "run", "target")})
    except (AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return {**found, "top": found["arms"][0]["top"]}


def _answer(path: Path) -> dict[str, Any] | None:
    try:
        return read(path)
    except (FileNotFoundError, ValueError):
        return None
