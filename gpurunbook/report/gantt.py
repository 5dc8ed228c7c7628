"""When what happened, for the report: stages, and in them what took long or went on at the same time. Pure, from the journal.

The one thing of the walk that is done beside another is the image's pull, which 04 begins and the operator's
installation (05) overlaps; `Overlap` says what that saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from gpurunbook import stages
from gpurunbook.journal import Record
from gpurunbook.readiness.rungs import BY_NAME, RUNGS

Kind = Literal["stage", "operator", "pull", "answer", "step"]
Usual = tuple[float, float]
ALLOCATABLE = BY_NAME["allocatable"].title
"""The rung that 05 waits for first."""
LONG, SHARE = 1.0, 0.03
"""A step gets a row of its own when it took longer than this many seconds, and than this share of the whole."""
IDLE, NARROW = 60.0, 0.04
"""A time in which nothing ran, longer than this many seconds and than all work together, is drawn as this share of that work."""


@dataclass(frozen=True)
class Bar:
    """A row: `began` in seconds since the first one began, with long idle times cut; `usual` is None where nothing tells."""

    label: str
    kind: Kind
    began: float
    seconds: float
    stage: str = ""
    usual: Usual | None = None
    open: bool = False


@dataclass(frozen=True)
class Overlap:
    """From all nodes Ready to the first answer of the model, in seconds; `serial` is the same one after the other."""

    wall: float
    serial: float

    @property
    def ratio(self) -> float:
        return self.wall / self.serial

    @property
    def saved(self) -> bool:
        """Whether it saved anything that two decimals of the ratio show; of an instant rehearsal the rest is noise."""
        return f"{self.ratio:.2f}" != "1.00"


@dataclass(frozen=True)
class Gantt:
    """All rows in order, the seconds that they span as drawn, and the overlap where a pull and an operator were seen.

    `cut` is the idle seconds that are not drawn, such as between an interrupted walk and its resumption.
    """

    bars: tuple[Bar, ...]
    seconds: float
    overlap: Overlap | None
    cut: float = 0.0


class _Span(NamedTuple):
    """Seconds since the epoch. `open`: no end was recorded; it is taken to be the journal's."""

    label: str
    kind: Kind
    began: float
    ended: float
    stage: str
    usual: Usual | None = None
    open: bool = False


def gantt(records: Iterable[Record]) -> Gantt | None:
    """Of the last time that each stage ran; None for a journal without a stage."""
    records = list(records)
    named = _spans(records)
    walked = {span.stage for span in named if span.kind == "stage"}
    if not walked:
        return None
    zero, end = min(span.began for span in named), max(span.ended for span in named)
    least = max(LONG, SHARE * (end - zero))
    spans = sorted([*named, *(s for s in _steps(records, named) if s.ended - s.began > least)], key=_order)
    cuts = _idle(spans)
    drawn = tuple(Bar(s.label, s.kind, _at_work(s.began, cuts) - zero, s.ended - s.began, s.stage, s.usual, s.open)
                  for s in spans)
    cut = sum(gap - kept for _, gap, kept in cuts)
    return Gantt(drawn, end - zero - cut, _overlap(spans, records), cut)


def _order(span: _Span) -> tuple[float, bool]:
    return span.began, span.kind != "stage"


def _idle(spans: Sequence[_Span]) -> list[tuple[float, float, float]]:
    """(when it ends, its seconds, seconds that are drawn of it) of each long time in which nothing ran."""
    gaps, end, work = [], spans[0].began, 0.0
    for span in spans:
        if span.began > end:
            gaps.append((span.began, span.began - end))
        work += max(0.0, span.ended - max(span.began, end))
        end = max(end, span.ended)
    return [(until, gap, NARROW * work) for until, gap in gaps if gap > max(IDLE, work)]


def _at_work(moment: float, cuts: Iterable[tuple[float, float, float]]) -> float:
    return moment - sum(gap - kept for until, gap, kept in cuts if moment >= until)


def _spans(records: list[Record]) -> list[_Span]:
    """Stages, and the three parts that the overlap is made of, of the last walk of each; of several answers the first."""
    found: dict[str, _Span] = {}
    began: dict[str, float] = {}
    intents: dict[str, Record] = {}
    usual, walked, end = _usual(records), {r["stage"] for r in records if r["kind"] == "notebook"}, _at(records[-1]["time"])
    for r in records:
        now, stage = _at(r["time"]), r.get("stage", "")
        match r["kind"]:
            case "notebook" | "stage" if r["state"] == "started":
                if r["kind"] == "notebook" or stage not in walked:
                    began[stage] = now
                    if stage == "next_token":
                        found.pop("answer", None)
                    found[stage] = _Span(stages.title(stage), "stage", now, end, stage, usual.get(stage), open=True)
            case "notebook" if stage in began:
                found[stage] = _Span(stages.title(stage), "stage", began[stage], now, stage, usual.get(stage))
            case "stage" if stage in began and stage not in walked:
                found[stage] = _Span(stages.title(stage), "stage", began[stage], now, stage, usual.get(stage))
            case "intent":
                intents[r["id"]] = r
                if "--install" in r["argv"]:
                    began["helm"] = now
            case "wait" if r["what"].endswith(ALLOCATABLE) and not r["blocker"] and "helm" in began:
                found["operator"] = _Span("operator, until a GPU is allocatable", "operator", began["helm"], now, "gpu_operator",
                                          _rungs("release", "allocatable"))
            case "pull":
                label = f"image pull on {r['node'].partition('.')[0]}"
                found[label] = _Span(label, "pull", _at(r["began"]), _at(r["ended"]), "taint", _rungs("pulled", "pulled"))
            case "result" if r.get("code") == 0 and (asked := intents.get(r["id"])) and _answers(asked):
                found.setdefault("answer", _Span("model loads and answers", "answer", _at(asked["time"]), now, "next_token",
                                                 _pair(asked)))
    return list(found.values())


def _steps(records: list[Record], named: Sequence[_Span]) -> list[_Span]:
    """Each command in the last walk of its stage, but for those that are a row already, and for the wait that is one."""
    stage_of = {span.stage: span for span in named if span.kind == "stage"}
    rows = {(span.stage, span.began) for span in named if span.kind == "answer"}
    ended = {r["id"]: r for r in records if r["kind"] == "result"}
    made = []
    for r in records:
        here = stage_of.get(r.get("stage", ""))
        if r["kind"] != "intent" or here is None or not here.began <= (began := _at(r["time"])) <= here.ended:
            continue
        if (r["stage"], began) not in rows:
            end = ended.get(r["id"])
            until = _at(end["time"]) if end and end.get("code") is not None else here.ended
            made.append(_Span(r["why"], "step", began, min(until, here.ended), r["stage"], _pair(r),
                              open=not end or end.get("code") is None))
    return made


def _usual(records: list[Record]) -> dict[str, Usual]:
    """What a stage's commands and waits usually take together, where they say it, in its last walk."""
    parts: dict[str, dict[str, Usual]] = {}
    for r in records:
        stage = r.get("stage", "")
        if r["kind"] in ("notebook", "stage") and r["state"] == "started":
            parts[stage] = {}
        elif pair := _pair(r):
            parts.setdefault(stage, {})[str(r.get("id") or r.get("what"))] = pair
    return {stage: (sum(low for low, _ in of.values()), sum(high for _, high in of.values()))
            for stage, of in parts.items() if of}


def _pair(record: Record) -> Usual | None:
    usual = record.get("usual")
    return (float(usual[0]), float(usual[1])) if usual else None


def _rungs(first: str, last: str) -> Usual:
    """What some rungs of the ladder take together on AWS."""
    names = [rung.name for rung in RUNGS]
    part = RUNGS[names.index(first):names.index(last) + 1]
    return sum(rung.usual[0] for rung in part), sum(rung.usual[1] for rung in part)


def _answers(intent: Record) -> bool:
    """Whether it is the exec that runs main.py for the ten tokens."""
    return intent["stage"] == "next_token" and "exec" in intent["argv"] and any("--prompt=" in w for w in intent["argv"])


def _overlap(spans: Sequence[_Span], records: list[Record]) -> Overlap | None:
    of = {span.kind: (span.began, span.ended) for span in spans if span.kind in ("operator", "pull", "answer")}
    ready = next((_at(r["time"]) for r in reversed(records)
                  if r["kind"] == "wait" and r["what"] == "all nodes Ready" and not r["blocker"]), None)
    if ready is None or not {"operator", "pull", "answer"} <= of.keys():
        return None
    (began, ended), (pulling, pulled) = of["operator"], of["pull"]
    if not ready <= began < of["answer"][1]:  # a stage ran again since: they are not of one walk
        return None
    wall = of["answer"][1] - ready
    return Overlap(wall, wall + max(0.0, min(ended, pulled) - max(began, pulling)))


def _at(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
