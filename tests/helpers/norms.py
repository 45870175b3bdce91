"""The oracle of norms: the order in which squares are added, and the factors by which gradients are clipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK, LANES = 1024, 16


def in_pairs(values: Sequence[float]) -> np.float64:
    """Neighbours are added until one is left; an odd last one waits."""
    rest = [np.float64(value) for value in values]
    while len(rest) > 1:
        odd = rest[len(rest) // 2 * 2 :]
        rest = [a + b for a, b in zip(rest[0::2], rest[1::2], strict=False)] + odd
    return rest[0] if rest else np.float64(0)


def in_halves(lanes: np.ndarray) -> np.float64:
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return lanes[0]


def scaled(grad: np.ndarray, scale: float) -> np.ndarray:
    """As steps multiply it: in the type in which they compute."""
    compute = np.float64 if grad.dtype == np.float64 else np.float32
    return (grad.astype(compute) * compute(scale)).astype(np.float64)


def of_block(numbers: np.ndarray) -> np.float64:
    rows = np.zeros((-(-numbers.size // LANES), LANES))
    rows.reshape(-1)[: numbers.size] = numbers
    sums = np.zeros(LANES)
    for row in rows:
        sums = sums + row * row
    return in_halves(sums)


def total(grads: Sequence[np.ndarray | None], scale: float = 1.0) -> np.float64:
    """The sum of squares."""
    with np.errstate(all="ignore"):
        numbers = [scaled(grad, scale).reshape(-1) for grad in grads if grad is not None and grad.size]
        blocks = [[of_block(flat[i : i + BLOCK]) for i in range(0, flat.size, BLOCK)] for flat in numbers]
        return in_pairs([in_pairs(each) for each in blocks])


def global_norm(grads: Sequence[np.ndarray | None], scale: float = 1.0) -> np.float64:
    """The square root of the sum of squares."""
    return np.sqrt(total(grads, scale))


def is_finite(grads: Sequence[np.ndarray | None], scale: float = 1.0) -> bool:
    with np.errstate(all="ignore"):
        return all(np.isfinite(scaled(grad, scale)).all() for grad in grads if grad is not None)


def factor(norm: np.float64, max_norm: float, as_torch: bool = False) -> np.float64:
    """As optax.clip_by_global_norm, or as torch's clip_grad_norm_."""
    with np.errstate(all="ignore"):
        if as_torch:
            return np.fmin(1.0, max_norm / (norm + 1e-6)) if not np.isnan(norm) else norm
        return np.float64(1) if norm <= max_norm else max_norm / norm
