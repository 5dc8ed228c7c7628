"""manifests/model/main.py, run for real on a tiny random model."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MAIN = Path(__file__).parents[2] / "manifests" / "model" / "main.py"


def run(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "MODEL"}
    return subprocess.run([sys.executable, MAIN, *map(str, args)], cwd=cwd, text=True, capture_output=True, timeout=250,
                          env=kept | {"HF_HUB_OFFLINE": "1"} | env)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer Llama with random weights and a byte-level tokenizer of 256 tokens."""
    script = """
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
vocab = {t: i for i, t in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(sys.argv[1])
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)).save_pretrained(sys.argv[1])
"""
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([sys.executable, "-c", script, folder], check=True, timeout=200, capture_output=True)
    return folder


@pytest.mark.parametrize(("args", "word"), [
    (["--top", "0"], "--top"),
    (["--top", "x"], "--top"),
    (["--precisions", "int7"], "--precisions"),
    (["--precisions", ""], "--precisions"),
    (["--precisions", "int8,int8"], "--precisions"),
    (["--repetitions", "-1"], "--repetitions"),
    (["--prompt", ""], "--prompt"),
    (["--prompt", "\udcff"], "--prompt"),
    (["--model", "/nowhere"], "/nowhere"),
    (["--logits", "/nowhere/l.f32"], "/nowhere"),
    (["--colour", "red"], "--colour"),
])  # fmt: skip
def test_bad_arguments_are_named_at_the_end(tmp_path: Path, args: list[str], word: str) -> None:
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert word in done.stderr.splitlines()[-1]


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    started = time.perf_counter()
    assert "--precisions" in run("--help", cwd=tmp_path).stdout
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(("args", "words"), [
    (["--prompt", "x" * 65], "65 tokens of prompt (at most 64)"),
    (["--top", "257"], "--top 257 (at most 256)"),
])  # fmt: skip
def test_what_the_model_cannot_take_is_refused(tiny: Path, tmp_path: Path, args: list[str], words: str) -> None:
    done = run("--model", tiny, *args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


def test_answer(tiny: Path, tmp_path: Path) -> None:
    done = run("--prompt", "hé", "--top", "3", "--precisions", "int8,reference,fp32", "--repetitions", "4",
               cwd=tmp_path, MODEL=str(tiny))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    said = json.loads(done.stdout)
    assert said["schema"] == "gpurunbook/next-token/1"
    assert said["model"] == str(tiny)
    assert said["revision"] == f"sha256:{hashlib.sha256((tiny / 'model.safetensors').read_bytes()).hexdigest()}"
    assert [t["text"] for t in said["prompt_tokens"]] == ["h", "�", "�"]
    assert [t["token"] for t in said["prompt_tokens"]] == ["h", "Ã", "©"]
    assert said["vocab_size"] == 256
    assert said["device"].startswith("CPU, ")
    assert (said["device_memory_bytes"], said["compute_capability"]) == (None, None)  # of a GPU
    assert 1e8 < said["copy_bytes_per_second"] < 1e14
    assert set(said["versions"]) == {"python", "torch", "transformers", "bitsandbytes"}
    assert [(a["precision"], a["dtype"]) for a in said["arms"]] == [
        ("int8", "float16"), ("reference", "bfloat16"), ("fp32", "float32")]  # fmt: skip
    assert said["arms"][0]["linear_layers"] == {"Linear8bitLt": 14, "Linear": 1}
    for arm in said["arms"]:
        data = (tmp_path / f"logits.{arm['precision']}.f32").read_bytes()
        assert hashlib.sha256(data).hexdigest() == arm["logits_sha256"]
        logits = np.frombuffer(data, "<f4").astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum()
        assert [t["id"] for t in arm["top"]] == np.argsort(-p, kind="stable")[:3].tolist()
        assert [t["p"] for t in arm["top"]] == pytest.approx(np.sort(p)[::-1][:3])
        assert [t["logp"] for t in arm["top"]] == pytest.approx(np.log(np.sort(p)[::-1][:3]))
        assert arm["top_mass"] == pytest.approx(np.sort(p)[-3:].sum())
        assert arm["entropy_bits"] == pytest.approx(-(p * np.log2(p)).sum())
        assert len(arm["samples_ms"]) == 4
        assert min(arm["samples_ms"]) > 0
        assert arm["warm_up"] == 10
        assert arm["load_seconds"] > 0
        assert arm["first_seconds"] > 0
        assert arm["peak_memory_bytes"] > arm["weight_bytes"] > 0
    assert [line for line in done.stderr.splitlines() if line.startswith("main.py: ")] == [
        "main.py: importing torch and transformers",
        "main.py: copying memory, to measure its bandwidth",  # before a model takes the room for it
        *(f"main.py: loading {precision}" for precision in ("int8", "reference", "fp32")),
        "main.py: timing: 0 of 4 done"]
    table, looked_up = 4 * 256 * 64, 4 * 3 * 64  # bytes; the model has an embedding besides its output layer
    stored = sum(np.prod(tensor["shape"]) for name, tensor in header(tiny).items() if name != "__metadata__")
    assert said["arms"][2]["weight_bytes"] == pytest.approx(4 * stored - table + looked_up, abs=200), "but for rotary's buffers"


def test_the_revision_of_weights_in_parts_is_that_of_all_of_them(tiny: Path, tmp_path: Path) -> None:
    script = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2], max_shard_size="200KB")
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""
    subprocess.run([sys.executable, "-c", script, tiny, tmp_path / "parts"], check=True, timeout=200, capture_output=True)
    parts = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(parts) > 1
    said = json.loads(run("--model", tmp_path / "parts", "--precisions", "fp32", cwd=tmp_path).stdout)
    assert said["revision"] == "sha256:" + hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def test_it_is_as_short_as_a_learner_likes() -> None:
    assert len([line for line in MAIN.read_text().splitlines() if line.strip()]) <= 120


def header(model: Path) -> dict[str, Any]:
    """Of its safetensors: names, types and shapes."""
    with (model / "model.safetensors").open("rb") as file:
        return dict(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
