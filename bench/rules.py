"""The optimizer that each rule of the catalogue is for, from the declarations. Used by contenders and plots.py."""

from __future__ import annotations

from ast import literal_eval
from typing import Any, NamedTuple

from .._rules import OPTIMIZERS, Declaration
from .._rules.signature import parameters


class Chosen(NamedTuple):
    """An optimizer with the settings that choose a rule, as Python writes them."""

    optimizer: Declaration
    settings: str

    @property
    def title(self) -> str:
        return f"{self.optimizer.name}({self.settings})" if self.settings else self.optimizer.name

    @property
    def options(self) -> dict[str, Any]:
        return {name: literal_eval(str(value)) for name, value, _ in parameters(self.settings)}

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments of the optimizer, with these settings and else its defaults."""
        return {**{own.name: own.default for own in self.optimizer.arguments}, **self.options}


# A rule of several optimizers is that of the first: AdamW's is Adam's.
RULES: dict[str, Chosen] = {
    rule: Chosen(declaration, settings)
    for declaration in reversed(OPTIMIZERS)
    for settings, rule, _ in declaration.numpy.table
}
