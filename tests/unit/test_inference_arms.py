"""manifests/model/arms.py against transformers, on a tiny random model; and the GPU's code path, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARMS = """
import json, sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from benchmarks.inference.cpu import Transformers, arms_py
folder, ids, then, found = Path(sys.argv[1]) / "tiny", [5, 9, 2, 77, 31, 4], 8, {}
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=16,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=float(sys.argv[2]),
    initializer_range=0.05, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
    )).bfloat16().save_pretrained(folder)
with torch.inference_mode():
    plain = Transformers(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"))
    forward = plain.forward(ids)
    plain.prepare()
    step = plain.step(then)
    for precision in ("fp32", "bf16", "int8", "int4"):
        for kept in (None, Path(sys.argv[1]), Path(sys.argv[1])):
            arm = arms_py().Llama(folder, precision, tokens=len(ids), kept=kept)
            pairs = [(arm.forward(ids), forward), (arm.step(then), step), (arm.step(then), step)]
            found.setdefault(precision, []).append([float((a - b).norm() / b.norm()) for a, b in pairs])
print(json.dumps(found))
"""
GPU = """
import torch
from benchmarks.inference.gpu import TINY, Static, Transformers, drawn
ids, then = [1, 2, 3, 4, 5, 6], 7
with torch.inference_mode():
    model = drawn(TINY, torch.float32, "cpu", None)
    plain, static = Transformers(model), Static(model, len(ids))
    forward = plain.forward(ids)
    plain.prepare()
    step = plain.step(then)
    for _ in range(3):
        assert torch.allclose(static.forward(ids), forward, atol=1e-5)
        assert torch.allclose(static.step(then), step, atol=1e-5)
        assert torch.allclose(static.step(then), step, atol=1e-5)
    static.forward([9] * 6)
    assert not torch.allclose(static.step(then), step, atol=1e-3)
"""


def python(code: str, *args: object) -> str:
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, capture_output=True, text=True, check=True,
                          timeout=250).stdout


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_every_precision_says_what_transformers_says(tmp_path: Path, epsilon: float) -> None:
    """Relative distance of the logits; each is packed in memory, packed and kept, and read, and always the same."""
    found = json.loads(python(ARMS, tmp_path, epsilon))
    for precision, most in (("fp32", 1e-5), ("bf16", 0.01), ("int8", 0.03), ("int4", 0.25)):
        fresh, kept, read = found[precision]
        assert max(fresh) < most, precision
        assert fresh == pytest.approx(kept, rel=1e-3, abs=1e-6)
        assert kept == read


def test_a_static_cache_gives_the_logits_of_the_growing_one_each_time() -> None:
    python(GPU)
