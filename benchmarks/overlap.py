"""What beginning the image's pull before the operator's installation saves: two paced rehearsals in one run.

    overlapped      from all nodes Ready to the model's first answer / (the longer of operator and pull, and the answer);
                    at most 1.05
    one by one      the same walk without the pre-pull, same pace and same seed: overlapped / one by one

Delays are those of gpurunbook/targets/rehearsal/pace.py times PACE, an environment variable; 1, as long as AWS, takes 12 minutes.
What notebooks add (some 10 s) weighs more at a faster pace. Results go to benchmarks/results/overlap.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rehearsal import ROOT, make_checkout

from gpurunbook.journal import Journal
from gpurunbook.report.gantt import Gantt, gantt

RESULTS = Path(__file__).parent / "results" / "overlap.json"
PACE = float(os.environ.get("PACE", "1"))
LIMIT = 1.05


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gpurunbook-bench-") as name:
        both = walked(Path(name) / "both", "prepull=true")
        serial = walked(Path(name) / "serial", "prepull=false")
    floor = max(both["operator"], both["pull"]) + both["answer"]
    found = {"pace": PACE, "overlapped": both, "one_by_one": serial, "ratio_to_floor": both["wall"] / floor,
             "ratio_to_one_by_one": both["wall"] / serial["wall"], "when": datetime.now(UTC).isoformat(timespec="seconds"),
             "cpus": os.cpu_count()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    over = found["ratio_to_floor"] > LIMIT
    print(f"overlapped     {found['ratio_to_floor']:6.2f}, at most {LIMIT}{'  OVER' if over else ''}  ({both['wall']:.0f} s / "
          f"(max(operator {both['operator']:.0f}, pull {both['pull']:.0f}) + answer {both['answer']:.0f}) s, pace {PACE:g})")
    print(f"one by one     {found['ratio_to_one_by_one']:6.2f}  ({both['wall']:.0f} s / {serial['wall']:.0f} s)")
    print(f"kept in {RESULTS.relative_to(ROOT)}")
    sys.exit(over)


def walked(folder: Path, parameter: str) -> dict[str, float]:
    """Seconds of a walk: `wall` from all nodes Ready to the answer, and of its parts `operator`, `pull`, `answer`."""
    checkout = make_checkout(folder)
    call = [sys.executable, "-m", "gpurunbook"]
    try:
        subprocess.run([*call, "run", "--run-id", "paced", "--until", "next_token", "-p", f"pace={PACE}", "-p", parameter],
                       cwd=checkout, check=True, stdout=sys.stderr)
        found = gantt(Journal(checkout / "runs" / "paced").records())
    finally:
        subprocess.run([*call, "teardown", "--run-id", "paced"], cwd=checkout, check=True, stdout=sys.stderr)
    assert found is not None
    assert found.overlap is not None, "no pull, operator or answer was journalled"
    return {"wall": found.overlap.wall, **parts(found)}


def parts(found: Gantt) -> dict[str, float]:
    """The longest of each kind, in seconds."""
    return {kind: max(bar.seconds for bar in found.bars if bar.kind == kind) for kind in ("operator", "pull", "answer")}


if __name__ == "__main__":
    main()
