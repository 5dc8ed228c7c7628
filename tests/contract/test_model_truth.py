"""main.py's ten tokens are those of a direct computation from the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpurunbook.targets.rehearsal import weights
from tests.truth import next_tokens

MAIN = Path(__file__).parents[2] / "manifests" / "model" / "main.py"
PROMPT = "Long long ago, in a"


@pytest.fixture(scope="module")
def model_dir() -> Path:
    return weights.prepare()


@pytest.fixture(scope="module")
def said(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    command = [sys.executable, MAIN, "--prompt", PROMPT, "--precisions", "int8,reference", "--model", model_dir]
    done = subprocess.run(command, cwd=tmp_path_factory.mktemp("pod"), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("arm", "precision"), [(0, "int8"), (1, "bf16")])
def test_ten_tokens_equal_a_direct_computation(said: dict, model_dir: Path, arm: int, precision: str) -> None:
    top = said["arms"][arm]["top"]
    truth = next_tokens(model_dir, PROMPT, 10, precision)
    assert {t["id"]: t["text"] for t in top} == {i: text for i, text, _ in truth}
    expected = {i: p for i, _, p in truth}
    assert [t["p"] for t in top] == pytest.approx([expected[t["id"]] for t in top], abs=1e-3)


def test_8_bit_is_llm_int8_and_changes_the_winner(said: dict) -> None:
    int8, reference = said["arms"]
    assert int8["linear_layers"] == {"Linear8bitLt": 210, "Linear": 1}
    assert reference["linear_layers"] == {"Linear": 211}
    assert int8["top"][0]["text"] == " small"
    assert reference["top"][0]["text"] == " land"
    assert reference["weight_bytes"] == pytest.approx(2 * 134_515_008, rel=1e-3), "its embedding, the output layer too, once"
    assert said["revision"] == f"sha256:{weights.FILES['model.safetensors']}"
