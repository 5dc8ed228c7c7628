"""Temperature and top-p on stored logits, with sliders and without; and another prompt, which changes nothing of 07's."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from nbconvert.exporters import HTMLExporter

from gpurunbook import distribution, explore
from gpurunbook.command import Command, Result
from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.prediction import Prediction
from gpurunbook.runbook import Run
from gpurunbook.stages import in_pod, next_token
from gpurunbook.targets.rehearsal.cluster import Rehearsal
from tests.answer import answer
from tests.unit.test_copy_exec import DIGEST, facts

ROOT = Path(__file__).resolve().parents[2]
RAW = {"int8": np.array([1, 3, 2, 0], "<f4"), "reference": np.array([1, 2, 3, 0], "<f4")}


def arm(precision: str, top: int = 4) -> dict[str, Any]:
    p = np.exp(RAW[precision].astype(np.float64))
    p /= p.sum()
    order = np.argsort(-p)[:top].tolist()
    return answer()["arms"][0] | {
        "precision": precision, "top_mass": float(np.sort(p)[::-1][:top].sum()),
        "top": [{"id": i, "text": f" w{i}", "token": f"Ġw{i}", "p": float(p[i]), "logp": math.log(p[i])} for i in order],
        "logits_sha256": hashlib.sha256(RAW[precision].tobytes()).hexdigest()}


class Measured(Run):
    """A run whose 07 is done, in whose pod main.py answers at once."""

    asked: tuple[Command, ...] = ()

    def program(self, name: str) -> str:
        return f"/bin/{name}"

    def ask(self, command: Command, check: bool = True) -> Result:
        self.asked += (command,)
        if in_pod.READ in command.argv:
            return Result(command, 0, RAW["int8" if "int8" in command.argv[-1] else "reference"].tobytes(), "", 0.1)
        given = dict(a[2:].split("=", 1) for a in command.argv if a.startswith("--") and "=" in a)
        said = answer(prompt=given["prompt"], vocab_size=4, arms=[arm(p, int(given["top"])) for p in RAW])
        sentinel = next(a for a in command.argv if a.startswith(in_pod.OPTION)).removeprefix(in_pod.OPTION)
        return Result(command, 0, f"{json.dumps(said)}\n{sentinel}".encode(), "main.py: loading", 0.1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "next_token")
    made.kubeconfig.touch()
    next_token.save(made, Prediction(answer(vocab_size=4, arms=[arm(p) for p in RAW])))
    for precision, raw in RAW.items():
        raw.tofile(made.artifacts / f"logits.{precision}.f32")
    monkeypatch.setattr(next_token, "observe", lambda _: facts(digest=DIGEST))
    return made


@pytest.mark.parametrize(("temperature", "top_p"), [(1, 1), (0.5, 1), (2, 1), (1, 0.9), (1, 0.5), (0.7, 0.95), (5, 0.3)])
def test_at_is_what_a_sampler_does(run: Measured, temperature: float, top_p: float) -> None:
    p = np.exp(RAW["int8"].astype(np.float64) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    keep = int(np.searchsorted(np.cumsum(p[order]), top_p - 1e-12)) + 1
    expected = np.where(np.arange(4) < keep, p[order], 0)
    found = explore.at(run, temperature, top_p, 4)
    assert [name for name, _, _ in found.rows] == [f"·w{i}" for i in order]
    assert [chance for _, chance, _ in found.rows] == pytest.approx(expected / expected.sum())
    assert [bool(note) for _, _, note in found.rows] == [chance == 0 for chance in expected]
    assert (f"keeps {keep} of 4 tokens" in found.caption) == (top_p < 1)


def test_another_precision_and_fewer_tokens(run: Measured) -> None:
    found = explore.at(run, tokens=2, precision="reference")
    assert [name for name, _, _ in found.rows] == ["·w2", "·w1"]
    assert found.rest[1] == pytest.approx(1 - sum(chance for _, chance, _ in found.rows))
    assert "reference" in found.caption


@pytest.mark.parametrize(("settings", "word"), [
    ({"temperature": 0}, "temperature 0"), ({"temperature": float("nan")}, "temperature nan"), ({"top_p": 0}, "top-p 0"),
    ({"top_p": 1.1}, "top-p 1.1"), ({"tokens": 0}, "0 tokens"), ({"tokens": 5}, "5 tokens"), ({"precision": "nf4"}, "'nf4'"),
])
def test_a_setting_out_of_range_says_the_range(run: Measured, settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explore.at(run, **{"tokens": 4, **settings})
    assert word in caught.value.what
    assert caught.value.next


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / "next_tokens.json").unlink(),
    lambda folder: (folder / "next_tokens.json").write_text("[]"),
    lambda folder: (folder / "next_tokens.json").write_text("{"),
    lambda folder: (folder / "logits.int8.f32").unlink(),
    lambda folder: (folder / "logits.int8.f32").write_bytes(b"123"),
    lambda folder: (folder / "logits.int8.f32").write_bytes(b"\xff" * 16),
    lambda folder: (folder / "logits.int8.f32").write_bytes(b"\0" * 20),
], ids=["nothing measured", "a list", "torn", "no logits", "no number", "NaN", "another vocabulary"])
def test_what_07_did_not_leave_is_said(run: Measured, spoil: Any) -> None:
    spoil(run.artifacts)
    with pytest.raises(RunbookError, match=r"notebooks/07_next_token|run this notebook again"):
        explore.at(run, tokens=4)


def test_outside_a_notebook_there_is_the_table(run: Measured) -> None:
    assert repr(explore.sliders(run)) == repr(explore.at(run, tokens=4))


def test_the_sliders_move_the_table(run: Measured) -> None:
    import ipywidgets
    temperature, top_p, tokens, table = explore._box(ipywidgets, explore.stored(run)).children
    assert table.value == explore.at(run, tokens=4)._repr_html_()
    temperature.value, top_p.value, tokens.value = 0.5, 0.9, 3
    assert table.value == explore.at(run, 0.5, 0.9, 3)._repr_html_()
    for far, end in ((99, "temperature 4.79:"), (0.001, "temperature 0.05:")):
        temperature.value = far
        assert end in table.value


def test_the_sliders_begin_on_a_step(run: Measured) -> None:
    """A front end moves a value that is on none: 1 became 0.998."""
    import ipywidgets
    temperature, top_p, _, _ = explore._box(ipywidgets, explore.stored(run)).children
    for start, least, step in ((math.log10(temperature.value), temperature.min, temperature.step),
                               (top_p.value, top_p.min, top_p.step)):
        steps = (start - least) / step
        assert steps == pytest.approx(round(steps), abs=1e-9)
    assert temperature.value == top_p.value == 1


@pytest.mark.parametrize("somebody", [True, False])
def test_a_kernel_has_sliders_only_where_somebody_sits(run: Measured, somebody: bool) -> None:
    """Where people can type there are sliders; the table is in what is saved of them too, for a page without a kernel."""
    code = ("from types import SimpleNamespace\nfrom pathlib import Path\nfrom gpurunbook import explore\n"
            f"explore.sliders(SimpleNamespace(artifacts=Path({str(run.artifacts)!r})))")
    shown: list[dict[str, Any]] = []

    def hook(message: dict[str, Any]) -> None:
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] == "execute_result":
            shown.append(message["content"]["data"])

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        client.execute_interactive(code, allow_stdin=somebody, output_hook=hook, timeout=120)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    [data] = shown
    assert ("application/vnd.jupyter.widget-view+json" in data) == somebody
    still = explore.at(run, tokens=4)
    assert (data["text/html"], data["text/plain"]) == (still._repr_html_(), repr(still))
    output = nbformat.v4.new_output("execute_result", data=data)  # type: ignore[no-untyped-call]
    page, _ = HTMLExporter().from_notebook_node(  # type: ignore[no-untyped-call]
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])]))  # type: ignore[no-untyped-call]
    assert "·w1" in page


def test_without_ipywidgets_it_says_how_to_have_it(run: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(explore, "_somebody", lambda: True)
    assert "pip install ipywidgets" in repr(explore.sliders(run))


def test_another_prompt_runs_in_the_pod_and_leaves_07_alone(run: Measured) -> None:
    before = {path.name: path.read_bytes() for path in run.artifacts.iterdir()}
    found = explore.ask(run, "Once", top=3)
    assert found["prompt"] == "Once"
    assert len(found["arms"][0]["top"]) == 3
    assert set(found["arms"][0]["top"][0]["p_in"]) == {"int8", "reference"}
    assert {path.name: path.read_bytes() for path in run.artifacts.iterdir() if path.name in before} == before
    assert {path.name for path in run.artifacts.iterdir()} - before.keys() == {
        "asked.json", "asked.int8.f32", "asked.reference.f32"}
    assert f"--logits={next_token.FOLDER}/asked.f32" in run.asked[0].argv
    assert run.journal.last("artifact")["path"] == "artifacts/asked.json"  # type: ignore[index]


def test_another_prompt_is_refused_without_our_program(run: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_token, "observe", lambda _: facts(digest="0" * 64))
    with pytest.raises(RunbookError, match=r"main\.py is not in the pod"):
        explore.ask(run, "Once")
    assert run.asked == ()


@pytest.mark.parametrize("size", [1, 2, 49152])
def test_measures_of_a_flat_and_of_a_sure_distribution(size: int) -> None:
    flat, sure = np.full(size, 1 / size), np.eye(1, size)[0]
    even, one = distribution.measure(flat, 1), distribution.measure(sure)
    assert (even.entropy_bits, even.choices, even.kept) == pytest.approx((math.log2(size), size, size))
    assert (one.entropy_bits, one.choices, one.margin, one.kept) == (0, 1, 1, 1)
    assert even.margin == (1 if size == 1 else 0)
    assert distribution.divergence(flat, flat) == 0
    assert distribution.divergence(sure, flat) == pytest.approx(math.log2(size))
    assert distribution.divergence(flat, sure) == (0 if size == 1 else math.inf)
