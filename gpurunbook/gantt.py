"""When what happened, for the report: stages, and in them what went on at the same time. Pure, from the journal.

The one thing of the walk that is done beside another is the image's pull, which 04 begins and the operator's
installation (05) overlaps; `Overlap` says what that saved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from gpurunbook import stages
from gpurunbook.readiness.rungs import BY_NAME

Record = dict[str, Any]
Kind = Literal["stage", "operator", "pull", "answer"]
ALLOCATABLE = BY_NAME["allocatable"].title
"""The rung that 05 waits for first."""


@dataclass(frozen=True)
class Bar:
    """A row: `began` in seconds since the first one began."""

    label: str
    kind: Kind
    began: float
    seconds: float


@dataclass(frozen=True)
class Overlap:
    """From all nodes Ready to the first answer of the model, in seconds; `serial` is the same one after the other."""

    wall: float
    serial: float

    @property
    def ratio(self) -> float:
        return self.wall / self.serial


@dataclass(frozen=True)
class Gantt:
    """All rows in order, the seconds that they span, and the overlap where a pull and an operator were seen."""

    bars: tuple[Bar, ...]
    seconds: float
    overlap: Overlap | None


def gantt(records: Iterable[Record]) -> Gantt | None:
    """Of the last time that each stage ran; None for a journal without an ended stage."""
    records = list(records)
    spans = _spans(records)
    if not any(kind == "stage" for _, kind, _, _ in spans):
        return None
    zero = min(began for _, _, began, _ in spans)
    bars = tuple(Bar(label, kind, began - zero, ended - began) for label, kind, began, ended in sorted(spans, key=_order))
    return Gantt(bars, max(ended for *_, ended in spans) - zero, _overlap(spans, records))


def _order(span: tuple[str, Kind, float, float]) -> tuple[float, bool]:
    return span[2], span[1] != "stage"


def _spans(records: list[Record]) -> list[tuple[str, Kind, float, float]]:
    """(label, kind, began, ended), the last of each label, in seconds since the epoch."""
    found: dict[str, tuple[str, Kind, float, float]] = {}
    began: dict[str, float] = {}
    intents: dict[str, Record] = {}
    for r in records:
        now, stage = _at(r["time"]), r.get("stage", "")
        match r["kind"]:
            case "notebook" if r["state"] == "started":
                began[stage] = now
            case "notebook" if stage in began:
                label = stages.notebook(stage).removesuffix(".ipynb").replace("_", " ")
                found[label] = (label, "stage", began[stage], now)
            case "intent":
                intents[r["id"]] = r
                if "--install" in r["argv"]:
                    began["helm"] = now
            case "wait" if r["what"].endswith(ALLOCATABLE) and not r["blocker"] and "helm" in began:
                found["operator"] = ("operator, until a GPU is allocatable", "operator", began["helm"], now)
            case "pull":
                label = f"image pull on {r['node'].partition('.')[0]}"
                found[label] = (label, "pull", _at(r["began"]), _at(r["ended"]))
            case "result" if r.get("code") == 0 and (asked := intents.get(r["id"])) and _answers(asked):
                found.setdefault("answer", ("model loads and answers", "answer", _at(asked["time"]), now))
    return list(found.values())


def _answers(intent: Record) -> bool:
    """Whether it is the exec that runs main.py for the ten tokens."""
    return intent["stage"] == "next_token" and "exec" in intent["argv"] and any("--prompt=" in w for w in intent["argv"])


def _overlap(spans: list[tuple[str, Kind, float, float]], records: list[Record]) -> Overlap | None:
    of = {kind: (began, ended) for _, kind, began, ended in spans if kind != "stage"}
    ready = next((_at(r["time"]) for r in reversed(records)
                  if r["kind"] == "wait" and r["what"] == "all nodes Ready" and not r["blocker"]), None)
    if ready is None or not {"operator", "pull", "answer"} <= of.keys():
        return None
    (began, ended), (pulling, pulled) = of["operator"], of["pull"]
    wall = of["answer"][1] - ready
    return Overlap(wall, wall + max(0.0, min(ended, pulled) - max(began, pulling)))


def _at(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
