"""The demo's picture: the loss of the digits, x of the counterexample, the distance in the game. Used by the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from . import counterexample, digits, game

Histories = Mapping[str, Sequence[digits.Epoch]]
Paths = Mapping[str, NDArray[np.float64]]
Distances = Mapping[str, NDArray[np.float64]]

# One colour an optimizer, in all parts. Readers who see fewer colours can tell them apart too.
COLORS = {"AMSGrad": "#0072b2", "OptimisticAdam": "#007f5f", "Adam": "#e07b00"}


def write(path: Path, histories: Histories, paths: Paths, distances: Distances) -> None:
    """Draws the problems side by side into one PNG."""
    # A canvas of its own: no display is needed, and no pyplot figure of the caller's is touched.
    figure = Figure(figsize=(15, 4.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    _draw_digits(left, histories)
    _draw_counterexample(middle, paths)
    _draw_game(right, distances)
    for axes in (left, middle, right):
        _tidy(axes)
    figure.savefig(path, format="png", dpi=150)


def _draw_digits(axes: Axes, histories: Histories) -> None:
    for name, history in histories.items():
        label = f"{name}, accuracy {history[-1].test_accuracy:.1%}"
        axes.plot([epoch.test_loss for epoch in history], color=COLORS[name], linewidth=2, label=label)
        axes.plot([epoch.train_loss for epoch in history], color=COLORS[name], linewidth=1, linestyle=(0, (4, 2)))
    axes.plot([], color="#888888", linewidth=1, linestyle=(0, (4, 2)), label="dashed: on the training images")
    axes.set(yscale="log", xlabel="epoch", ylabel="cross-entropy")
    axes.set_title("Handwritten digits: loss on the test images", loc="left")
    axes.legend(frameon=False)


def _draw_counterexample(axes: Axes, paths: Paths) -> None:
    for name, path in paths.items():
        means = counterexample.by_period(path)
        steps = counterexample.PERIOD * np.arange(1, len(means) + 1)
        axes.plot(steps, means, color=COLORS[name], linewidth=2, label=name)
    axes.axhline(counterexample.BEST, color="#888888", linewidth=1, linestyle=(0, (4, 2)), label="the best x")
    axes.set(xlabel="step", ylabel=f"x, mean of {counterexample.PERIOD} steps", ylim=(-1.1, 1.1))
    axes.set_xticks(range(0, counterexample.STEPS + 1, 5000))
    axes.set_title("Reddi et al.: a rare large gradient", loc="left")
    axes.legend(frameon=False, loc="center right")


def _draw_game(axes: Axes, distances: Distances) -> None:
    for name, path in distances.items():
        axes.plot(path, color=COLORS[name], linewidth=2, label=name)
    axes.plot(
        list(game.PUBLISHED),
        list(game.PUBLISHED.values()),
        label="published by optax",
        linestyle="none",
        marker="o",
        markersize=6,
        markerfacecolor="white",
        markeredgecolor="#222222",
        clip_on=False,  # the first ones lie on the axis
        zorder=3,
    )
    axes.set(yscale="log", xlabel="step", ylabel="distance from the solution")
    axes.set_title("The game f(x, y) = x y, from (1, 2)", loc="left")
    axes.legend(frameon=False, loc="lower left")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    axes.margins(x=0.02)
