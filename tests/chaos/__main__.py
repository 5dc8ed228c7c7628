"""`python -m tests.chaos [--long] [--seed N] [--json]`: kills a rehearsal at the boundaries of its journal, and goes on."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tests.chaos.matrix import Matrix, Reference, sample

SHORT_POINTS, SHORT_PAIRS, LONG_PAIRS = 14, 7, 30


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="every boundary, and 30 pairs")
    parser.add_argument("--seed", type=int, default=None, help="of what is drawn (default: a new one, printed)")
    parser.add_argument("--json", action="store_true", help="the figures as one line of JSON")
    parser.add_argument("--pair", type=int, default=None, help="only this pair of the seed's")
    parser.add_argument("--chains", action="store_true", help="only the chains")
    parser.add_argument("--points", type=int, default=SHORT_POINTS, help="of the short form")
    parser.add_argument("--pairs", type=int, default=LONG_PAIRS, help="of the long form")
    parser.add_argument("--point", default=None, help="only this point of a chain, as a violation names it")
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the lanes end what they started
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="gpurunbook-chaos-"))
    print(f"seed {seed}", file=sys.stderr, flush=True)
    matrix = Matrix(folder, seed, lambda line: print(line, file=sys.stderr, flush=True))
    if chosen.pair is not None:
        reference = matrix.reference()
        matrix.pair(reference, matrix.pairs(reference, chosen.pair + 1)[chosen.pair])
    elif chosen.point is not None:
        reference = matrix.reference()
        matrix.chains(reference, [chosen.point])
    elif chosen.long:
        reference = matrix.reference(2)
        matrix.chains(reference, None)
        for pair in [] if chosen.chains else matrix.pairs(reference, chosen.pairs):
            matrix.pair(reference, pair)
    else:
        reference = matrix.reference()
        _short(matrix, reference, seed, chosen.points, pairs=not chosen.chains)
    found = matrix.figures
    figures = {"seed": seed, "form": "long" if chosen.long else "short", "boundaries": len(reference.boundaries),
               "boundaries_killed": len({point.partition(" ")[2] for point in found.points}), "points_killed": len(found.points),
               "pairs": found.pairs, "resumes": found.resumes, "clusters": found.lanes,
               "violations": len(found.violations), "seconds": round(time.monotonic() - began)}
    if chosen.json:
        print(json.dumps(figures | {"found": [asdict(v) for v in found.violations]}))
    else:
        print("  ".join(f"{name} {value}" for name, value in figures.items()))
    if found.violations:
        print(f"seed {seed}: the checkouts of what did not hold are kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if found.violations else 0


def _short(matrix: Matrix, reference: Reference, seed: int, points: int, *, pairs: bool) -> None:
    """A chain at some points and one run with all pairs, side by side."""
    with ThreadPoolExecutor(2) as pool:
        chain = pool.submit(matrix.chains, reference, sample(reference, points, seed))
        for pair in matrix.pairs_in_one(reference, matrix.pairs(reference, SHORT_PAIRS)) if pairs else ():
            matrix.pair(reference, pair)
        chain.result()


if __name__ == "__main__":
    sys.exit(main())
