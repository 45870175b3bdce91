"""The picture of the GAN example: what each generator makes of the ring. Used by train.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import ring


def write(path: Path, samples: Mapping[str, Tensor]) -> None:
    """Draws the samples of each generator side by side into one PNG."""
    figure = Figure(figsize=(15, 5.4), layout="constrained")  # no pyplot: no display is needed
    FigureCanvasAgg(figure)
    for axes, (name, points) in zip(figure.subplots(1, len(samples)), samples.items(), strict=True):
        _draw(axes, name, points)
    figure.savefig(path, format="png", dpi=150)


def _draw(axes: Axes, name: str, points: Tensor) -> None:
    modes, share = ring.quality(points)
    (x, y), (at_x, at_y) = points.T.numpy(), ring.centers().T.numpy()
    axes.scatter(x, y, s=4, color="#0072b2", alpha=0.35, linewidths=0)
    axes.scatter(at_x, at_y, s=320, facecolors="none", edgecolors="#e07b00", linewidths=1.5)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    axes.set_title(f"{name}\n{modes} of {ring.MODES} found, {share:.0%} of samples on one", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
