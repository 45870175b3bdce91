"""Norms of gradients that are divided among processes, as DTensors are. Used by _limits.py and _clip.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ._plain import placement

T = TypeVar("T")

_FINE, _NOT_FINITE, _UNLIKE, _FAILED = 0.0, 1.0, 2.0, 3.0  # what a process tells the others; the largest prevails
_ROUNDING = 0.02  # by how much of itself a sum of the same gradients may differ between processes


def are_several() -> bool:
    """Whether there are other processes, among which tensors could be divided."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Meshes:
    """The meshes on which tensors lie, and what their processes find out together.

    A sum over a tensor counts once on a mesh dimension on which the tensor is replicated. Plain tensors are the same on
    all processes. In a ``with`` block each process calls ``combine``, or leaves the block by an exception. Then the
    others, which wait for it, raise RuntimeError.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._groups: list[Any] = []  # process groups, in the order in which all processes meet them
        self._index_of: dict[tuple[int, ...], int] = {}  # of the group with these ranks
        self._part_of: dict[tuple[int, ...], int] = {}  # of tensors that are divided over these groups
        self._outside = False
        known: dict[Any, int] = {}
        self.parts: list[int] = []  # by tensor: those of one part are added up before processes are
        for tensor in tensors:
            where = placement(tensor)
            if where not in known:
                known[where] = self._part_of.setdefault(self._divided_over(where), len(self._part_of))
            self.parts.append(known[where])
        self._divided = [set(groups) for groups in self._part_of]
        self._found: tuple[float, bool] | None = None
        self._has_met = False

    def __bool__(self) -> bool:
        """Whether any tensor is divided."""
        return bool(self._groups) or self._outside

    def __enter__(self) -> Meshes:
        """ValueError where this process has no part in a mesh."""
        if self._outside:
            self._meet(_FAILED, [0.0] * len(self._divided))
            raise ValueError(
                "a parameter lies on a device mesh without this process, which cannot know the norm of its gradient; "
                "make an optimizer of its own for it"
            )
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # After a KeyboardInterrupt this process waits for no other.
        if isinstance(error, Exception) and not self._has_met:
            self._meet(_FAILED, [0.0] * len(self._divided))

    def guarded(self, function: Callable[..., T]) -> Callable[..., T]:
        """The function, which then runs in a ``with`` block where other processes wait."""

        def run(*arguments: Any) -> T:
            with self:
                return function(*arguments)

        return run if self else function

    def _divided_over(self, where: Any) -> tuple[int, ...]:
        """The groups over which tensors of this placement are divided."""
        if where is None:
            return ()
        mesh, placements = where
        found = []
        if mesh.get_coordinate() is None:
            self._outside = True
            return ()
        for dim, how in enumerate(placements):
            if how.is_replicate() or mesh.size(dim) == 1:
                continue
            group = mesh.get_group(dim)
            ranks = tuple(dist.get_process_group_ranks(group))
            if ranks not in self._index_of:
                self._index_of[ranks] = len(self._groups)
                self._groups.append(group)
            found.append(self._index_of[ranks])
        return tuple(found)

    def combine(self, totals: Sequence[float], is_finite: bool) -> tuple[float, bool]:
        """The norm of all gradients from the sums of squares of the parts here, and whether all numbers are finite."""
        if self._found is None:  # a step may be tried twice
            status, totals = self._meet(_FINE if is_finite else _NOT_FINITE, list(totals))
            self._found = math.sqrt(_sum_in_pairs(totals)), status == _FINE
        return self._found

    def combine_largest(self, totals: Sequence[float]) -> float:
        """The largest magnitude of all gradients from those of the parts here; NaN if a number is."""
        _, totals = self._meet(_FINE, list(totals), largest=True)
        return _largest(totals)

    def _meet(self, status: float, totals: list[float], largest: bool = False) -> tuple[float, list[float]]:
        """The status and the totals of all processes, by one collective a group. RuntimeError where one failed."""
        self._has_met = True
        has_failed = status == _FAILED
        done: set[int] = set()
        for index, group in enumerate(self._groups):
            done.add(index)
            rows = _gathered([status, *totals], group)
            status = max(row[0] for row in rows)
            for part, divided in enumerate(self._divided):
                column = [row[1 + part] for row in rows]
                if index in divided:
                    totals[part] = _largest(column) if largest else _sum_in_pairs(column)
                elif divided <= done:
                    status = max(status, _FINE if _are_alike(column) else _UNLIKE)
                    totals[part] = column[0]
        if not has_failed:
            _check_status(status)
        return status, totals


ALONE = Meshes(())


def _check_status(status: float) -> None:
    if status == _FAILED:
        raise RuntimeError("another process of the mesh has failed, so that the gradients have no norm; see its error")
    if status == _UNLIKE:
        raise RuntimeError(
            "the gradients of parameters that are not divided have another norm on another process of the mesh; "
            "average them over the processes before the step, or make an optimizer of their own for these parameters"
        )


def _gathered(row: list[float], group: Any) -> list[list[float]]:
    """What each process of the group has, in the order of their ranks."""
    size = dist.get_world_size(group)
    rows = torch.empty(size * len(row), dtype=torch.float64, device="cpu")
    dist.all_gather_into_tensor(rows, torch.tensor(row, dtype=torch.float64, device="cpu"), group=group)
    return rows.view(size, len(row)).tolist()


def _are_alike(totals: Sequence[float]) -> bool:
    """Whether they differ by no more than rounding explains. What is not finite differs from nothing."""
    least, most = min(totals), max(totals)
    return not all(map(math.isfinite, totals)) or most - least <= _ROUNDING * most


def _sum_in_pairs(values: Sequence[float]) -> float:
    """Neighbours are added until one is left; an odd last one waits. The order depends on their number alone."""
    rest = list(values)
    while len(rest) > 1:
        odd = rest[len(rest) // 2 * 2 :]
        rest = [a + b for a, b in zip(rest[0::2], rest[1::2], strict=False)] + odd
    return rest[0] if rest else 0.0


def _largest(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)
