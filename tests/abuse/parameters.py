"""Values of parameters: by `gpurunbook run -p`, and by papermill itself on our notebooks and on one that tells what arrived."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from papermill.translators import PythonTranslator

from gpurunbook.errors import ConfigError
from gpurunbook.parameters import OURS, check_parameters, parameters
from gpurunbook.programs.kubectl import Kubectl
from gpurunbook.stages import notebook
from tests.abuse.inputs import checkout, papermilled, texts, tried
from tests.abuse.outcome import Outcome

FAMILY = "parameters"
DIRECT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("taint", {"run_id": "../../x"}), ("taint", {"prepull": [[[["deep"]]]]}), ("preflight", {"cluster_file": "/dev/zero"}),
    ("model", {"image": "--kubeconfig=x $(id)"}), ("next_token", {"prompt": "a\0b"}),
    ("provision", {"run_id": 5, "max_hours": "1"}))
"""Stage and what papermill is given: the notebook itself has to refuse it, before a run folder is made."""


def attack(seed: int) -> Iterator[Outcome]:
    with checkout() as root:
        known = {name: value for cell in parameters(root).values() for name, value in cell.items() if name not in OURS}
        hostile = list(texts(seed, 60))
        for name in sorted(known):
            for text in hostile:
                yield tried(FAMILY, f"{name}={text}", lambda name=name, text=text: _checked(root, name, text, known[name]))
        yield from _arrives(root, [text for text in hostile if _passes(root, text)])
        for stage, given in DIRECT:
            yield _direct(root, stage, given)
        for text in ("prompt=", "top=1;id", "image=--kubeconfig=x", "image=\udcff"):
            yield _typed(root, text)


def _passes(root: Path, text: str) -> bool:
    with suppress(ConfigError):
        return check_parameters(root, [f"prompt={text}"]) == {"prompt": text}
    return False


def _checked(root: Path, name: str, text: str, default: Any) -> str:
    """"" when the value that passes is the text itself: for papermill's cell, as an argument, and in the line that is shown."""
    value = check_parameters(root, [f"{name}={text}"])[name]
    if not isinstance(default, str):
        return "" if type(value) is type(default) else f"it became {value!r}"
    command = Kubectl("/bin/kubectl", Path("/k"), "c").exec("pod", "python", f"--{name}", value, container="c", why="")
    if value != text or ast.literal_eval(PythonTranslator.translate(value)) != text:
        return f"it became {value!r}"
    return "" if value in command.argv and shlex.split(command.short)[-1] == text else f"shown as {command.short!r}"


def _arrives(root: Path, good: list[str]) -> Iterator[Outcome]:
    """All that passes for a prompt, through one real kernel: what the notebook's code sees is what was typed."""
    names = [f"v{number}" for number in range(len(good))]
    book = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("\n".join(f'{name} = ""' for name in names), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"import json\nopen('arrived.json', 'w').write(json.dumps([{', '.join(names)}]))")])
    book.metadata["language_info"] = {"name": "python"}
    nbformat.write(book, root / "tells.ipynb")
    assert papermilled(root / "tells.ipynb", dict(zip(names, good, strict=True))) == ""
    for sent, came in zip(good, json.loads((root / "arrived.json").read_text()), strict=True):
        yield Outcome(FAMILY, f"through a kernel: {sent[:60]}", "literal" if sent == came else "violation", repr(came))


def _direct(root: Path, stage: str, given: dict[str, Any]) -> Outcome:
    name = f"papermill {stage} {given}"
    said = papermilled(root / "notebooks" / notebook(stage), given)
    refused = said.startswith("ConfigError: ") and not (root / "runs").exists()
    return Outcome(FAMILY, name, "refused" if refused else "violation", said or "it went through")


def _typed(root: Path, text: str) -> Outcome:
    done = subprocess.run([sys.executable, "-m", "gpurunbook", "run", "-p", text], cwd=root, capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL, check=False)
    refused = done.returncode == 2 and b"Traceback" not in done.stderr and not (root / "runs").exists()
    return Outcome(FAMILY, f"gpurunbook run -p {text}", "refused" if refused else "violation", f"{done.stderr!r}")
