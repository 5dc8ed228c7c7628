"""Seconds as people say them."""

from __future__ import annotations

import pytest

from gpurunbook.times import tick, took, usually


@pytest.mark.parametrize(("seconds", "said"), [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (119.6, "2 min"),
                                               (160, "2 min 40 s"), (7199.4, "119 min 59 s"), (7199.6, "2 h"),
                                               (11_520, "3 h 12 min")])
def test_took(seconds: float, said: str) -> None:
    assert took(seconds) == said


def test_what_is_counting_has_no_tenths() -> None:
    assert [took(seconds, whole=True) for seconds in (0.4, 8.6, 45.2, 720)] == ["0 s", "9 s", "45 s", "12 min"]


@pytest.mark.parametrize(("pair", "said"), [((0.2, 2), "0.2 to 2 s"), ((82, 410), "82 to 410 s"), ((720, 1260), "12 to 21 min")])
def test_usually(pair: tuple[float, float], said: str) -> None:
    assert usually(pair) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (2.25, "2.2 s"), (80, "80 s"), (159, "2:39"), (11_520, "3:12 h")])
def test_tick(seconds: float, said: str) -> None:
    assert tick(seconds) == said
