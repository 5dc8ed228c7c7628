"""`make abuse`, as CI runs it: every family tries its inputs, and none does harm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.abuse.__main__ import FAMILIES

ROOT = Path(__file__).parents[2]
AT_LEAST = {"parameters": 3000, "names": 300, "yaml": 700, "cluster_file": 500, "cli": 700, "answers": 1500,
            "pages": 150, "screens": 4, "secrets": 300}
"""How many inputs each of these families tries whatever the seed, so that none of them shrinks unseen."""


@pytest.mark.timeout(900)
def test_no_hostile_input_does_harm() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.abuse", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=800,
                          stdin=subprocess.DEVNULL, check=False)
    assert done.stdout, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["violations"] == [], f"again: python -m tests.abuse --seed {told['seed']}"
    assert done.returncode == 0
    assert set(told["families"]) == set(FAMILIES)
    for name, counts in told["families"].items():
        tried = counts["refused"] + counts["literal"]
        assert tried >= AT_LEAST.get(name, 1), name
    for name in ("parameters", "yaml", "cluster_file"):
        assert min(told["families"][name][how] for how in ("refused", "literal")) > 20, f"{name} tries one kind of input only"


def test_a_violation_is_told_with_its_seed_and_fails(tmp_path: Path) -> None:
    """A family that does harm: were it counted as good, `make abuse` could not fail."""
    harm = ("import sys, types\nfrom tests.abuse import __main__ as abuse\nfrom tests.abuse.outcome import Outcome\n"
            "bad = types.ModuleType('tests.abuse.bad')\n"
            "bad.attack = lambda seed: iter([Outcome('bad', 'x', 'refused'), Outcome('bad', 'y\\x1b', 'violation', 'seen')])\n"
            "empty = types.ModuleType('tests.abuse.empty')\nempty.attack = lambda seed: iter(())\n"
            "sys.modules |= {'tests.abuse.bad': bad, 'tests.abuse.empty': empty}\n"
            "abuse.FAMILIES = ('bad', 'empty')\nsys.exit(abuse.main(['--seed', '7']))\n")
    done = subprocess.run([sys.executable, "-c", harm], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "violation, seed 7: bad: 'y\\x1b'" in done.stdout
    assert "it tried nothing" in done.stdout
    assert "hostile inputs tried 3, refused 1, literal 0, violations 2" in done.stdout
