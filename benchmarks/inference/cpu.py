"""The arms on a CPU: transformers as people use it, bitsandbytes in it, arms.py, and llama.cpp."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.inference.worker import ROOT, wall

TUTORIAL, REFERENCE, PEER = "LLM.int8", "fp32", "llama.cpp Q4_1"
ARMS = (TUTORIAL, "LLM.int8 threshold 0", "NF4", REFERENCE, "bf16", PEER, "arms bf16", "arms int8", "arms int4",
        "arms bf16 compiled", "arms int4 compiled")
"""`arms ...` is manifests/model/arms.py; the others are transformers in eager mode. `--arms` takes `arms fp32`, `arms fp32
compiled` and `arms int8 compiled` too: each compiled arm costs a minute or two the first time. transformers compiled is left
out: bitsandbytes' calls break its graph, and arms.py compiled is the same arithmetic."""
KEPT = "LLM.int8 kept"
"""The tutorial's arm from an 8-bit checkpoint that its first load left; it is loaded only, since it computes the same."""
LIMITS = (("", PEER, "forward", 1.0), ("", PEER, "step", 2.0), ("", REFERENCE, "forward", 0.35), ("", REFERENCE, "step", 0.35))
"""What an arm ("": the fastest of torch's that passes the gate) may take, as a multiple of another arm's time."""

LOADED_ONLY = (KEPT,)
MOST_TO_LOAD = 1.3
FRUGAL = (TUTORIAL, "LLM.int8 threshold 0", KEPT, "NF4", REFERENCE, "bf16", "arms bf16", "arms int8", "arms int4")
"""What these arms may take of memory of their own while they load, as a multiple of their weights. Not the compiled ones: the
compiler's modules count there."""

timed = wall


def arms_py() -> ModuleType:
    """manifests/ is no package."""
    spec = importlib.util.spec_from_file_location("arms", ROOT / "manifests" / "model" / "arms.py")
    assert spec
    assert spec.loader
    module = sys.modules["arms"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imports(name: str, settings: dict[str, Any]) -> AbstractContextManager[None]:
    """What has to be entered, and held, before the arm is loaded."""
    if name == PEER:
        import llama_cpp  # noqa: F401

        return nullcontext()
    import torch

    torch.set_num_threads(settings["threads"])
    if name.startswith("arms "):
        arms_py()
        return torch.inference_mode()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    if name.startswith(("LLM", "NF4")):
        import bitsandbytes  # noqa: F401

        # As in main.py: else the heap keeps what quantising frees, in some runs more than the weights
        ctypes.CDLL(None).mallopt(-3, 2**20)
    return torch.inference_mode()


def load(name: str, settings: dict[str, Any], tokens: int) -> Any:
    """The arm, for prompts of so many tokens."""
    if name == PEER:
        return LlamaCpp(settings["gguf"], settings["threads"])
    model, cache = Path(settings["model"]), Path(settings["cache"])
    if name.startswith("arms "):
        return sys.modules["arms"].Llama(model, name.split()[1], tokens=tokens, kept=cache / "packed",
                                         compiled=name.endswith("compiled"))
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    kept = cache / "packed" / f"{model.name}-{TUTORIAL}"
    if name == KEPT and kept.exists():
        return Transformers(AutoModelForCausalLM.from_pretrained(kept))
    # bitsandbytes computes LLM.int8 in float16; with bfloat16 it says so for each matrix in each call
    dtype = {"fp32": "float32", "bf16": "bfloat16", "NF4": "bfloat16"}.get(name, "float16")
    bits = None
    if name.startswith("LLM"):
        bits = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0 if name.endswith(" 0") else 6.0)
    if name == "NF4":
        bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    found = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, quantization_config=bits)
    if name == KEPT:
        found.save_pretrained(making := kept.with_suffix(".making"))
        making.rename(kept)
    return Transformers(found)


class Transformers:
    """A model of transformers (any architecture) in eager mode, with its own growing cache."""

    def __init__(self, model: Any) -> None:
        import torch

        self.model, self.device, self.tensor = model.eval(), next(model.parameters()).device, torch.tensor
        self.cache: Any = None
        self.resident_bytes = sum(p.nbytes for p in dict.fromkeys(model.parameters()))
        looked_up, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        self.read_bytes = self.resident_bytes - (looked_up.nbytes if looked_up is not head else 0)
        self.ids: list[int] = []

    def forward(self, ids: list[int]) -> Any:
        self.ids = ids
        return self.model(self.tensor([ids], device=self.device), logits_to_keep=1, use_cache=False).logits[0, -1]

    def prepare(self) -> None:
        """Fill the cache with the last prompt."""
        self.cache = self.model(self.tensor([self.ids], device=self.device), logits_to_keep=1, use_cache=True).past_key_values

    def step(self, then: int) -> Any:
        return self.model(self.tensor([[then]], device=self.device), past_key_values=self.cache, use_cache=True,
                          logits_to_keep=1).logits[0, -1]

    def rewind(self) -> None:
        self.cache.crop(-1)  # the token of the step


class LlamaCpp:
    """llama.cpp on a GGUF file, by llama-cpp-python: its own kernels."""

    def __init__(self, file: str, threads: int) -> None:
        import llama_cpp

        self.program = llama_cpp.Llama(file, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.read_bytes = self.resident_bytes = int(llama_cpp.llama_model_size(self.program._model.model))
        self.tokens = 0

    def forward(self, ids: list[int]) -> Any:
        self.program.reset()
        self.program.eval(ids)
        self.tokens = len(ids)
        return self.logits()

    def step(self, then: int) -> Any:
        self.program.eval([then])
        return self.logits()

    def rewind(self) -> None:
        self.program.n_tokens = self.tokens  # the next eval drops what is cached after these

    def logits(self) -> Any:
        """A copy, as the other arms return: the program writes the next ones over these."""
        return np.ctypeslib.as_array(self.program._ctx.get_logits_ith(-1), (self.program.n_vocab(),)).copy()


def has_quality(settings: dict[str, Any]) -> bool:
    return True


def machine() -> dict[str, Any]:
    """What has to be the same for two runs to be compared, as far as the system says."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), platform.processor())
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {"name": name, "cpus": os.cpu_count(), "architecture": platform.machine(),
            "governor": governor.read_text().strip() if governor.exists() else "not said"}


def state() -> dict[str, Any]:
    """What a system says of its clocks; most virtual machines say nothing, and the harness times a fixed loop instead."""
    return {"load_average": os.getloadavg()[0]}


def weights(settings: dict[str, Any]) -> str:
    return f"{Path(settings['model']).name}, real weights"


def peak_bytes() -> int:
    """0: what the process takes is what the arm takes."""
    return 0


def copy_bandwidth(size: int = 1 << 28, times: int = 7) -> float:
    """Bytes read and written per second, the best of some copies, since noise only slows."""
    import torch

    source, best = torch.ones(size, dtype=torch.uint8), float("inf")
    target = torch.empty_like(source)
    for _ in range(times):
        begun = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - begun)
    return 2 * size / best
