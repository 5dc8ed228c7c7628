"""benchmarks/inference: limits and the memory that they are about; cold processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.inference import cold, table
from benchmarks.inference.__main__ import frugal, limits
from benchmarks.inference.worker import own_memory

MB = 10**6
TAKES = """
import mmap, sys
input()
own = b"x" * 50_000_000
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    seen = sum(mapped[i] for i in range(0, len(mapped), 4096))
del own
print("done", flush=True)
input()
"""


def arm(p50: float, *, fails: tuple[str, ...] = (), own: float = 1.0, all_of_it: float = 1.0) -> dict[str, Any]:
    return {"forward": {"ms": [p50] * 20, "p50": p50, "fails": list(fails)},
            "load": {"imports_s": 1.0, "seconds": 1.0, "resident_bytes": 100 * MB, "own_peak_bytes": own * 100 * MB,
                     "peak_bytes": all_of_it * 100 * MB, "peak_after_bytes": all_of_it * 100 * MB}}


def test_a_limit_is_that_of_the_fastest_arm_of_torch_that_passes_the_gate() -> None:
    arms = {"fp32": arm(40), "wrong": arm(1, fails=("KL 0.1",)), "good": arm(10), "slow": arm(20), "llama.cpp Q4_1": arm(5)}
    (row,) = limits({"arms": arms}, (("", "fp32", "forward", 0.35),))
    assert (row["arm"], row["ratio"][0], row["over"]) == ("good", 0.25, False)
    (row,) = limits({"arms": arms}, (("", "llama.cpp Q4_1", "forward", 1.0),))
    assert (row["arm"], row["ratio"][0], row["over"]) == ("good", 2, True)
    assert limits({"arms": arms}, (("wrong", "fp32", "forward", 1.0),)) == []
    assert limits({"arms": arms}, (("good", "not measured", "forward", 1.0),)) == []


@pytest.mark.parametrize(("device", "ratio", "over"), [("cpu", 1.2, False), ("gpu", 3.0, True)])
def test_memory_to_load_is_its_own_on_a_cpu_and_the_devices_on_a_gpu(device: str, ratio: float, over: bool) -> None:
    found = {"device": device, "arms": {"a": arm(1, own=1.2, all_of_it=3), "b": arm(1)}, "loaded_only": {"kept": arm(1)}}
    row, kept = frugal(found, ("a", "kept"), 1.3)
    assert (row["arm"], row["over"], kept["arm"], kept["over"]) == ("a", over, "kept", False)
    assert row["ratio"] == pytest.approx([ratio] * 3)
    (line,) = table.limits([row])
    assert "a / its weights" in line
    assert f"{ratio:.2f}, at most 1.3" in line
    assert ("OVER" in line) is over


def test_the_table_of_loads_has_both_memories_over_the_weights() -> None:
    head, line = table.loads({"arms": {"a": arm(1, own=1.2, all_of_it=2.9)}, "loaded_only": {}})
    assert "own / weights" in head
    assert line.split()[-2:] == ["1.20", "2.90"]


def test_own_memory_is_what_was_taken_and_not_the_pages_of_a_mapped_file(tmp_path: Path) -> None:
    """The peak stays when the memory is given back."""
    (tmp_path / "file").write_bytes(b"x" * 80 * MB)
    with subprocess.Popen([sys.executable, "-c", TAKES, tmp_path / "file"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as child:
        assert child.stdin
        assert child.stdout
        with own_memory(child.pid) as peak:
            print(file=child.stdin, flush=True)
            assert child.stdout.readline() == "done\n"
        child.communicate("\n")
    assert 49 * MB < peak[0] < 60 * MB


def test_a_process_that_dies_meanwhile_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child, own_memory(child.pid):
        child.communicate(b"\n")


def test_a_cold_process_is_drawn_by_part() -> None:
    row = {"start": 0.1, "imports": 2.0, "load": 0.8, "first call": 0.1, "after": 0.5}
    head, line, bar = table.cold({"main.py": row})
    assert set(cold.PARTS) == set(row)
    assert "(after)" in head
    assert line.split() == ["main.py", "3.00", "0.10", "2.00", "0.80", "0.10", "0.50"]
    assert bar.strip() == "ss" + "i" * 40 + "l" * 16 + "ff"
