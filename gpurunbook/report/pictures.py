"""The charts that a run's notebooks drew, as a page can carry them: light and dark, described, or why there is none."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpurunbook.report.story import StageStory

PNG = b"\x89PNG\r\n\x1a\n"
ROOM = 2_000_000
"""Most bytes of all pictures of a page, before base64, which makes four of three."""
LONGEST = 4_000
"""Characters of a description."""


@dataclass(frozen=True)
class Chart:
    """A chart that a notebook draws: `title` for people, `stage` by which notebook, `alt` where the file does not tell."""

    name: str
    title: str
    stage: str
    alt: str


CHARTS = (
    Chart("top10", "The ten most likely next tokens", "next_token",
          "Bar chart of the ten most likely next tokens; the table below has the same figures."),
    Chart("spread", "How the probability is spread", "next_token",
          "The cumulative probability of the most likely tokens, with the top-p cut and temperatures."),
    Chart("latency", "Latency of a forward pass", "latency",
          "Every timed repetition in order, and their distribution; the table below has the percentiles."),
    Chart("rungs", "Time per rung", "gpu_operator", "Time that each rung of the ladder took, from the node to the GPU."),
)


@dataclass(frozen=True)
class Picture:
    """A chart as data URIs; `dark` is "" where there is only one. `absent` says why there is none: then `light` is "".

    `files` names what artifacts/ has of it.
    """

    chart: Chart
    light: str = ""
    dark: str = ""
    alt: str = ""
    absent: str = ""
    files: str = ""


def pictures(folder: Path, told: Sequence[StageStory], room: int) -> dict[str, Picture]:
    """By name, from artifacts/, of at most `room` bytes together. A chart that is absent says why."""
    outcomes = {story.name: story for story in told}
    found = {chart.name: _files(folder / "artifacts", chart.name) for chart in CHARTS}
    left, made = room, dict[str, Picture]()
    for dark in (False, True):  # all light ones first: a dark one is the same again
        for chart in CHARTS:
            path, before = found[chart.name].get(dark), made.get(chart.name)
            if dark and (path is None or before is None or not before.light):
                continue
            data = path.read_bytes() if path else b""
            if path is None or len(data) > left:
                made.setdefault(chart.name, Picture(chart, absent=_why(chart, outcomes, path, len(data))))
                continue
            left -= len(data)
            uri = f"data:image/{'svg+xml' if path.suffix == '.svg' else 'png'};base64,{base64.b64encode(data).decode()}"
            made[chart.name] = (replace(before, dark=uri) if dark and before else
                                Picture(chart, uri, "", _described(folder / "artifacts", chart), "", _beside(path, chart.name)))
    return made


def _files(folder: Path, name: str) -> dict[bool, Path]:
    """Light and dark: the SVG, which is sharp on paper too, unless the PNG is smaller."""
    found = {}
    for dark, stem in ((False, name), (True, f"{name}.dark")):
        both = [path for ending in ("svg", "png") if (path := folder / f"{stem}.{ending}").is_file()]
        if both:
            found[dark] = min(both, key=lambda path: path.stat().st_size)
    return found


def _beside(path: Path, name: str) -> str:
    """`top10.png, .svg, .csv`: the picture in light, and its figures."""
    return f"{name}" + ", ".join(e for e in (".png", ".svg", ".csv", ".chart.json") if path.with_name(name + e).is_file())


def _why(chart: Chart, told: Mapping[str, StageStory], path: Path | None, size: int) -> str:
    if path:
        return f"No chart: {path.name} has {size / 1e6:.1f} MB, too much for this page; it is in artifacts/."
    story = told[chart.stage]
    if story.outcome == "not run":
        return f"No chart: {story.title} was not run."
    if story.outcome != "done":
        return f"No chart: {story.title} did not come to its end."
    return (f"No chart: {story.title} left no artifacts/{chart.name}.png; run that notebook's chart cell again, then "
            "gpurunbook report.")


def _described(folder: Path, chart: Chart) -> str:
    """What the PNG says of itself, which the notebook wrote with the figures in it."""
    path = folder / f"{chart.name}.png"
    if path.is_file():
        for keyword, text in _texts(path.read_bytes()):
            if keyword == b"Description" and text.strip():
                return text[:LONGEST]
    return chart.alt


def _texts(data: bytes) -> Iterator[tuple[bytes, str]]:
    """(keyword, text) of a PNG's tEXt, zTXt and iTXt chunks (PNG specification, 11.3.3); none of a file that is torn there."""
    at = len(PNG) if data.startswith(PNG) else len(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        at += 12 + length
        keyword, _, rest = body.partition(b"\0")
        try:
            if kind == b"tEXt":
                yield keyword, rest.decode("latin-1")
            elif kind == b"zTXt":
                yield keyword, zlib.decompressobj().decompress(rest[1:], LONGEST).decode("latin-1")
            elif kind == b"iTXt":
                packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[2]
                yield keyword, (zlib.decompressobj().decompress(text, LONGEST) if packed else text).decode("utf-8", "replace")
        except (ValueError, IndexError, zlib.error):
            continue
