"""The cost models as tables: the bytes of a step, and of a training step's tail. Used by full_report.py, command.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .layouts import F32, Cost, cost_model
from .tail import SCALER_CHECK, Part, parts, tail_cost

STEP = "Bytes that a step moves for a parameter: itself and its slots read and written, its gradient read"
TAIL = "Bytes of a training step's tail in one call: the norm of gradients, the step, an average, gradients set to zero"


def show_cost_models(console: Console) -> None:
    """That of a step and that of a tail, whose parts are named."""
    _show_model(STEP, cost_model(), console)
    _show_model(TAIL, cost_model(tail_cost), console)
    _show_parts(parts("amsgrad", F32), console)


def _show_parts(found: Sequence[Part], console: Console) -> None:
    """A row a part of the tail."""
    table = Table(title="AMSGrad's tail on float32, by part", title_justify="left", box=SIMPLE)
    table.add_column("part")
    for column in ("in one call", "pass by pass"):
        table.add_column(column, justify="right")
    for name, inside, apart in found:
        table.add_row(name, str(inside), str(apart))
    table.add_section()
    table.add_row("all", str(sum(part.inside for part in found)), str(sum(part.apart for part in found)))
    console.print(table)
    console.print(f"GradScaler's own check adds {SCALER_CHECK} to the call; pass by pass it is what unscales")


def _show_model(title: str, costs: Iterable[Cost], console: Console) -> None:
    """A row a rule, a column a layout."""
    by_rule: dict[str, dict[str, Cost]] = {}
    for cost in costs:
        by_rule.setdefault(cost.rule, {})[cost.layout.name] = cost
    layouts = list(dict.fromkeys(layout for found in by_rule.values() for layout in found))
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("rule")
    table.add_column("slots")
    for layout in layouts:
        table.add_column(layout.replace(", ", "\n"), justify="right")
    for rule, found in by_rule.items():
        slots = next(iter(found.values())).slots
        table.add_row(rule, ", ".join(slots), *(str(found[name].bytes) if name in found else "" for name in layouts))
    console.print(table)
