"""The GAN example, ``python -m flatstep gan``: a ring of Gaussians, learned with Adam and with OptimisticAdam.

Needs the extras ``demo`` and ``torch``. ring.py trains, plot.py draws.
"""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from . import plot, ring


def run(output: Path, steps: int) -> int:
    """Trains with each optimizer from the same start, prints what the generators learned, and draws it."""
    torch.set_num_threads(1)  # networks so small are done before a second thread has begun
    console = Console(highlight=False)
    samples = {}
    columns = [TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps")]
    with Progress(*columns, console=console) as progress:
        for name, optimizer in ring.OPTIMIZERS.items():
            task = progress.add_task(name, total=steps)
            samples[name] = ring.train(optimizer, steps, lambda task=task: progress.advance(task))  # type: ignore[misc]
    for name, points in samples.items():
        modes, share = ring.quality(points)
        console.print(f"{name:<14}: {modes} of {ring.MODES} Gaussians found, {share:.0%} of the samples on one")
    plot.write(output, samples)
    console.print(f"Both generators: {output}", soft_wrap=True, markup=False)
    return 0
