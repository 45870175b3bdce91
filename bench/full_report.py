"""All that a run found, as text: what a user asks first, then the details. Used by command.py."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from .beside import from_json, show_beside
from .cost_report import show_cost_models
from .handover import show_handover
from .report import show_cases, show_fixed_cost, show_standing, standing
from .results import Results
from .startup import show_startup
from .summary import ratios, show_ratios
from .threads import show_threads

WIDTH = 150  # columns


def show_report(results: Results, console: Console) -> None:
    """Also of results that were read from a file, whichever parts they have."""
    show_ratios(ratios(results.cases), console)
    if (found := standing(results.cases)).cases:
        show_standing(found, console)
    show_threads(results, console)
    extras = results.extras
    if "beside" in extras:
        show_beside(from_json(extras["beside"]), console)
    show_cases(results, console)
    show_fixed_cost(results, console)
    if "handover" in extras:
        show_handover(extras["handover"], results, console)
    if "startup" in extras:
        show_startup(extras["startup"], console)
    show_cost_models(console)
    if results.absent:
        console.print(f"not here, so without: {', '.join(results.absent)}")


def write_report(results: Results, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        show_report(results, Console(file=file, width=WIDTH))
