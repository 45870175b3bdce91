"""Durations and spreads as text. Used wherever results are shown."""

from __future__ import annotations

from .measure import Spread


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} us"


def percent(spread: Spread) -> str:
    """Half of what lies between the quartiles, beside the median."""
    return f"±{50 * (spread.upper - spread.lower) / spread.median:.0f}%"
