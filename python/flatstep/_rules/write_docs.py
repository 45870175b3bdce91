"""The table of optimizers in the README, from the declarations. For write.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .. import _core
from .declaration import Declaration


def table(declarations: Iterable[Declaration]) -> str:
    """A row for each optimizer, and for each of its settings that moves other bytes."""
    head = ["| optimizer | state | bytes moved a float32 parameter | defined as |", "|---|---|---|---|"]
    return "\n".join(head + [row for declaration in declarations for row in _rows(declaration)])


def _rows(declaration: Declaration) -> Iterator[str]:
    for settings, rule, defined_as in declaration.numpy.table:
        slots = _core.slots(rule)
        name = f"{declaration.name}({settings})" if settings else declaration.name
        # The parameter is read and written, the gradient read, each slot read and written.
        moved = 4 * (3 + 2 * len(slots))
        yield f"| `{name}` | {', '.join(f'`{slot}`' for slot in slots)} | {moved} | {defined_as} |"
