"""Norms over meshes of two dimensions: four threads take the places of processes, and exchange rows as those would."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from torch_cases import front, torch

if not torch.distributed.is_available():
    pytest.skip("this torch has no DTensor", allow_module_level=True)
from torch.distributed.tensor import Replicate, Shard

from flatstep.torch import _limits, _meshes

RANKS = range(4)
SECONDS = 20


@dataclass(frozen=True)
class Mesh:
    """As a DeviceMesh over ranks 0 to 3: ``sizes`` of all its dimensions, of which only ``dims`` are in it."""

    sizes: tuple[int, ...]
    dims: tuple[int, ...]
    rank: int

    def coordinate(self, rank: int) -> list[int]:
        return [rank // math.prod(self.sizes[dim + 1 :]) % self.sizes[dim] for dim in range(len(self.sizes))]

    def get_coordinate(self) -> list[int]:
        own = self.coordinate(self.rank)
        return [own[dim] for dim in self.dims]

    def size(self, dim: int) -> int:
        return self.sizes[self.dims[dim]]

    def get_group(self, dim: int) -> tuple[int, ...]:
        """The ranks that differ from this one in that dimension alone."""

        def others(rank: int) -> list[int]:
            return [at for d, at in enumerate(self.coordinate(rank)) if d != self.dims[dim]]

        return tuple(rank for rank in RANKS if others(rank) == others(self.rank))


BOTH, DATA, MODEL, ALL = ((2, 2), (0, 1)), ((2, 2), (0,)), ((2, 2), (1,)), ((4,), (0,))
S, R = Shard(0), Replicate()
# Tensors as (mesh, placements), None for a plain one; how many different parts each has; and the collectives of a norm.
CASES: dict[str, tuple[list[Any], list[int], int]] = {
    "on both": ([(BOTH, (S, S))], [4], 2),
    "on one of two": ([(BOTH, (R, S)), (BOTH, (S, R))], [2, 2], 2),
    "beside plain ones": ([None, (BOTH, (S, S)), (BOTH, (R, R))], [1, 4, 1], 2),
    "part of a mesh": ([(BOTH, (S, S)), (DATA, (S,)), (MODEL, (S,))], [4, 2, 2], 2),
    "one group of all": ([(ALL, (S,)), (BOTH, (S, S)), (DATA, (S,))], [4, 4, 2], 3),
    "all, the other way round": ([(DATA, (S,)), (BOTH, (S, S)), (ALL, (S,)), None], [2, 4, 4, 1], 3),
    "replicated": ([(BOTH, (R, R)), None], [1, 1], 0),
}


class Processes:
    """Threads that stand for processes."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._lock = threading.Lock()
        self._barriers: dict[tuple[int, ...], threading.Barrier] = {}
        self._rows: dict[Any, list[float]] = {}
        self.collectives = 0  # of the process of rank 0

    def gathered(self, row: list[float], group: tuple[int, ...]) -> list[list[float]]:
        with self._lock:
            barrier = self._barriers.setdefault(group, threading.Barrier(len(group)))
        self.collectives += self._own.rank == 0
        self._rows[group, self._own.rank] = row
        barrier.wait(SECONDS)
        rows = [self._rows[group, rank] for rank in group]
        barrier.wait(SECONDS)
        return rows

    def run(self, process: Callable[[int], Any]) -> list[Any]:
        def of_rank(rank: int) -> Any:
            self._own.rank = rank
            try:
                return process(rank)
            except (ValueError, RuntimeError) as error:
                return error

        with ThreadPoolExecutor(len(RANKS)) as pool:
            return list(pool.map(of_rank, RANKS))


@pytest.fixture
def processes(monkeypatch):
    made = Processes()
    monkeypatch.setattr(_meshes, "_gathered", made.gathered)
    monkeypatch.setattr(_meshes, "placement", lambda tensor: tensor)
    monkeypatch.setattr(_meshes.dist, "get_process_group_ranks", list)
    return made


def meshes_of(tensors: list[Any], rank: int) -> _meshes.Meshes:
    return _meshes.Meshes([None if t is None else (Mesh(*t[0], rank), t[1]) for t in tensors])


def total_of(index: int, tensor: Any, rank: int) -> float:
    """What a process finds of a tensor: the same as others that have the same part of it."""
    if tensor is None:
        return 3.0**index
    (sizes, dims), placements = tensor
    coordinate = Mesh(sizes, dims, rank).get_coordinate()
    own = [at for at, how in zip(coordinate, placements, strict=True) if how.is_shard()]
    return 3.0**index * (1 + sum(weight * at for weight, at in zip((5, 7), own, strict=False)))


def totals_of(meshes: _meshes.Meshes, tensors: list[Any], rank: int, factor: float = 1.0) -> list[float]:
    totals = [0.0] * (max(meshes.parts) + 1)
    for index, (tensor, part) in enumerate(zip(tensors, meshes.parts, strict=True)):
        totals[part] += factor * total_of(index, tensor, rank)
    return totals


def everything(tensors: list[Any]) -> dict[tuple[int, float], float]:
    """The different parts of all tensors."""
    found = {}
    for index, tensor in enumerate(tensors):
        for rank in RANKS:
            found[index, total_of(index, tensor, rank)] = total_of(index, tensor, rank)
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_part_counts_once(case, processes):
    """And all processes have the same bits."""
    tensors, parts, collectives = CASES[case]
    assert len(everything(tensors)) == sum(parts), "two parts of a tensor have the same total"

    def norm(rank, factor=1.0):
        meshes = meshes_of(tensors, rank)
        with meshes:
            return meshes.combine(totals_of(meshes, tensors, rank, factor), True)

    assert processes.run(norm) == [(math.sqrt(sum(everything(tensors).values())), True)] * 4
    assert processes.collectives == collectives
    assert len(set(processes.run(lambda rank: norm(rank, 0.1)))) == 1


@pytest.mark.parametrize("first", RANKS)
def test_plain_gradients_that_differ_by_rounding(first, processes):
    """All processes take those of one of them; a larger difference is an error everywhere."""
    tensors, *_ = CASES["beside plain ones"]

    def norm(rank, difference):
        meshes = meshes_of(tensors, rank)
        plain = [part for part, tensor in zip(meshes.parts, tensors, strict=True) if tensor is None]
        totals = totals_of(meshes, tensors, rank)
        totals[plain[0]] *= 1 + difference * (rank == first)
        return meshes.combine(totals, True)

    assert len(set(processes.run(lambda rank: norm(rank, 1e-6)))) == 1
    for error in processes.run(lambda rank: norm(rank, 1.0)):
        assert "have another norm on another process" in str(error)


class Parts(_meshes.Meshes):
    """Two parts, as of tensors that are divided in two ways; this is the only process."""

    def __init__(self) -> None:
        self.parts = [0, 1, 0]
        self.found: list[Any] = []

    def __bool__(self) -> bool:
        return True

    def guarded(self, function: Any) -> Any:
        return function

    def combine(self, totals, is_finite):
        self.found = [list(totals), is_finite]
        return math.sqrt(sum(totals)), is_finite


@pytest.mark.parametrize("bad", [None, 0, 1, 2])
def test_a_step_sums_by_part(bad, monkeypatch):
    """And what is not finite in any of them skips it."""
    meshes = Parts()
    monkeypatch.setattr(_limits.Limits, "meshes_of", lambda *_: meshes)
    params = [torch.nn.Parameter(torch.ones(2)) for _ in meshes.parts]
    opt = front.Adam(params, skip_nonfinite=True)
    for at, param in enumerate(params):
        param.grad = torch.full((2,), math.inf if at == bad else 1.0 + at)
    opt.step()
    squares = [math.inf if at == bad else 2 * (1.0 + at) ** 2 for at in range(3)]
    assert meshes.found == [[squares[0] + squares[2], squares[1]], bad is None]
    assert opt.skipped == (bad is not None)


@pytest.mark.parametrize("case", CASES)
def test_the_largest(case, processes):
    tensors, *_ = CASES[case]

    def largest(rank):
        meshes = meshes_of(tensors, rank)
        totals = [0.0] * (max(meshes.parts) + 1)
        for index, (tensor, part) in enumerate(zip(tensors, meshes.parts, strict=True)):
            totals[part] = max(totals[part], total_of(index, tensor, rank))
        return meshes.combine_largest(totals)

    assert processes.run(largest) == [max(everything(tensors).values())] * 4


@pytest.mark.parametrize("bad", RANKS)
def test_what_is_not_finite_on_one_process(bad, processes):
    tensors, *_ = CASES["on both"]

    def norm(rank):
        totals = [math.nan if rank == bad else 1.0]
        meshes = meshes_of(tensors, rank)
        return meshes.combine(totals, rank != bad), meshes_of(tensors, rank).combine_largest(totals)

    for (found, is_finite), largest in processes.run(norm):
        assert not is_finite and math.isnan(found) and math.isnan(largest)


@pytest.mark.parametrize("bad", RANKS)
@pytest.mark.parametrize("case", ["on both", "beside plain ones", "one group of all"])
def test_one_process_fails(case, bad, processes):
    """It raises its own error, and each other process an error instead of waiting for it."""
    tensors, *_ = CASES[case]

    def norm(rank):
        meshes = meshes_of(tensors, rank)
        with meshes:
            if rank == bad:
                raise ValueError("of its own")
            meshes.combine(totals_of(meshes, tensors, rank), True)

    for rank, error in enumerate(processes.run(norm)):
        assert isinstance(error, ValueError if rank == bad else RuntimeError), (rank, error)
        assert ("of its own" if rank == bad else "another process of the mesh has failed") in str(error)
