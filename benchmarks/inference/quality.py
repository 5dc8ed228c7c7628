"""Whether an arm still says what float32 says: the gate that a faster arm has to pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROMPTS = (
    "Long long ago, in a", "The capital of France is the", "Water boils at one hundred degrees", "She opened the door and saw",
    "The quick brown fox jumps over", "Once upon a time there was", "To be or not to be", "The best way to learn is",
    "In the middle of the night", "He looked at me and said", "Machine learning is a field of", "Two plus two makes four and",
    "The president of the United States", "It was a dark and stormy", "You need a cup of tea", "Please write a letter to my",
)
"""All of six tokens for SmolLM2, as many as the timed one, which is the first: a compiled arm has one shape."""
GATE = {"shared": 9, "delta": 0.4, "kl": 0.01}
"""Of ten tokens nine, in the mean (the tenth and the eleventh may change places); no log p of a shown token off by 0.4 (a half
more, or a third less) at any prompt; and in the mean 0.01 nats, which bound the probability that moved by 7% (Pinsker). Set
before the arms were tried on these prompts."""


@dataclass(frozen=True)
class Quality:
    """An arm's logits against the reference's, over some prompts.

    Attributes:
        shared: of the ten most likely tokens, the mean over the prompts.
        delta: the largest difference of a log p (natural) at any prompt, over the reference's ten most likely.
        kl: of the whole distribution from the reference's, in nats, mean over the prompts.
        each: the same three of each prompt.
    """

    shared: float
    delta: float
    kl: float
    each: list[tuple[int, float, float]]

    def complaints(self) -> list[str]:
        """Why the arm is not shown as faster. Logits that are no numbers fail."""
        return [text for wrong, text in (
            (not self.shared >= GATE["shared"], f"shares {self.shared:.1f} of ten tokens"),
            (not self.delta <= GATE["delta"], f"log p off by {self.delta:.2f}"),
            (not self.kl <= GATE["kl"], f"KL {self.kl:.3f}")) if wrong]


def quality(logits: Iterable[Sequence[float]], reference: Iterable[Sequence[float]]) -> Quality:
    """Both of shape (prompts, vocabulary)."""
    each = [_one(np.asarray(one, np.float64), np.asarray(other, np.float64))
            for one, other in zip(logits, reference, strict=True)]
    shared, delta, kl = zip(*each, strict=True)
    return Quality(float(np.mean(shared)), float(np.max(delta)), float(np.mean(kl)), each)  # of a NaN the maximum is NaN


def _one(logits: NDArray[np.float64], reference: NDArray[np.float64], top: int = 10) -> tuple[int, float, float]:
    p, r = _log_softmax(logits), _log_softmax(reference)
    best = np.argsort(-r, kind="stable")[:top]
    return (len(set(best) & set(np.argsort(-p, kind="stable")[:top])), float(np.abs(p - r)[best].max()),
            float(np.exp(r) @ (r - p)))


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = x - x.max()
    log_p: NDArray[np.float64] = x - np.log(np.exp(x).sum())
    return log_p
