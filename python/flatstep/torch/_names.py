"""What messages call a parameter. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._numbers import Group


class Names:
    """Names a parameter by its position, counted over all groups. Made for each step, and filled when first asked."""

    def __init__(self, param_groups: Sequence[Group], groups: Sequence[tuple[Any, ...]]) -> None:
        """``groups`` has the parameters of each group first: perhaps not all that the group holds."""
        self._param_groups = param_groups
        self._groups = groups
        self._names: list[str] = []

    def __call__(self, position: int) -> str:
        if not self._names:
            for index, (group, (params, *_)) in enumerate(zip(self._param_groups, self._groups, strict=True)):
                self._names += _names(index, group, params)
        return self._names[position]


def _names(index: int, group: Group, params: Sequence[Any]) -> list[str]:
    known = dict(zip(map(id, group["params"]), group.get("param_names") or (), strict=False))
    return [str(known.get(id(param), f"{at} of group {index}")) for at, param in enumerate(params)]
