"""A step as a compiled program of JAX's, its parameters and state donated. Used by the peers of the JAX front end."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..contender import Contender, Task
from ..data import Data

MANY = 200  # arrays; with more, programs that XLA makes of them take a minute to compile
Program = Callable[..., Any]
"""params, state, grads -> params, state, the memory of grads if it is given back, else None."""


def contender(name: str, opt: Any, program: Program, data: Data, unseen: float = 0.0, ahead: bool = False) -> Contender:
    """The program as something to time. ``unseen`` bytes an element are those of our kernels, which XLA cannot count.

    ``ahead``: what runs is the executable itself, not the function that finds it.
    """
    params = _named(data.params(), data)
    grads = _named(data.grads, data)
    state = _state(opt, params)
    gives_back = jax.eval_shape(program, params, state, grads)[2] is not None
    jitted = jax.jit(program, donate_argnums=(0, 1, 2) if gives_back else (0, 1))
    start = time.perf_counter()
    compiled = jitted.lower(params, state, grads).compile()
    seconds = time.perf_counter() - start
    call = compiled if ahead else jitted
    held = [params, state, grads]

    def run() -> None:
        held[0], held[1], given_back = call(*held)
        held[2] = held[2] if given_back is None else given_back
        jax.block_until_ready(next(iter(held[0].values())))  # a program's results are all ready together

    def refresh() -> None:
        held[2] = _named(data.grads, data)

    analysis: Any = compiled.cost_analysis()
    moved = unseen + analysis["bytes accessed"] / sum(map(prod, data.shapes))
    return Contender(
        name,
        run,
        lambda: [np.asarray(param, np.float64) for param in held[0].values()],
        refresh,
        bytes_per_element=moved,
        compile_seconds=seconds,
    )


def _state(opt: Any, params: dict[str, jax.Array]) -> Any:
    """``opt.init(params)``, which would compile something for every shape: from that of parameters with one element."""
    shapes = jax.eval_shape(opt.init, params)
    small = opt.init({name: jnp.ones(1, param.dtype) for name, param in params.items()})
    return jax.tree.map(lambda like, one: _put(np.full(like.shape, np.ravel(one)[0], like.dtype)), shapes, small)


def too_many(task: Task) -> str:
    return f"compiles for a minute at {5 * MANY:,} arrays" if task.arrays > MANY else ""


def _named(arrays: list[Any], data: Data) -> dict[str, jax.Array]:
    return {str(i): _put(array.astype(jnp.dtype(data.layout.param), copy=False)) for i, array in enumerate(arrays)}


def _put(array: Any) -> jax.Array:
    """In memory of XLA's own, on the CPU. jnp.array would compile something for every shape."""
    placed: jax.Array = jax.device_put(array, jax.local_devices(backend="cpu")[0], may_alias=False)
    return placed
