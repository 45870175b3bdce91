"""What the demo prints, with rich: a progress bar while it trains, a table for each problem. Used by the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from . import counterexample, digits, game

SHOWN = (100, 1_000, 5_000, 10_000, 20_000)  # steps of the counterexample
ROWS = 6  # of the digits table, besides the one before training

Histories = Mapping[str, Sequence[digits.Epoch]]


def introduce_digits(console: Console, data: digits.Digits) -> None:
    """Says what is trained on what."""
    console.print("[bold]Handwritten digits[/bold], a network with one hidden layer")
    console.print(
        f"{len(data.train.labels):,} images to train on, {len(data.test.labels)} to test. "
        f"Learning rate {digits.LEARNING_RATE:g};\nthe same start and the same batches of {digits.BATCH} for both.\n",
        soft_wrap=True,
    )


def train_with_progress(console: Console, data: digits.Digits, epochs: int) -> dict[str, list[digits.Epoch]]:
    """Trains with each optimizer, and shows how far it is and how the loss falls."""
    histories: dict[str, list[digits.Epoch]] = {}
    columns = [
        TextColumn("{task.description:<7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, loss {task.fields[loss]:.4f}"),
    ]
    with Progress(*columns, console=console) as progress:
        for name, make in digits.OPTIMIZERS.items():
            task = progress.add_task(name, total=epochs, loss=0.0)
            histories[name] = []
            for done, epoch in enumerate(digits.train(make, data, epochs)):
                histories[name].append(epoch)
                progress.update(task, completed=done, loss=epoch.train_loss)
    return histories


def show_digits(console: Console, histories: Histories) -> None:
    """Losses and accuracy, every few epochs and at the end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("\nepoch", justify="right")
    for name in histories:
        for column in (f"{name}\ntrain loss", "\ntest loss", "\naccuracy"):
            table.add_column(column, justify="right")
    last = len(next(iter(histories.values()))) - 1
    for epoch in sorted({*range(0, last, -(-last // ROWS)), last}):
        cells = [cell for history in histories.values() for cell in _cells(history[epoch])]
        table.add_row(str(epoch), *cells, style="bold" if epoch == last else None)
    console.print(table)


def _cells(epoch: digits.Epoch) -> list[str]:
    return [f"{epoch.train_loss:.4f}", f"{epoch.test_loss:.4f}", f"{epoch.test_accuracy:.1%}"]


def show_counterexample(console: Console, paths: Mapping[str, NDArray[np.float64]]) -> None:
    """Where x is after some steps."""
    console.print("[bold]The counterexample of Reddi et al.[/bold], which AMSGrad was made for")
    console.print(
        f"x in [-1, 1]. One gradient in {counterexample.PERIOD} is {counterexample.LARGE:g}, the others are "
        f"{counterexample.SMALL:g}:\nthe best x is {counterexample.BEST:g}.",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("step", *(f"x, {name}" for name in paths)):
        table.add_column(column, justify="right")
    for step in SHOWN:
        table.add_row(f"{step:,}", *(f"{path[step]:.2f}" for path in paths.values()))
    console.print(table)


def show_game(console: Console, distances: Mapping[str, NDArray[np.float64]]) -> None:
    """The distances at the published steps, beside the published ones."""
    optimistic, adam = distances["OptimisticAdam"], distances["Adam"]
    yes, no = ("ok", "OFF") if console.options.ascii_only else ("✓", "✗")
    console.print("[bold]The game f(x, y) = x y[/bold]")
    console.print("x descends, y ascends, from (1, 2); the distance from the solution, (0, 0):")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("step", "OptimisticAdam", "published", f"within {game.TOLERANCE:g}", "Adam"):
        table.add_column(column, justify="center" if column.startswith("within") else "right")
    for step, published in game.PUBLISHED.items():
        mark = f"[green]{yes}[/green]" if game.is_close(optimistic[step], step) else f"[bold red]{no}[/bold red]"
        table.add_row(f"{step}", f"{optimistic[step]:.3f}", f"{published:.3f}", mark, f"{adam[step]:.3f}")
    console.print(table)
    console.print(
        "Published: in the docstring of optax.optimistic_adam_v2. Exact arithmetic gives\n"
        "0.7955 at step 256 (it prints as 0.795); the 0.796 carries float32 error.\n"
        f"Adam circles: in all {len(adam) - 1:,} steps it comes no nearer than {adam.min():.3f}.",
        soft_wrap=True,
    )
