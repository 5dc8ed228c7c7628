"""The fastest way that we know to the ten most likely tokens on a CPU: a Llama by hand. main.py is the one to learn from.

    python arms.py --model FOLDER --prompt "Long long ago, in a" --precision int4 --kept FOLDER

It computes what transformers computes, over plain tensors, with four matrices a layer instead of seven and the last position
only. transformers spends more time between the kernels than in them at this size. Weights stay in one of

    fp32, bf16    as they are
    int8          one scale a row, nearest integer
    int4          a scale and a zero for each 32 weights, nearest of 16 steps: GGUF's Q4_1, in the layout of torch's kernel

and are kept packed: the second load only reads them. Only torch and safetensors are imported; transformers
alone would take longer than all the rest. benchmarks/inference measures it beside others. One line of JSON goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

PRECISIONS = ("fp32", "bf16", "int8", "int4")
GROUP = 32
"""Weights that share a scale and a zero in int4; on a model that was Q4_1 before, the steps are those that it had."""
PARTS = {"qkv": ("self_attn.q", "self_attn.k", "self_attn.v"), "out": ("self_attn.o",), "gate_up": ("mlp.gate", "mlp.up"),
         "down": ("mlp.down",)}
"""Matrices that take the same input are one; transformers' names of what is joined."""

aten = torch.ops.aten


class Matrix(NamedTuple):
    """A weight of shape (out, in) in its final form; `scale` is empty where there is none."""

    precision: str
    w: Tensor
    scale: Tensor


class Layer(NamedTuple):
    norm_1: Tensor
    qkv: Matrix
    out: Matrix
    norm_2: Tensor
    gate_up: Matrix
    down: Matrix


class Llama:
    """The forward pass of one prompt, and of one token after it.

    Between the layers activations are float32; what enters a matrix is bfloat16 (float32 for fp32). The cache has a fixed
    number of places, so that shapes never change and a pass can be compiled once.
    """

    def __init__(self, folder: Path, precision: str, *, tokens: int, kept: Path | None = None, compiled: bool = False) -> None:
        """Load transformers' `folder` for prompts of `tokens` tokens. `kept` is a folder for packed weights."""
        config = json.loads((folder / "config.json").read_text())
        self.heads, self.kv = config["num_attention_heads"], config["num_key_value_heads"]
        self.epsilon: float = config["rms_norm_eps"]
        weights = packed_weights(folder, precision, kept)
        self.embedding, self.norm = weights["embedding"], weights["norm"]
        self.head = _matrix(weights, "head" if "head.w" in weights else "embedding", precision)
        self.layers = [_layer(weights, i, precision) for i in range(config["num_hidden_layers"])]
        dim, act = config["head_dim"], self.norm.dtype
        self.room = -(-(tokens + 1) // 8) * 8  # places in the cache: the prompt and one token
        self.places = torch.arange(self.room)
        theta = config["rope_parameters"]["rope_theta"]
        angle = torch.outer(self.places, theta ** -(torch.arange(0, dim, 2) / dim)).repeat(1, 2)
        self.cos, self.sin = angle.cos().to(act), angle.sin().to(act)
        self.cache = torch.zeros(len(self.layers), 2 * self.kv, self.room, dim, dtype=act)
        self.at, self.after = torch.arange(tokens), torch.tensor([tokens])
        # As one graph: compiled layer by layer, the calls between the layers cost what the fused kernels save
        self.run = torch.compile(self.logits, fullgraph=True, dynamic=False) if compiled else self.logits
        self.resident_bytes = sum(tensor.nbytes for tensor in weights.values())
        self.read_bytes = self.resident_bytes - (self.embedding.nbytes if "head.w" in weights else 0)

    def forward(self, ids: Sequence[int]) -> Tensor:
        """Logits after the whole prompt, float32 of shape (vocabulary,). Fills the cache."""
        return self.run(torch.tensor(ids), self.at)

    def step(self, then: int) -> Tensor:
        """Logits after one token more, from the cache. Writes its own place, each time the same: nothing is to be undone."""
        return self.run(torch.tensor([then]), self.after)

    def logits(self, ids: Tensor, at: Tensor) -> Tensor:
        """Of the last of the tokens `ids`, shape (t,), at the positions `at`; their keys and values are kept."""
        x = self.embedding[ids].float()  # (t, hidden)
        turn = self.cos[at], self.sin[at]
        seen = (self.places <= at[:, None]).repeat(self.heads // self.kv, 1)  # (group * t, room)
        for layer, cache in zip(self.layers, self.cache, strict=True):
            x = block(x, turn, seen, at, cache, layer, self.epsilon)
        return times(normed(x[-1:], self.norm, self.epsilon), self.head)[0].float()


def block(x: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor, at: Tensor, cache: Tensor, layer: Layer,
          epsilon: float) -> Tensor:
    """One layer: x of shape (t, hidden) in float32; `cache` (2 * kv, room, dim) takes the keys and values of `at`."""
    t, kv, dim = len(x), cache.shape[0] // 2, cache.shape[2]
    y = times(normed(x, layer.norm_1, epsilon), layer.qkv).view(t, -1, dim).transpose(0, 1)  # (heads + 2 * kv, t, dim)
    turned = rotated(y[:-kv], *turn)
    cache.index_copy_(1, at, torch.cat((turned[-kv:], y[-kv:])))
    # Heads that share keys are rows of one product: (kv, group * t, dim)
    q = turned[:-kv].reshape(1, kv, -1, dim)
    y = scaled_dot_product_attention(q, cache[None, :kv], cache[None, kv:], attn_mask=seen)
    x = x + times(y.view(-1, t, dim).transpose(0, 1).reshape(t, -1), layer.out)
    gate, up = times(normed(x, layer.norm_2, epsilon), layer.gate_up).chunk(2, dim=1)
    return x + times(silu(gate) * up, layer.down)


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square normalisation of x, shape (t, hidden), by a weight in the type that the next matrix takes."""
    return (x * (x.square().mean(1, keepdim=True) + epsilon).rsqrt()).to(weight.dtype) * weight


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x, shape (heads, t, dim)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def times(x: Tensor, m: Matrix) -> Tensor:
    """x, shape (t, in), times the matrix: (t, out)."""
    if m.precision == "int8":
        return aten._weight_int8pack_mm(x, m.w, m.scale)
    if m.precision == "int4":
        return aten._weight_int4pack_mm_for_cpu(x, m.w, GROUP, m.scale)
    return linear(x, m.w)


def packed(w: Tensor, precision: str) -> dict[str, Tensor]:
    """A weight of shape (out, in) as `w` and, where there is one, `scale`."""
    if precision in ("fp32", "bf16"):
        return {"w": w.to(torch.float32 if precision == "fp32" else torch.bfloat16)}
    if precision == "int8":
        scale = (w.float().abs().amax(1) / 127).bfloat16()
        return {"w": (w / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), "scale": scale}
    groups = w.float().view(len(w), -1, GROUP)
    low, high = groups.aminmax(dim=2)
    scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    steps = ((groups - zero.float()[..., None]) / scale.float()[..., None]).round().add(8).clamp(0, 15)
    both = torch.stack((scale, zero), 2).transpose(0, 1).contiguous()  # (in / GROUP, out, 2)
    return {"w": aten._convert_weight_to_int4pack_for_cpu(steps.view_as(w).int(), 1), "scale": both}


def packed_weights(folder: Path, precision: str, kept: Path | None) -> dict[str, Tensor]:
    """All tensors in their final form, from `kept` when it has them, else packed and left there."""
    file = kept / f"{folder.name}-{precision}.safetensors" if kept else None
    if file and file.exists():
        return _read(file)
    found = load_file(folder / "model.safetensors")
    act = torch.float32 if precision == "fp32" else torch.bfloat16
    made = {"embedding": found["model.embed_tokens.weight"].to(act), "norm": found["model.norm.weight"].to(act)}
    if precision in ("int8", "int4"):  # the head is the widest matrix, and four bits there cost the most
        made |= {f"head.{name}": tensor for name, tensor in packed(found["model.embed_tokens.weight"], "int8").items()}
    for i in range(sum(name.endswith("input_layernorm.weight") for name in found)):
        of = f"model.layers.{i}."
        made |= {f"{i}.norm_1": found[f"{of}input_layernorm.weight"].to(act),
                 f"{i}.norm_2": found[f"{of}post_attention_layernorm.weight"].to(act)}
        for part, names in PARTS.items():
            joined = torch.cat([found.pop(f"{of}{name}_proj.weight") for name in names])
            made |= {f"{i}.{part}.{name}": tensor for name, tensor in packed(joined, precision).items()}
    if not file:
        return made
    making = file.with_suffix(f".{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(made, making)
    making.rename(file)  # whole or not at all
    return _read(file)


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each read straight into its place: nothing is held twice.

    Not mapped: the file aligns to 8 bytes, and torch's int8 kernel ends the process where a matrix is not aligned to 16.
    """
    dtypes = {"F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8, "U8": torch.uint8}
    found = {}
    with file.open("rb") as data:
        head = json.loads(data.read(int.from_bytes(data.read(8), "little")))
        begin = data.tell()
        for name, is_ in head.items():
            found[name] = tensor = torch.empty(is_["shape"], dtype=dtypes[is_["dtype"]])
            data.seek(begin + is_["data_offsets"][0])
            data.readinto(tensor.view(torch.uint8).numpy())
    return found


def _layer(weights: dict[str, Tensor], i: int, precision: str) -> Layer:
    part = {name: _matrix(weights, f"{i}.{name}", precision) for name in PARTS}
    return Layer(norm_1=weights[f"{i}.norm_1"], norm_2=weights[f"{i}.norm_2"], **part)


def _matrix(weights: dict[str, Tensor], name: str, precision: str) -> Matrix:
    """int4 has its head in int8; a head that is not there is the embedding."""
    if name == "embedding":
        return Matrix(precision, weights[name], weights[name].new_empty(0))
    w = weights[f"{name}.w"]
    return Matrix("int8" if name == "head" else precision, w, weights.get(f"{name}.scale", w.new_empty(0)))


def main() -> None:
    imported = time.time()
    parser = argparse.ArgumentParser(description="The most likely next tokens of a prompt, fast, on a CPU.")
    parser.add_argument("--model", type=Path, required=True, help="folder with safetensors of a Llama with tied embeddings")
    parser.add_argument("--prompt", default="Long long ago, in a")
    parser.add_argument("--precision", choices=PRECISIONS, default="int4")
    parser.add_argument("--kept", type=Path, help="folder for packed weights (default: they are packed each time)")
    parser.add_argument("--top", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    ids = tokenizer.encode(args.prompt).ids
    with torch.inference_mode():
        model = Llama(args.model, args.precision, tokens=len(ids), kept=args.kept)
        loaded = time.time()
        logp = model.forward(ids).double().log_softmax(0)
        best = logp.topk(args.top)
    top = [{"id": i, "text": tokenizer.decode([i]), "logp": value}
           for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    print(json.dumps({"prompt": args.prompt, "precision": args.precision, "top": top, "imported": imported, "loaded": loaded,
                      "first": time.time()}), flush=True)
    os._exit(0)  # the libraries' own way out has nothing left to do


if __name__ == "__main__":
    main()
