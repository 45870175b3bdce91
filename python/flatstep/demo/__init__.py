"""The demo, ``python -m flatstep demo``: three small problems, solved, printed and drawn. Needs the ``demo`` extra.

digits.py, counterexample.py and game.py compute, report.py prints, plot.py draws.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from .._outputs import check_writable
from . import counterexample, digits, game, plot, report

__all__ = ["check_writable", "counterexample", "digits", "game", "plot", "report", "run"]


def run(output: Path, epochs: int) -> int:
    """The whole demo. Exit status 1 if the game does not go as published."""
    console = Console(highlight=False)
    data = digits.load()
    report.introduce_digits(console, data)
    histories = report.train_with_progress(console, data, epochs)
    report.show_digits(console, histories)

    paths = {name: counterexample.play(make) for name, make in counterexample.OPTIMIZERS.items()}
    report.show_counterexample(console, paths)

    distances = {name: game.play(make) for name, make in game.OPTIMIZERS.items()}
    report.show_game(console, distances)

    plot.write(output, histories, paths, distances)
    console.print(f"\nAll curves: {output}", soft_wrap=True, markup=False)
    return 0 if game.is_as_published(distances["OptimisticAdam"]) else 1
