"""An answer of main.py's as it should be, to be spoilt by tests."""

from __future__ import annotations

import json
import math
from typing import Any

PROMPT = "Long long ago, in a"


def arm(precision: str = "int8", ps: tuple[float, ...] = (0.5, 0.2, 0.1), repetitions: int = 0) -> dict[str, Any]:
    return {"precision": precision, "dtype": "float16", "top": [
        {"id": 7 + i, "text": f" land{i}", "token": f"Ġland{i}", "p": p, "logp": math.log(p)} for i, p in enumerate(ps)],
        "top_mass": sum(ps), "entropy_bits": 3.5, "linear_layers": {"Linear8bitLt": 210}, "load_seconds": 1.5,
        "first_seconds": 0.5, "weight_bytes": 1000, "peak_memory_bytes": 2000, "logits_sha256": "0" * 64, "warm_up": 0,
        "samples_ms": [20.5] * repetitions}


def answer(*precisions: str, **changes: Any) -> dict[str, Any]:
    """What main.py prints for `precisions` (int8), three tokens each."""
    return {"schema": "gpurunbook/next-token/1", "prompt": PROMPT,
            "prompt_tokens": [{"id": 1, "text": "Long", "token": "Long"}], "model": "SmolLM2-135M", "vocab_size": 49152,
            "revision": "sha256:" + "1" * 64, "versions": {"python": "3.11.9", "torch": "2.10.0+cpu"},
            "device": "CPU, 2 threads", "copy_bytes_per_second": 2e10,
            "arms": [arm(one) for one in precisions or ("int8",)], **changes}


def line(**changes: Any) -> str:
    return json.dumps(answer(**changes))
