"""The arms on a GPU: dolly-v2-3b's architecture in every precision, eager and as one CUDA graph.

Without the real weights they are drawn at random, and the result says so: times do not depend on values, quality does, so no
gate is passed or failed then; and LLM.int8's outliers, which random weights do not have, cost nothing: its time is a lower bound.

**Never run on a GPU by us: none was at hand.** `--device tiny` runs all but the graphs and the events on a CPU.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.inference import cpu
from benchmarks.inference.cpu import Transformers
from benchmarks.inference.harness import Sample
from benchmarks.inference.worker import wall

TUTORIAL, REFERENCE, PEER = "LLM.int8", "fp32", ""
ARMS = (TUTORIAL, "LLM.int8 threshold 0", "LLM.int8 threshold 0 graph", "NF4", "NF4 graph", "fp16", "fp16 graph", "bf16",
        "bf16 graph", REFERENCE, "fp32 graph")
"""LLM.int8 with its outliers looks at values on the host, and cannot be captured."""
LOADED_ONLY: tuple[str, ...] = ()
MOST_TO_LOAD = 1.3
FRUGAL = (TUTORIAL, "NF4", "fp16", "bf16", REFERENCE)
"""As in cpu.py, of the GPU's memory; by the eager arms, since a graph has buffers of its own."""
LIMITS = (("fp16 graph", "fp16", "step", 0.35),)
"""Graph over eager, meant for an H100-class card. The share of the copy bandwidth in a step, there to be at least 65%, stands in
the table."""
DOLLY = {"vocab_size": 50280, "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240,
         "rotary_pct": 0.25, "max_position_embeddings": 2048, "use_parallel_residual": True, "tie_word_embeddings": False}
"""As in databricks/dolly-v2-3b's config.json: 2.8e9 weights."""
TINY = DOLLY | {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
PLACES = 64
"""In the static cache; the prompt has 6 tokens."""


def has_quality(settings: dict[str, Any]) -> bool:
    return bool(settings["model"])


def weights(settings: dict[str, Any]) -> str:
    shape = "dolly-v2-3b's architecture, made tiny" if settings["device"] == "tiny" else "dolly-v2-3b's architecture"
    return f"{Path(settings['model']).name}, real weights" if settings["model"] else f"{shape}, RANDOM weights: no quality"


def imports(name: str, settings: dict[str, Any]) -> AbstractContextManager[None]:
    import torch
    from transformers import GPTNeoXForCausalLM  # noqa: F401

    if name.endswith("graph") and not torch.cuda.is_available():
        raise RuntimeError("a CUDA graph needs a GPU")
    if name.startswith(("LLM", "NF4")):
        import bitsandbytes  # noqa: F401
    return torch.inference_mode()


def load(name: str, settings: dict[str, Any], tokens: int) -> Any:
    """The arm; whichever precision, the head and the embedding stay in the half type where the layers are quantised."""
    import torch

    device = "cpu" if settings["device"] == "tiny" else "cuda"
    precision = name.removesuffix(" graph")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(precision, torch.float16)
    bits: dict[str, dict[str, Any]] = {
        "NF4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
        "LLM.int8": {"load_in_8bit": True}, "LLM.int8 threshold 0": {"load_in_8bit": True, "llm_int8_threshold": 0.0}}
    model = read(settings["model"], dtype, device, bits.get(precision)) if settings["model"] else drawn(
        TINY if device == "cpu" else DOLLY, dtype, device, bits.get(precision))
    return Static(model, tokens) if name.endswith("graph") else Transformers(model)


def read(folder: str, dtype: Any, device: str, bits: dict[str, Any] | None) -> Any:
    from transformers import BitsAndBytesConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device,
                                              quantization_config=BitsAndBytesConfig(**bits) if bits else None).eval()


def drawn(config: dict[str, Any], dtype: Any, device: str, bits: dict[str, Any] | None) -> Any:
    """Random weights, drawn where they will be used and in their final type; quantised by way of a folder."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            model = GPTNeoXForCausalLM(GPTNeoXConfig(**config)).eval()
    finally:
        torch.set_default_dtype(before)
    if not bits:
        return model
    with tempfile.TemporaryDirectory(prefix="gpurunbook-bench-") as folder:
        model.save_pretrained(folder)
        del model
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # what it took to draw them is no part of the load
        return read(folder, dtype, device, bits)


class Static:
    """A model with a cache of fixed size, so that a pass has no shape that changes; on a GPU each pass is one graph."""

    def __init__(self, model: Any, tokens: int) -> None:
        import torch
        from transformers import StaticCache

        device = next(model.parameters()).device
        self.model, self.tokens = model, tokens
        self.ids, self.then = (torch.zeros(1, count, dtype=torch.long, device=device) for count in (tokens, 1))
        self.at, self.after = torch.arange(tokens, device=device), torch.tensor([tokens], device=device)
        self.cache = StaticCache(config=model.config, max_cache_len=PLACES)
        plain = Transformers(model)
        self.resident_bytes, self.read_bytes = plain.resident_bytes, plain.read_bytes
        self.forward_run: Callable[[], Any] = lambda: self.logits(self.ids, self.at, 0)
        self.step_run: Callable[[], Any] = lambda: self.logits(self.then, self.after, tokens)
        if device.type == "cuda":
            self.forward_run, self.step_run = captured(self.forward_run), captured(self.step_run)

    def logits(self, ids: Any, at: Any, written: int) -> Any:
        """Of the last of `ids`, shape (vocabulary,). Writes its places of the cache, each time the same.

        transformers 5 counts in each layer what was written; each pass has to find the count `written` that it begins at.
        """
        for layer in self.cache.layers:
            if layer.is_initialized:
                layer.cumulative_length.fill_(written)
        return self.model(ids, past_key_values=self.cache, position_ids=at[None], use_cache=True, logits_to_keep=1).logits[0, -1]

    def forward(self, ids: list[int]) -> Any:
        self.ids.copy_(self.ids.new_tensor([ids]))
        return self.forward_run()

    def step(self, then: int) -> Any:
        self.then.fill_(then)
        return self.step_run()


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as one launch: recorded once after three tries (libraries allocate in the first), replayed since."""
    import torch

    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def timed(work: Callable[[], Any]) -> Sample:
    """By CUDA events, one synchronisation a sample; the CPU's time is the process's, as without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return wall(work)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def both() -> None:
        begin.record()
        work()
        end.record()
        end.synchronize()

    cpu_ms = wall(both).cpu_ms
    return Sample(begin.elapsed_time(end), cpu_ms)


def peak_bytes() -> int:
    """On the GPU since the start; 0 without one: the process's peak is taken."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def copy_bandwidth(size: int = 1 << 30, times: int = 10) -> float:
    import torch

    if not torch.cuda.is_available():
        return cpu.copy_bandwidth()
    data = torch.zeros(2, size, dtype=torch.uint8, device="cuda")
    return 2 * size / min(timed(lambda: data[1].copy_(data[0])).ms for _ in range(times)) * 1e3


def machine() -> dict[str, Any]:
    return _smi("name,driver_version") or cpu.machine()


def state() -> dict[str, Any]:
    """Clocks, why they are held back, heat and power, now."""
    return _smi("clocks.sm,clocks.mem,clocks.max.sm,clocks_event_reasons.active,temperature.gpu,power.draw")


def _smi(asked: str) -> dict[str, Any]:
    try:
        out = subprocess.run(["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"], capture_output=True, text=True,
                             check=True, timeout=30).stdout
    except FileNotFoundError:
        return {}
    return dict(zip(asked.split(","), map(str.strip, out.splitlines()[0].split(",")), strict=True))
