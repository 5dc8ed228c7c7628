"""How a result's arms are named in a chart."""

from __future__ import annotations

from gpurunbook.plots.page import Result

DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
PRECISIONS = {"int8": "8-bit LLM.int8", "nf4": "4-bit NF4"}


def arm_name(arm: Result) -> str:
    """`8-bit LLM.int8 (fp16)`: the precision and, in brackets, the type of what is not quantised."""
    precision = str(arm["precision"])
    dtype = DTYPES.get(arm["dtype"], str(arm["dtype"]))
    return dtype if precision == dtype else f"{PRECISIONS.get(precision, precision)} ({dtype})"


def made_by(result: Result) -> list[str]:
    """Revision and versions, for a chart's footer."""
    return [f"revision {str(result['revision'])[:19]}", *(f"{name} {version}" for name, version in result["versions"].items())]
