"""Seconds as people say them, on a page, in a chart and in a cell. Pure."""

from __future__ import annotations


def took(seconds: float, *, whole: bool = False) -> str:
    """`0.4 s`, `12 s`, `2 min 5 s`, `3 h 12 min`; `whole`: no tenths, for what is counting."""
    if seconds < 119.5:
        return f"{seconds:.1f} s" if seconds < 9.95 and not whole else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    large, small, units = (minutes, rest, ("min", "s")) if minutes < 120 else (minutes // 60, minutes % 60, ("h", "min"))
    return f"{large} {units[0]}" + (f" {small} {units[1]}" if small else "")


def tick(seconds: float) -> str:
    """Of an axis: `0 s`, `80 s`, `2:39`, `3:12 h`."""
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:.1f} s" if 0 < seconds < 9.95 else f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d}" if whole < 7200 else f"{whole // 3600}:{whole // 60 % 60:02d} h"


def usually(pair: tuple[float, float]) -> str:
    """`5 to 30 s`, `12 to 21 min`."""
    low, high = pair
    return f"{low:.2g} to {high:.3g} s" if high < 600 else f"{low / 60:.0f} to {high / 60:.0f} min"
