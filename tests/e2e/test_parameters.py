"""papermill over every notebook, each documented parameter at two values, and what comes of them.

Two walks, each on a rehearsal of its own: the first takes each row's first value, the second its second. Then each notebook once
more for another target than its run's, which it must refuse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from gpurunbook import notebooks, processes
from gpurunbook.targets.rehearsal import world
from tests.e2e.conftest import REPOSITORY, Checkout, make_checkout

NOTEBOOKS = {path.stem: path for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))}
ORDER = [name for name in NOTEBOOKS if not name.startswith(("00", "09"))] + [
    name for name in NOTEBOOKS if name.startswith(("00", "09"))]
"""00 shows the state of a walk, so it comes before the teardown."""
RUNS = ("first", "second")
FILES = ("cluster.yaml", "cluster.al2023.yaml")
SLIM = "irbull/dolly:0.2-slim"
PROMPTS = "Long long ago, in a", "Привет, 🌍\n«a\tb» "
OF_ALL = ("run_id", "target", "cluster_file")


@dataclass(frozen=True)
class Walk:
    """A walk that was made: the checkout it was made in, and its run."""

    checkout: Checkout
    run_id: str

    def book(self, notebook: str) -> nbformat.NotebookNode:
        return nbformat.read(self.out(notebook), as_version=4)

    def out(self, notebook: str, suffix: str = "") -> Path:
        return self.checkout.root / f"{self.run_id}-{notebook}{suffix}.ipynb"

    def text(self, notebook: str) -> str:
        """All that its cells showed, as plain text."""
        shown = [output.get("text") or output.get("data", {}).get("text/plain", "")
                 for cell in self.book(notebook).cells if cell.cell_type == "code" for output in cell.outputs]
        return "\n".join(shown)

    def typed(self, words: str) -> bool:
        """Whether a command of the run that changes something holds these words."""
        return any(words in record["shown"] for record in self.checkout.records(self.run_id)
                   if record["kind"] == "intent" and record["changes"])

    def manifest(self) -> str:
        """The Deployment that 06 made for the run; "" where it applied the one in manifests/."""
        made = self.checkout.folder(self.run_id) / "artifacts" / "deployment.yaml"
        return made.read_text() if made.exists() else ""

    def artifact(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.checkout.folder(self.run_id) / "artifacts" / f"{name}.json").read_text())
        return found


def precisions(name: str) -> Callable[[Walk], str]:
    return lambda walk: ",".join(arm["precision"] for arm in walk.artifact(name)["arms"])


def shows(notebook: str, words: str) -> Callable[[Walk], bool]:
    return lambda walk: words in walk.text(notebook)


@dataclass(frozen=True)
class Row:
    """A parameter's two values; and where a rehearsal shows a difference, what to look at and what is seen with each.

    Without `effect` the parameter is for another target: a rehearsal takes it, and does as without.
    """

    notebook: str
    name: str
    values: tuple[Any, Any]
    effect: Callable[[Walk], Any] | None = None
    seen: tuple[Any, Any] = (None, None)


ROWS = [
    *[Row(book, "run_id", RUNS, shows(book, f"run {RUNS[0]} "), (True, False)) for book in NOTEBOOKS],
    *[Row(book, "target", ("rehearsal", "rehearsal"), shows(book, "REHEARSAL"), (True, True)) for book in NOTEBOOKS],
    *[Row(book, "cluster_file", FILES, shows(book, "cluster al2023"), (False, True)) for book in NOTEBOOKS if book != "00_start"],
    Row("00_start", "cluster_file", FILES),  # it shows the run that is named, which has its own
    Row("01_preflight", "image", ("irbull/dolly:0.2", "registry.example/dolly@sha256:" + "0" * 64)),
    Row("01_preflight", "account_check", ("", "cluster-1"), shows("01_preflight", "has no account to try"), (False, True)),
    Row("01_preflight", "max_hours", (0.0, 2.5)),
    Row("01_preflight", "budget", (0.0, 10)),
    Row("02_provision", "uninitialized_taint", (True, False), lambda walk: walk.typed("uninitialized-"), (True, False)),
    Row("02_provision", "pace", ("instant", "0.001"), lambda walk: world.load(world.file(walk.checkout.folder(walk.run_id))).pace,
        (0.0, 0.001)),
    Row("02_provision", "max_hours", (0.0, 2.5)),
    Row("02_provision", "budget", (0.0, 10)),
    Row("02_provision", "confirm", ("", "gpu-cluster")),
    Row("02_provision", "accept_unknown_prices", (False, True)),
    Row("02_provision", "retries", (1, 0)),
    Row("02_provision", "kubeconfig", ("", "elsewhere/kubeconfig")),
    Row("02_provision", "context", ("", "kind-kind")),
    Row("02_provision", "selector", ("", "gpu=yes,zone=a")),
    Row("04_taint", "prepull", (True, False), lambda walk: walk.typed("prepull.yaml"), (True, False)),
    Row("04_taint", "image", (SLIM, ""), shows("04_taint", SLIM), (True, False)),
    Row("05_gpu_operator", "chart", ("stand-in", "manifests/rehearsal/gpu-operator"),
        shows("05_gpu_operator", "the chart at"), (False, True)),
    Row("06_model", "image", ("irbull/dolly:0.2", SLIM), lambda walk: SLIM in walk.manifest(), (False, True)),
    Row("06_model", "weights", ("image", "volume"), lambda walk: "mountPath: /weights" in walk.manifest(), (False, True)),
    Row("07_next_token", "prompt", PROMPTS, lambda walk: walk.artifact("next_tokens")["prompt"], PROMPTS),
    Row("07_next_token", "top", (10, 3), lambda walk: len(walk.artifact("next_tokens")["top"]), (10, 3)),
    Row("07_next_token", "precisions", ("bf16,int8", "bf16"), precisions("next_tokens"), ("bf16,int8", "bf16")),
    Row("08_latency", "prompt", PROMPTS, lambda walk: walk.artifact("latency")["prompt"], PROMPTS),
    Row("08_latency", "precisions", ("bf16", "fp32"), precisions("latency"), ("bf16", "fp32")),
    Row("08_latency", "repetitions", (2, 5), lambda walk: len(walk.artifact("latency")["arms"][0]["samples_ms"]), (2, 5)),
]


def papermill(checkout: Checkout, notebook: str, out: Path, given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    values = json.dumps(given, ensure_ascii=False)  # YAML does not read JSON's pairs of surrogates
    return subprocess.run([sys.executable, "-m", "papermill", f"notebooks/{notebook}.ipynb", out, "-y", values,
                           "-k", "python3", "--no-progress-bar"], cwd=checkout.root, capture_output=True, text=True, timeout=280,
                          env=checkout.environment | {"JUPYTER_PREFER_ENV_PATH": "1"}, stdin=subprocess.DEVNULL, check=False)


def given(notebook: str, which: int) -> dict[str, Any]:
    return {row.name: row.values[which] for row in ROWS if row.notebook == notebook}


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Walk, Walk]]:
    """Both walks, to their end."""
    checkout = make_checkout(tmp_path_factory.mktemp("parameters"))
    text = (REPOSITORY / FILES[1]).read_text()
    (checkout.root / FILES[1]).write_text(text.replace("name: gpu-cluster", "name: al2023"))
    made = Walk(checkout, RUNS[0]), Walk(checkout, RUNS[1])

    try:
        for which, walk in enumerate(made):
            for notebook in ORDER:  # one at a time: two kernels that start at once may be given the same ports
                done = papermill(checkout, notebook, walk.out(notebook), given(notebook, which))
                assert done.returncode == 0, f"{notebook}, {given(notebook, which)}\n{done.stderr[-3000:]}"
        yield made
    finally:
        for run_id in RUNS:
            if processes.of_runs(checkout.folder(run_id)):  # a notebook failed
                checkout("teardown", "--run-id", run_id, check=False)
    left = [p for p in processes.of_runs() if p.run and p.run.is_relative_to(checkout.root)]
    assert not left, f"still alive after the tests: {left}"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_parameter_of_every_notebook_is_in_the_table(notebook: str) -> None:
    rows = [row.name for row in ROWS if row.notebook == notebook]
    assert sorted(rows) == sorted(notebooks.declared(NOTEBOOKS[notebook])), "give a new parameter a row"
    assert not [row for row in ROWS if row.values[0] == row.values[1] and row.name != "target"]


@pytest.mark.timeout(900)  # the fixture is two walks; two minutes on a machine of one's own
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in OF_ALL], ids=lambda row: f"{row.notebook}-{row.name}")
def test_a_parameter_does_what_it_says(walks: tuple[Walk, Walk], row: Row) -> None:
    check(walks, row)


@pytest.mark.parametrize("name", OF_ALL)
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_goes_by_run_target_and_cluster_file(walks: tuple[Walk, Walk], notebook: str, name: str) -> None:
    (row,) = [row for row in ROWS if (row.notebook, row.name) == (notebook, name)]
    check(walks, row)


def check(walks: tuple[Walk, Walk], row: Row) -> None:
    for walk, value, seen in zip(walks, row.values, row.seen, strict=True):
        taken = walk.book(row.notebook).metadata.papermill.parameters[row.name]
        assert taken == value
        if row.effect:
            assert row.effect(walk) == seen, f"{row.notebook}, {row.name}={value!r}"


@pytest.fixture(scope="module")
def refused(walks: tuple[Walk, Walk]) -> dict[str, str]:
    """What each notebook says for a target that its run is not of."""
    walk = walks[0]

    before, said = walk.checkout.records(walk.run_id), {}
    for notebook in NOTEBOOKS:
        done = papermill(walk.checkout, notebook, walk.out(notebook, "-refused"), {"run_id": walk.run_id, "target": "existing"})
        said[notebook] = f"exit {done.returncode}\n{done.stderr}"
    assert walk.checkout.records(walk.run_id) == before, "a refusal leaves the run as it was"
    return said


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_another_target_than_the_runs_is_refused_and_says_so(walks: tuple[Walk, Walk], refused: dict[str, str],
                                                             notebook: str) -> None:
    if notebook == "00_start":  # it only looks, and shows the run that is named as what it is
        shown = nbformat.read(walks[0].out(notebook, "-refused"), as_version=4)
        assert refused[notebook].startswith("exit 0\n")
        assert "run first · REHEARSAL" in json.dumps(shown, ensure_ascii=False)
        return
    assert refused[notebook].startswith("exit 1\n")
    assert "run first belongs to target rehearsal" in refused[notebook]
