"""What a step takes from its numbers: a row of scalars for each kind of leaf. Used by _optimizer.py."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any, NamedTuple

from ._state import History, number_off


class Settled(NamedTuple):
    """Numbers, in the order in which a step takes them."""

    numbers: Mapping[str, Any]  # taken from these
    rate: Any  # a number, or a tuple of one a leaf
    decay: Any  # as the rate
    common: tuple[float, ...]  # the rest of a row, but for what depends on the leaf's past
    remembered: tuple[float, ...]  # what the leaf's next update wants back
    max_norm: float | None

    def rows(self, history: History, grad_scale: float) -> tuple[list[tuple[float, ...]], list[int] | None]:
        """The different rows of scalars of a step, and the index of each leaf's; None where there is but one."""
        _, rate, decay, common, remembered, _ = self
        keys: list[tuple[Any, ...]]
        row_of_each: list[int] | None
        if isinstance(rate, tuple) or isinstance(decay, tuple):
            each = history.each()
            columns = [column if isinstance(column, tuple) else repeat(column, len(each)) for column in (rate, decay)]
            keys, row_of_each = number_off(zip(each, *columns, strict=True))
        else:
            pasts, row_of_each = history.groups()
            keys = [(pasts[0], rate, decay)] if row_of_each is None else [(past, rate, decay) for past in pasts]
        rows: list[tuple[float, ...]] = []
        for (count, previous), rate, decay in keys:
            rows.append((count + 1, rate, grad_scale, decay, *common, *(previous or remembered)))
        return rows, row_of_each
