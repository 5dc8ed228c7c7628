"""What is printed of a run: a table for each thing that is timed, the loads, and the limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MB = 1e6


def arms(found: Mapping[str, Any], what: str, base: str) -> Iterator[str]:
    """An arm a line, fastest first; below them those that fail the gate, without a ratio."""
    copied = found["copy_bytes_per_second"]
    head = f"{'of ' + base:>21}" if base else ""
    yield (f"{what:22} {'p50':>7} {'p95':>7} {'p99':>7} {'first':>8}  {head}  {'MB read':>7} {'of copy':>7}  shared   |d|     KL")
    rows = {name: arm[what] for name, arm in found["arms"].items()}
    for name, row in sorted(rows.items(), key=lambda item: (bool(item[1]["fails"]), item[1]["p50"])):
        times = " ".join(f"{row[q]:7.2f}" for q in ("p50", "p95", "p99"))
        shown = "{:6.2f} ({:.2f} to {:.2f})".format(*row["ratio"]) if row["ratio"] else ""
        q = row["quality"]
        gate = f"{q['shared']:5.1f} {q['delta']:6.2f} {q['kl']:7.4f}" if q else ""
        read = found["arms"][name]["load"]["read_bytes"]
        share = read / row["p50"] * 1e3 / copied
        yield (f"  {name:20} {times} {row['first_ms']:8.1f}  {shown:>21}  {read / MB:7.0f} {share:7.0%}   {gate}"
               + ("  FAILS: " + ", ".join(row["fails"]) if row["fails"] else ""))


def loads(found: Mapping[str, Any]) -> Iterator[str]:
    """`own` is memory that the system cannot take back, at most while loading; `all` has the pages of mapped files too, and the
    calls': transformers maps a checkpoint, and its pages become resident when they are read."""
    yield (f"{'load':22} {'imports s':>9} {'load s':>7} {'weights MB':>11} {'own MB':>8} {'all MB':>8} {'own / weights':>14} "
           f"{'all / weights':>14}")
    for name, arm in {**found["arms"], **found["loaded_only"]}.items():
        load = arm["load"]
        weights, own, both = load["resident_bytes"], load["own_peak_bytes"], load["peak_after_bytes"]
        yield (f"  {name:20} {load['imports_s']:9.1f} {load['seconds']:7.2f} {weights / MB:11.0f} {own / MB:8.0f} "
               f"{both / MB:8.0f} {own / weights:14.2f} {both / weights:14.2f}")


def limits(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in found:
        middle, low, high = one["ratio"]
        shown = f"{middle:5.2f}" + (f" ({low:.2f} to {high:.2f})" if low < high else "")  # memory is counted once
        over = "  OVER" if one["over"] else ""
        yield f"{one['what']:8} {one['arm']} / {one['base']:16} {shown}, at most {one['limit']:g}{over}"


def cold(parts: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Seconds from exec to the first token, by part, as bars of the same scale; and what follows until the process has ended."""
    names = ("start", "imports", "load", "first call")
    scale = 60 / max(sum(row[name] for name in names) for row in parts.values())
    yield f"{'cold process':34} {'total s':>7}  " + "  ".join(f"{name:>10}" for name in (*names, "(after)"))
    for how, row in parts.items():
        yield f"  {how:32} {sum(row[n] for n in names):7.2f}  " + "  ".join(f"{row[name]:10.2f}" for name in (*names, "after"))
        yield "  " + "".join(mark * round(row[name] * scale) for name, mark in zip(names, "silf", strict=True))


def noise(doubts: Sequence[str], what: str) -> Iterator[str]:
    for doubt in doubts:
        yield f"NOISY, {what}: {doubt}"
    if not doubts:
        yield f"quiet, {what}: nothing speaks against these samples"
