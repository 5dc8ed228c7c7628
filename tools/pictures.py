"""Take the README's pictures from a run: .github/pictures/NAME-{light,dark}.png.

    .venv/bin/gpurunbook run --run-id pictures && .venv/bin/python tools/pictures.py runs/pictures

They are the charts that the run's notebooks drew, in fewer colours, which nobody sees and which makes them a quarter as large.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

NAMES = ("top10", "spread", "latency")
COLOURS = 96
"""Enough for all edges of letters; an eye finds no difference at twice a screen's resolution."""
FOLDER = Path(__file__).resolve().parents[1] / ".github" / "pictures"


def main(run: Path, folder: Path = FOLDER) -> None:
    """Raises SystemExit when the run lacks a chart; nothing is written then."""
    found = {(name, theme): run / "artifacts" / f"{name}{ending}.png"
             for name in NAMES for theme, ending in (("light", ""), ("dark", ".dark"))}
    if missing := [path for path in found.values() if not path.is_file()]:
        sys.exit(f"{missing[0]} is not there: run the notebooks 07 and 08 of this run first")
    folder.mkdir(parents=True, exist_ok=True)
    for (name, theme), path in found.items():
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(folder / f"{name}-{theme}.png", optimize=True)
        print(f"{name}-{theme}.png  {(folder / f'{name}-{theme}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("which run? python tools/pictures.py runs/ID")
    main(Path(sys.argv[1]))
