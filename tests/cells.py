"""Execute cells in a real kernel, in a process of its own (nbclient leaves event loops behind), and say when what was seen.

`cells.executed(sources)` in a test; `python -m tests.cells` is its other end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VISIBLE = ("status", "stream", "display_data", "update_display_data", "execute_result", "error")


@dataclass(frozen=True)
class Cell:
    """`silence`: the longest time, in seconds, between two visible messages; `updates` of displays; outputs as in a notebook."""

    silence: float
    updates: int
    outputs: list[Any]

    @property
    def errors(self) -> list[str]:
        return ["\n".join(o["traceback"]) for o in self.outputs if o["output_type"] == "error"]

    @property
    def shown(self) -> list[dict[str, str]]:
        return [o["data"] for o in self.outputs if o["output_type"] == "display_data"]


def executed(sources: Sequence[str], cwd: Path = ROOT) -> list[Cell]:
    """The cells, as they were after they ran one after the other; errors end none of them."""
    done = subprocess.run([sys.executable, "-m", "tests.cells", str(cwd)], input=json.dumps(sources), capture_output=True,
                          text=True, timeout=180, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Cell(**cell) for cell in json.loads(done.stdout.splitlines()[-1])]


def main(cwd: str) -> None:
    import nbformat.v4
    from nbclient import NotebookClient
    times: dict[int, list[tuple[float, str]]] = {}

    class Client(NotebookClient):
        def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] in VISIBLE:
                times.setdefault(cell_index, []).append((time.monotonic(), msg["msg_type"]))
            return super().process_message(msg, cell, cell_index)

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)])
    Client(book, timeout=120, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": cwd}}).execute()
    found = []
    for index, cell in enumerate(book.cells):
        at, kinds = zip(*times[index], strict=True)
        found.append({"silence": max(b - a for a, b in pairwise(at)),
                      "updates": kinds.count("update_display_data"), "outputs": cell.outputs})
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
