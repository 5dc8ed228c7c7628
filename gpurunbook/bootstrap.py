"""How far a ratio of two medians may be luck: a moving-block bootstrap over the samples.

A machine that is slow now is slow a moment later too, so neighbouring samples tell less than as many independent ones. Drawn
one by one they give an interval that is far too narrow; runs of consecutive samples keep what neighbours share. (Kuensch 1989;
the blocks wrap around the end, Politis and Romano 1992.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 10
"""Consecutive samples that are drawn together."""
FEWEST = 20
"""Samples of each, below which there is no interval: two blocks can hardly be drawn otherwise."""
RESAMPLES = 2000
"""The interval's ends are then good to about a hundredth of its width."""


def ratio_of_medians(one: Sequence[float], other: Sequence[float], *, paired: bool = False) -> tuple[float, float] | None:
    """95% interval of median(one) / median(other); None where there are too few samples for one.

    The same samples give the same interval. It is rough: a drift longer than a block makes it too narrow still.

    Args:
        one, other: milliseconds above 0, in the order measured.
        paired: the two took turns, so that what hits a pair hits both: pairs are drawn. Both have the same length.
    """
    if min(len(one), len(other)) < FEWEST:
        return None
    dice = np.random.default_rng(0)
    drawn = _blocks(dice, len(one))
    first = np.median(np.asarray(one, dtype=np.float64)[drawn], axis=1)
    second = np.median(np.asarray(other, dtype=np.float64)[drawn if paired else _blocks(dice, len(other))], axis=1)
    low, high = np.quantile(first / second, (0.025, 0.975))
    return float(low), float(high)


def _blocks(dice: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Indices of RESAMPLES series of `count` samples, each of blocks that begin anywhere."""
    starts = dice.integers(count, size=(RESAMPLES, -(-count // BLOCK), 1))
    return ((starts + np.arange(BLOCK)) % count).reshape(RESAMPLES, -1)[:, :count]
