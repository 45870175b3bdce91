"""What scenarios of sharded arrays on eight devices share. A scenario raises where something is wrong.

jax_mesh_worker.py runs them in a process of its own, which test_jax_sharding.py starts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_steps import buffers, collectives, copies
from scenarios import Scenarios, registered_in

SCENARIOS: Scenarios = {}
scenario = partial(registered_in, SCENARIOS)
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
KINDS = {
    "auto": (AUTO, AUTO),
    "explicit": (EXPLICIT, EXPLICIT),
    "explicit+auto": (EXPLICIT, AUTO),
    "auto+explicit": (AUTO, EXPLICIT),
}
PURE = ("auto", "explicit")

# Leaves by their shapes, which state and gradients share: on both axes of the mesh, on one of them, on neither.
WHERE = {(16, 24): P("a", "b"), (32,): P("a"), (7, 4): P(None, "b"), (4, 6): P(("b"), None), (5,): P(), (): P()}
SHAPES = {"w": (16, 24), "b": (32,), "c": (7, 4), "d": (4, 6), "e": (5,), "s": ()}


def mesh_of(kind: str) -> Any:
    return jax.make_mesh((4, 2), ("a", "b"), axis_types=KINDS[kind])


def entered(mesh: Any, inside: bool = True) -> Any:
    return jax.set_mesh(mesh) if inside else contextlib.nullcontext()


def numbers(seed: int, lead: tuple[int, ...] = (), dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Parameters or gradients, of the host: device_put may lend out a device's array, which donation then ends."""
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(lead + shape).astype(dtype) for name, shape in SHAPES.items()}


def host(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


def place(tree: Any, mesh: Any, lead: tuple[Any, ...] = (), where: Any = None) -> Any:
    """A tree sharded leaf by leaf, batch axes as ``lead`` says."""
    where = WHERE if where is None else where

    def put(x: Any) -> Any:
        return jax.device_put(x, NamedSharding(mesh, P(*lead[: x.ndim], *where[x.shape[len(lead) :]])))

    return jax.tree.map(put, tree)


def alone(step: Any, *operands: Any, steps: int = 2) -> Any:
    """The results without a mesh."""
    for _ in range(steps):
        operands = (*jax.jit(step)(*operands), *operands[2:])
    return host(operands[:2])


def in_place(step: Any, *operands: Any) -> Any:
    """Results of two steps that exchange nothing, copy nothing and leave everything where it was, and their program.

    The first may be called with memory of NumPy's, which nobody writes to.
    """
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*operands).compile()
    program = compiled.as_text()
    assert collectives(program) == [] and copies(program) == []
    for is_first in (True, False):
        before = [(x.sharding, x.ndim) for x in jax.tree.leaves(operands[:2])]
        places = buffers(operands[:2])
        operands = (*compiled(*operands), *operands[2:])
        after = [x.sharding for x in jax.tree.leaves(operands[:2])]
        assert all(x.is_equivalent_to(y, ndim) for (x, ndim), y in zip(before, after, strict=True)), after
        assert is_first or buffers(operands[:2]) == places
    return operands[:2], program


EVERYWHERE = [(kind, True) for kind in KINDS] + [(kind, False) for kind in PURE]


def rejected(kind: type[Exception], words: str, function: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        function()
