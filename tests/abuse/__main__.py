"""Every family of hostile input, each input counted as refused, literal or violation. Exit code 1 on a violation."""

from __future__ import annotations

import argparse
import importlib
import json
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tests.abuse.outcome import Outcome

FAMILIES = ("parameters", "names", "yaml", "cluster_file", "cli", "answers", "pages", "screens", "secrets")
"""The modules beside this one that have `attack(seed)`."""


def main(argv: Sequence[str] | None = None) -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    asked.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of every random choice (default: random)")
    asked.add_argument("--family", action="append", choices=FAMILIES, help="only this one; may be repeated")
    asked.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    given = asked.parse_args(argv)
    say = (lambda *text: None) if given.json else (lambda *text: print(*text, flush=True))
    say(f"seed {given.seed}")
    say(f"{'family':14}{'tried':>8}{'refused':>9}{'literal':>9}{'violations':>12}{'seconds':>9}")
    counts, found = {}, []
    for family in given.family or FAMILIES:
        began, how = time.monotonic(), Counter[str]()
        for outcome in _outcomes(family, given.seed):
            how[outcome.how] += 1
            if outcome.how == "violation":
                found.append(outcome)
                say(f"violation, seed {given.seed}: {outcome.family}: {ascii(outcome.name)[:300]}\n    "
                    f"{ascii(outcome.evidence)[:1000]}")
        seconds = time.monotonic() - began
        counts[family] = {"refused": 0, "literal": 0, "violation": 0} | dict(how) | {"seconds": round(seconds, 1)}
        say(f"{family:14}{how.total():8}{how['refused']:9}{how['literal']:9}{how['violation']:12}{seconds:9.1f}")
    total = {how: sum(int(each[how]) for each in counts.values()) for how in ("refused", "literal", "violation")}
    say(f"hostile inputs tried {sum(total.values())}, refused {total['refused']}, literal {total['literal']}, "
        f"violations {total['violation']}")
    if given.json:
        print(json.dumps({"seed": given.seed, "families": counts, "total": total, "violations": [asdict(o) for o in found]}))
    return 1 if found else 0


def _outcomes(family: str, seed: int) -> Iterator[Outcome]:
    """What a family tried; a family that breaks off, or tries nothing, is a violation itself: it proved nothing."""
    tried = 0
    try:
        for outcome in importlib.import_module(f"tests.abuse.{family}").attack(seed):
            tried += 1
            yield outcome
    except Exception:  # the others are tried all the same
        yield Outcome(family, "the family itself", "violation", traceback.format_exc()[-900:])
    else:
        if not tried:
            yield Outcome(family, "the family itself", "violation", "it tried nothing")


if __name__ == "__main__":
    sys.exit(main())
