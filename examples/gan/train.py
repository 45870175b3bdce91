"""Trains a small GAN on a ring of eight Gaussians, and draws what it learned with each setting.

With Adam, with OptimisticAdam, and with OptimisticAdam that clips gradients and averages the generator's parameters.

    pip install "flatstep[demo,torch]" && python examples/gan/train.py --output gan.png

It is one game from one start, not a comparison: other learning rates and betas favour one or the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import plot
import ring


def run(output: Path, steps: int) -> None:
    """Trains with each setting from the same start, prints what the generators learned, and draws it."""
    torch.set_num_threads(1)  # a step of networks so small ends before a second thread begins
    console = Console(highlight=False)
    samples = {}
    columns = [TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps")]
    with Progress(*columns, console=console) as progress:
        for name, setting in ring.SETTINGS.items():
            task = progress.add_task(name, total=steps)
            samples[name] = ring.train(setting, steps, lambda task=task: progress.advance(task))  # type: ignore[misc]
    for name, points in samples.items():
        modes, share = ring.quality(points)
        console.print(f"{name:<24}: {modes} of {ring.MODES} Gaussians found, {share:.0%} of the samples on one")
    plot.write(output, samples)
    console.print(f"The generators: {output}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("gan.png"), help="PNG to write (%(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="steps of both networks (%(default)s)")
    arguments = parser.parse_args()
    run(arguments.output, arguments.steps)
