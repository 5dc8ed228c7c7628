"""The notebooks as files: what their `parameters` cells declare, and whether their code is the shipped one.

shipped.json has the SHA-256 of each code cell of each notebook as this version of the package has it; `python -m
gpurunbook.notebooks` writes it again. A cell that only sets names to literals counts by its names and types: which values
they have is a person's to choose, and is journalled. Cells that papermill put in do not count.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from gpurunbook import stages, yaml_file
from gpurunbook.errors import ConfigError

SHIPPED = Path(__file__).with_name("shipped.json")
MAX_BYTES = 8 * 2**20
"""Of a notebook: one that was saved with its pictures has less than 1 MB."""
INJECTED = "injected-parameters"
"""The tag of the cell in which papermill sets the parameters that it was given."""
AGAIN = "git checkout notebooks/, or: gpurunbook init . --force"
"""How to have the shipped notebooks back: from the repository, or from the wheel."""


@dataclass(frozen=True)
class Code:
    """The code of one notebook. `modified` says how it differs from the shipped one; "" when it does not."""

    sha256: str
    modified: str


def path(root: Path, stage: str) -> Path:
    return root / "notebooks" / stages.notebook(stage)


def declared(notebook: Path) -> dict[str, Any]:
    """The literals of its `parameters` cell by name. Raises ConfigError when it has no such cell, or another kind of one."""
    cell = next((c for c in _code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])), None)
    found = literals(cell["source"]) if cell else None
    if found is None:
        raise ConfigError(f"{notebook.name} has no cell tagged `parameters` that only sets names to literals",
                          where=str(notebook), next=AGAIN)
    return found


def literals(source: str) -> dict[str, Any] | None:
    """Name -> value of code that only sets names to literals; None for any other code."""
    found = {}
    try:
        for node in ast.parse(source).body:
            if not (isinstance(node, ast.Assign) and [type(target) for target in node.targets] == [ast.Name]):
                return None
            found[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    return found


def code(root: Path, stage: str) -> Code:
    """Raises ConfigError when the notebook cannot be read."""
    # One that does more than set names was not put in by papermill, whatever its tag says.
    found = [digest(c["source"]) for c in _code_cells(path(root, stage))
             if INJECTED not in c["metadata"].get("tags", []) or literals(c["source"]) is None]
    ours = _shipped()[stage]
    other = [number for number, one in enumerate(found, 1) if one not in ours]
    lacks = sum(one not in found for one in ours) - len(other)
    if other:
        modified = f"code cell {', '.join(map(str, other))} of {len(found)} changed"
    else:
        modified = f"{lacks} code cells are gone" if lacks > 0 else "" if found == ours else "its code cells in another order"
    return Code(sha256("".join(found).encode()).hexdigest(), modified)


def is_shipped(stage: str, source: str) -> bool:
    """Whether a cell's source is that of one of the stage's shipped cells, or nothing at all."""
    return not source.strip() or digest(source) in _shipped()[stage]


def digest(source: str) -> str:
    """SHA-256 of a code cell, in hex."""
    if found := literals(source):
        source = "\n".join(f"{name}: {type(value).__name__}" for name, value in found.items())
    return sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _shipped() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return found


def _code_cells(notebook: Path) -> list[dict[str, Any]]:
    text = yaml_file.text(notebook, most=MAX_BYTES)
    try:
        book = json.loads(text)
        if book["nbformat"] != 4 or "worksheets" in book:
            raise ValueError("of another format")  # other cells than these would be run
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        return [cell | {"source": "".join(cell["source"]), "metadata": dict(cell["metadata"])} for cell in cells]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{notebook.name} is no notebook: {type(error).__name__}", where=str(notebook),
                          next=f"{AGAIN}; or save it again from JupyterLab") from error


def _ship(root: Path) -> None:
    found = {stage: [digest(cell["source"]) for cell in _code_cells(path(root, stage))]
             for stage in (stages.START, *stages.NAMES)}
    SHIPPED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _ship(Path(__file__).parents[1])
