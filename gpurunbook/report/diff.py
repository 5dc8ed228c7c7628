"""What differs between two runs: rehearsal and EKS, or yesterday and today.

Times are never a difference, since they vary from run to run: they are shown beside each other, with a ratio. A difference is
what should be the same when the same is run twice: target, programs, parameters, outcomes, checks, commands, tokens.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurunbook import runs, show, stages, targets
from gpurunbook.deployment import RUN_LABEL
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal, Record
from gpurunbook.report import rung_times
from gpurunbook.report.story import StageStory, stories
from gpurunbook.stages.answered import latencies, tokens
from gpurunbook.times import took

NEWEST = re.compile(r"newest(?:~(\d{1,3}))?")
NOISE = 0.01
"""Largest difference of a token's log p that is not one: 1 % of p. Kernels add up in another order on another machine."""
OWN = (  # what differs in every run, and what stands for it; the run's folder and id come first
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA256"), (re.compile(r"-[0-9a-f]{7,10}-[a-z0-9]{5}\b"), "-POD"),
    (re.compile(r"\bgpu-smoke-[0-9a-f]{8}(-[0-9a-f]{8})?"), "gpu-smoke-ID"), (re.compile(r"\bend-[0-9a-f]{16}\b"), "end-ID"),
    (re.compile(r"(?<=--port=)\d+|(?<=--pid=)\d+|(?<=kill )\d+|(?<=kill -9 )\d+"), "N"),
    (re.compile(r"/[^\s=]*(?=/\.cache/gpurunbook/)"), "~"), (re.compile(r"/tmp/gpurunbook-\d+-[0-9a-f]+"), "/tmp/gpurunbook-ID"))  # noqa: S108 - a name to find, not one to use


@dataclass(frozen=True)
class Row:
    """One thing in both runs; `note` is what can be said of the two: a ratio, a distance. None: not there."""

    what: str
    first: str | None
    second: str | None
    differs: bool
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What belongs together. Of `shown_whole` the equal rows are shown too, since their values are worth a look."""

    title: str
    rows: tuple[Row, ...]
    shown_whole: bool = False

    @property
    def differs(self) -> bool:
        return any(row.differs for row in self.rows)

    def table(self, first: str, second: str) -> show.Table | None:
        """Rows to look at, those that differ marked; None where there is none."""
        rows = [row for row in self.rows if row.differs or self.shown_whole]
        columns = (self.title, first, second, *(["note"] if any(row.note for row in rows) else []))
        cells = [(row.what, row.first or "-", row.second or "-", row.note)[:len(columns)] for row in rows]
        return show.Table(columns, cells, states=["warn" if row.differs else "" for row in rows]) if rows else None


@dataclass(frozen=True)
class Side:
    """One run, read once."""

    info: runs.RunInfo
    records: tuple[Record, ...]
    told: tuple[StageStory, ...]

    @classmethod
    def of(cls, info: runs.RunInfo) -> Side:
        records = tuple(Journal(info.folder).records())
        return cls(info, records, tuple(stories(records)))


def find(root: Path, name: str, *, drills: bool = True) -> runs.RunInfo:
    """A run by its id, the beginning of one that is no other's, its folder's path, `newest`, or `newest~N`, N before it.

    Without `drills`, they do not count as newest.

    Raises:
        ConfigError: there is no such run, or several.
    """
    found = runs.list_runs(root)
    ids = [info.id for info in found]
    where, known = str(root / "runs"), "gpurunbook status lists the runs"
    if match := NEWEST.fullmatch(name):
        back, counted = int(match[1] or 0), [info for info in found if drills or not info.drill]
        if back < len(counted):
            return counted[-1 - back]
        word = "run" if drills else "walk"
        there = f"is 1 {word}" if len(counted) == 1 else f"are {len(counted)} {word}s"
        raise ConfigError(f"there is no run {name}: there {there}", where=where, next=known if ids else "gpurunbook run")
    if name in ids:
        return found[ids.index(name)]
    begun = [info for info in found if name and info.id.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ConfigError(f"{name!r} begins several runs: {', '.join(info.id for info in begun[:5])}", where=where,
                          next="write more of it")
    if "/" in name and os.path.isfile(f"{name}/journal.jsonl") and (elsewhere := runs.read(Path(name).resolve())):
        return elsewhere
    raise ConfigError(f"there is no run {name[:60]!r}", where=where,
                      next=f"{known}; one of another folder or machine: copy its folder into runs/, or give its path")


def compare(first: runs.RunInfo, second: runs.RunInfo) -> list[Section]:
    """All sections in the order in which a person asks."""
    a, b = Side.of(first), Side.of(second)
    return [_runs(a, b), _parameters(a, b), _versions(a, b), _stages(a, b), _checks(a, b), _commands(a, b), _ladder(a, b),
            *_tokens(a, b), _latency(a, b), _cost(a, b)]


def _runs(a: Side, b: Side) -> Section:
    files = [_digest(side.info.folder / "cluster.yaml") for side in (a, b)]
    return Section("run", (_row("target", a.info.target, b.info.target), _row("state", a.info.word, b.info.word),
                           _row("cluster.yaml, SHA-256", *files)), shown_whole=True)


def _parameters(a: Side, b: Side) -> Section:
    """What each notebook was given besides run, target and file; told once where all notebooks were given the same."""
    def given(side: Side) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for record in side.records:
            if record["kind"] == "notebook" and record["state"] == "started":
                for name in record["parameters"].keys() - {"run_id", "target", "cluster_file"}:
                    found.setdefault(name, {})[record["stage"]] = repr(record["parameters"][name])
        return found
    first, second = given(a), given(b)
    rows: list[Row] = []
    for name in sorted({*first, *second}):
        one, other = first.get(name, {}), second.get(name, {})
        if max(len(set(one.values())), len(set(other.values()))) == 1:
            rows.append(_row(name, *(next(iter(values.values()), None) for values in (one, other))))
        else:
            rows += [Row(f"{stages.title(row.what)}: {name}", row.first, row.second, row.differs) for row in _rows(one, other)]
    return Section("parameter", tuple(rows))


def _versions(a: Side, b: Side) -> Section:
    """Of programs in either, and of the notebooks and the pod's packages in both: what did not run has no version."""
    def programs(side: Side) -> dict[str, str]:
        return {r["name"]: str(r["version"]) for r in side.records if r["kind"] == "program"}
    def versions(side: Side) -> dict[str, str]:
        found = {f"notebook {stages.title(r['stage'])}, SHA-256": r["sha256"][:12] + (" (modified)" if r.get("modified") else "")
                 for r in side.records if r["kind"] == "notebook" and r["state"] == "started" and r.get("sha256")}
        told = tokens(side.info.folder)
        if told:
            found |= {f"{name} in the pod": str(v) for name, v in told["versions"].items()}
            found |= {"model": str(told["model"]), "model's revision": str(told["revision"])[:19]}
        return found
    both = tuple(row for row in _rows(versions(a), versions(b)) if row.first and row.second)
    return Section("version", _rows(programs(a), programs(b)) + both)


def _stages(a: Side, b: Side) -> Section:
    rows = []
    for one, other in zip(a.told, b.told, strict=True):
        ran = [f"{s.outcome}{f', {took(s.seconds)}' if s.seconds else ''}" for s in (one, other)]
        beside = _times(one.seconds, other.seconds) if one.outcome == other.outcome == "done" else ""
        rows.append(Row(one.title, ran[0], ran[1], one.outcome != other.outcome, beside))
    return Section("stage", tuple(rows), shown_whole=True)


def _checks(a: Side, b: Side) -> Section:
    """Of stages that have checks in both runs; how one ended counts, what it found does not."""
    rows: list[Row] = []
    for one, other in zip(a.told, b.told, strict=True):
        if one.checks and other.checks:
            first, second = ({c["name"]: c for c in s.checks} for s in (one, other))
            states = _rows({name: c["state"] for name, c in first.items()}, {name: c["state"] for name, c in second.items()})
            rows += [Row(f"{one.title}: {row.what}", row.first, row.second, row.differs,
                         show.line((second.get(row.what) or first[row.what])["evidence"])[:120]) for row in states]
    return Section("check", tuple(rows))


def _commands(a: Side, b: Side) -> Section:
    """What changed something, of stages that came to their end in both runs, without what is each run's own."""
    rows: list[Row] = []
    for one, other in zip(a.told, b.told, strict=True):
        if one.outcome == other.outcome == "done":
            first, second = ({ours(c["shown"], side.info): "run" for c in story.changing}
                             for side, story in ((a, one), (b, other)))
            rows += [Row(f"{one.title}: {row.what}", row.first, row.second, row.differs) for row in _rows(first, second)]
    return Section("command", tuple(rows))


def ours(shown: str, info: runs.RunInfo) -> str:
    """A command without what no two runs share: folder, checkout, home, id, names of pods, ports, pids, sums.

    The id only where it is one: it may be a word or a number that stands elsewhere too.
    """
    text = shown
    for folder in filter(None, (str(info.folder), info.home[0])):  # where it is, and where it was copied from
        text = text.replace(folder, "runs/RUN").replace(f"{Path(folder).parent.parent}/", "")
    text = re.sub(rf"(--name=|clusters/|kwok-|{RUN_LABEL}=){re.escape(info.id)}(?=-model\b|(?![a-z0-9-]))", r"\1RUN", text)
    for pattern, name in OWN:
        text = pattern.sub(name, text)
    return text


def _ladder(a: Side, b: Side) -> Section:
    """Of the first GPU node of each, since its name need not be the same."""
    def rungs(side: Side) -> dict[str, rung_times.Row]:
        found = rung_times.read(side.info.folder)
        return {row.title: row for row in found.nodes[0].rows} if found and found.nodes else {}
    first, second = rungs(a), rungs(b)
    if not first or not second:
        return _only_one("rung", "ladder", first, second)
    rows = []
    for rung in dict.fromkeys([*first, *second]):
        one, other = first.get(rung), second.get(rung)
        told = [f"{r.state}{f', {took(r.took)}' if r.took is not None else ''}" if r else None for r in (one, other)]
        beside = _times(one.took or 0, other.took or 0, least=2) if one and other else ""  # the API tells whole seconds
        rows.append(Row(rung, told[0], told[1], (one and one.state) != (other and other.state), beside))
    return Section("rung", tuple(rows), shown_whole=True)


def _tokens(a: Side, b: Side) -> Iterable[Section]:
    first, second = (tokens(side.info.folder) for side in (a, b))
    if not first or not second:
        yield _only_one("tokens", "answer", first, second)
        return
    prompts = _row("prompt", repr(first["prompt"]), repr(second["prompt"]))
    yield Section("tokens", (prompts, *_arms(first, second)), shown_whole=True)


def _arms(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterable[Row]:
    one, other = ({arm["precision"]: arm for arm in found["arms"]} for found in (first, second))
    yield _row("precisions", ", ".join(one), ", ".join(other))
    for precision in (p for p in one if p in other):
        top, beside = one[precision]["top"], other[precision]["top"]
        mine, yours = ({t["id"]: t["logp"] for t in found} for found in (top, beside))
        common = mine.keys() & yours.keys()
        most = max((abs(mine[token] - yours[token]) for token in common), default=0.0)
        length = min(len(top), len(beside))
        winners = [f"{t[0]['text']!r} {t[0]['p']:.1%}" for t in (top, beside)]
        yield Row(f"{precision}: winner", winners[0], winners[1],
                  max(_lead(mine, beside[0]["id"]), _lead(yours, top[0]["id"])) > NOISE)
        yield Row(f"{precision}: top {length}", str(len(top)), str(len(beside)),
                  max(most, _surplus(mine, yours), _surplus(yours, mine)) > NOISE,
                  f"{len(common)} in both, max |Δ log p| {most:.2g}"
                  + ("" if [t["id"] for t in top] == [t["id"] for t in beside] else ", in another order"))


def _lead(logp: Mapping[int, float], other: int) -> float:
    """By how much the likeliest is ahead of another token; of one that is not listed nobody knows, and it counts."""
    return max(logp.values()) - logp.get(other, -math.inf)


def _surplus(logp: Mapping[int, float], other: Mapping[int, float]) -> float:
    """By how much a token that the other list lacks is above that list's last: one that is not may have missed it by a hair."""
    return max((p - min(other.values()) for token, p in logp.items() if token not in other), default=0.0)


def _latency(a: Side, b: Side) -> Section:
    """Percentiles of each precision in both; no difference, but for a precision that only one of them has."""
    from gpurunbook.bootstrap import ratio_of_medians
    first, second = ({arm["precision"]: arm for arm in latencies(side.info.folder)} for side in (a, b))
    rows = []
    for precision in dict.fromkeys([*first, *second]):
        one, other = first.get(precision), second.get(precision)
        told = [f"{arm['p50']:.1f} / {arm['p95']:.1f} ms" if arm else None for arm in (one, other)]
        note = ""
        if one and other:
            ends = ratio_of_medians(other["samples"], one["samples"])
            interval = f" (95% interval {ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
            note = f"p50 {_ratio(one['p50'], other['p50'])}{interval}, p95 {_ratio(one['p95'], other['p95'])}"
        rows.append(Row(f"{precision}: p50 / p95", told[0], told[1], not (one and other), note))
    return Section("latency", tuple(rows), shown_whole=True)


def _cost(a: Side, b: Side) -> Section:
    spent = [targets.get(side.info.target).spent(side.info.folder) for side in (a, b)]
    told = [one.sentence if one else "nothing" for one in spent]
    return Section("cost", (Row("estimate", told[0], told[1], False),) if any(spent) else (), shown_whole=True)


def to_json(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Every row, those that do not differ too."""
    return [{"section": s.title, "differs": s.differs, "rows": [
        {"what": r.what, "first": r.first, "second": r.second, "differs": r.differs, "note": r.note} for r in s.rows]}
        for s in sections]


def _only_one(title: str, what: str, first: object, second: object) -> Section:
    """Where one of the two, or both, have none."""
    told = ["there" if one else None for one in (first, second)]
    return Section(title, (Row(what, told[0], told[1], True),) if first or second else ())


def _row(what: str, first: str | None, second: str | None) -> Row:
    return Row(what, first, second, first != second)


def _rows(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Row, ...]:
    return tuple(Row(name, first.get(name), second.get(name), first.get(name) != second.get(name))
                 for name in dict.fromkeys([*first, *second]))


def _ratio(first: float, second: float) -> str:
    return f"{second / first:.2f} times"


def _times(first: float, second: float, least: float = 0.05) -> str:
    """`1.30 times`, where both are long enough for that to mean anything."""
    return _ratio(first, second) if min(first, second) >= least else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "none"
