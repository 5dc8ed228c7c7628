"""What can be read off stored logits: probabilities at a temperature, the top-p cut, entropy. No model is needed.

`logits` are float32 or float64 of shape (vocabulary,); probabilities are float64 of the same shape, sum 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpurunbook.errors import ConfigError, RunbookError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPERATURES = (0.05, 5.0)
"""From nearly always the first token, to nearly all tokens alike."""


def read(path: Path) -> NDArray[np.float64]:
    """A file of float32 logits, as main.py writes it. Raises RunbookError when it is absent or some are no numbers."""
    try:
        logits = np.fromfile(path, dtype="<f4").astype(np.float64)
    except OSError as error:
        raise RunbookError(f"no stored logits: {error.strerror}", where=str(path),
                           next="run notebooks/07_next_token.ipynb: it fetches them") from error
    if not len(logits) or np.isnan(logits).any() or not np.isfinite(logits.max()):
        raise RunbookError("the logits that main.py wrote are no numbers", where=str(path),
                           next="another precision: -p precisions=reference; or run this notebook again from its start")
    return logits


def probabilities(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of logits / temperature. Raises ConfigError for a temperature that is none."""
    low, high = TEMPERATURES
    if not low <= temperature <= high:
        raise ConfigError(f"temperature {temperature:g}", where="gpurunbook.explore", next=f"give {low:g} to {high:g}")
    shifted = np.exp((logits - logits.max()) / temperature)
    total: NDArray[np.float64] = shifted / shifted.sum()
    return total


def kept(p: NDArray[np.float64], top_p: float) -> int:
    """Tokens that top-p sampling keeps: the fewest of the most likely that have `top_p` together, one at least.

    Raises:
        ConfigError: `top_p` is not above 0 and at most 1.
    """
    if not 0 < top_p <= 1:
        raise ConfigError(f"top-p {top_p:g}", where="gpurunbook.explore", next="give more than 0, and at most 1")
    mass = np.cumsum(np.sort(p)[::-1])
    # The sum ends a hair off 1, and the far end's tokens are smaller than that.
    return len(p) if top_p == 1 else min(int(np.searchsorted(mass, top_p)) + 1, len(p))


@dataclass(frozen=True)
class Spread:
    """How far probability is spread over a vocabulary.

    Attributes:
        entropy_bits: of the whole distribution.
        choices: 2 to the entropy: as many equally likely tokens would be as uncertain.
        margin: p of the most likely token less that of the second.
        kept: tokens within the top-p cut.
    """

    entropy_bits: float
    choices: float
    margin: float
    kept: int


def measure(p: NDArray[np.float64], top_p: float = 0.9) -> Spread:
    """Raises ConfigError for a `top_p` that is none."""
    some = p[p > 0]
    entropy = float(-(some * np.log2(some)).sum()) + 0.0
    first = np.sort(p)[::-1][:2]
    return Spread(entropy, math.pow(2, entropy), float(first[0] - (first[1] if len(first) > 1 else 0)), kept(p, top_p))


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of q from p in bits: what coding p's tokens with q costs more; infinite where q has 0."""
    some = p > 0
    with np.errstate(divide="ignore"):
        return float((p[some] * np.log2(p[some] / q[some])).sum())


def read_all(paths: Mapping[str, Path]) -> dict[str, NDArray[np.float64]]:
    """Precision -> logits, of files. Raises RunbookError as `read` does."""
    return {precision: read(path) for precision, path in paths.items()}
