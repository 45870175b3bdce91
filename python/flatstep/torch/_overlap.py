"""Whether tensors with gaps share memory with others. Used by _plain.py, for what the core sees only copies of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def first_overlap(tensors: Sequence[Tensor]) -> tuple[int, int] | None:
    """The indices of two tensors that share a byte, the later one second; None where each has memory of its own."""
    extents = sorted((*_extent(tensor), index) for index, tensor in enumerate(tensors) if tensor.numel())
    start = 0
    while start < len(extents):
        begin, end, _ = extents[start]
        stop = start + 1
        while stop < len(extents) and extents[stop][0] < end:
            end = max(end, extents[stop][1])
            stop += 1
        found = _among(tensors, [index for *_, index in extents[start:stop]], begin, end) if stop > start + 1 else None
        if found:
            return found
        start = stop
    return None


def _among(tensors: Sequence[Tensor], indices: list[int], begin: int, end: int) -> tuple[int, int] | None:
    """The first overlap of tensors that lie between two addresses: each marks its bytes with its number, from 1."""
    marks = torch.zeros(end - begin, dtype=torch.int32, device="cpu")
    for number, index in enumerate(sorted(indices), 1):
        own = _bytes_of(tensors[index], marks, begin)
        if other := int(own.max()):
            return sorted(indices)[other - 1], index
        own.fill_(number)
    return None


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The addresses of a tensor's first byte and of the one behind its last."""
    reach = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size()


def _bytes_of(tensor: Tensor, marks: Tensor, begin: int) -> Tensor:
    """The marks of a tensor's bytes."""
    size = tensor.element_size()
    strides = [stride * size for stride in tensor.stride()]
    return marks.as_strided([*tensor.shape, size], [*strides, 1], tensor.data_ptr() - begin)
