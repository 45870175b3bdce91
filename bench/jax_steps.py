"""What flatstep.jax is timed against: optax, compiled with its parameters and state donated. Used by command.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import flatstep.jax
from flatstep import _core

from .cases import Contender
from .shapes import many

SLOTS = 3
STEP, UPDATE, OPTAX = "step", "update + apply_updates", "optax"
RULES = ("amsgrad", "optimistic_adam_v2")


class Compiled(NamedTuple):
    """A contender's program: what it moves, and what it took to make it."""

    bytes_per_element: float
    compile_seconds: float


def mixed() -> list[tuple[int, ...]]:
    """Two hundred arrays as a model has them: vectors, and matrices of all sizes."""
    random = np.random.default_rng(0)
    vectors = [(int(length),) for length in random.integers(64, 4097, 100)]
    matrices = [(int(rows), int(columns)) for rows, columns in random.integers(16, 1025, (100, 2))]
    return [*vectors, *matrices]


CASES: dict[str, Callable[[], list[tuple[int, ...]]]] = {
    "one array": lambda: [(2**26,)],
    "200 mixed arrays": mixed,
    "1,000 arrays of 64 to 4,096": many,
}


def jax_contenders(rule: str, shapes: list[tuple[int, ...]]) -> tuple[list[Contender], dict[str, Compiled]]:
    """The three forms of a rule's step, and the limit: the same bytes moved as one array."""
    elements = sum(map(prod, shapes))
    streams = [np.ones(elements, np.float32) for _ in range(2 + SLOTS)]
    contenders = [
        Contender(f"limit{', prefetched' if prefetch else ''}", SLOTS, _limit(streams, prefetch), is_limit=True)
        for prefetch in (False, True)
    ]
    ours, theirs = getattr(flatstep.jax, rule)(1e-3), getattr(optax, rule)(1e-3)
    compiled: dict[str, Compiled] = {}
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        for name, opt, program, unseen in [
            (STEP, ours, _step(ours), 4 * (3 + 2 * SLOTS)),
            (UPDATE, ours, _update(ours), 4 * (2 + 2 * SLOTS)),
            (OPTAX, theirs, _update(theirs), 0),
        ]:
            run, compiled[name] = _prepare(opt, program, shapes, unseen)
            contenders.append(Contender(name, SLOTS, run))
    return contenders, compiled


def _step(opt: Any) -> Callable[..., Any]:
    return lambda params, state, grads: (*opt.step(params, state, grads), None)


def _update(opt: Any) -> Callable[..., Any]:
    """Ours puts the updates where the gradients were, and so gives them back; optax's needs no memory for them."""

    def update(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        is_ours = hasattr(opt, "step")
        return optax.apply_updates(params, updates), state, updates if is_ours else None

    return update


def _prepare(
    opt: Any, program: Callable[..., Any], shapes: list[tuple[int, ...]], unseen: int
) -> tuple[Callable[[], None], Compiled]:
    """The program as something to time. ``unseen`` are the bytes that XLA does not count: those of our kernels."""
    params = {str(i): jnp.ones(shape) for i, shape in enumerate(shapes)}
    grads = {name: jnp.full_like(param, 1e-3) for name, param in params.items()}
    state = opt.init(params)
    gives_back = jax.eval_shape(program, params, state, grads)[2] is not None
    lowered = jax.jit(program, donate_argnums=(0, 1, 2) if gives_back else (0, 1))
    start = time.perf_counter()
    compiled = lowered.lower(params, state, grads).compile()
    seconds = time.perf_counter() - start
    held = [params, state, grads]

    def run() -> None:
        held[0], held[1], given_back = lowered(*held)
        held[2] = held[2] if given_back is None else given_back
        jax.block_until_ready(next(iter(held[0].values())))  # a program's results are all ready together

    analysis: Any = compiled.cost_analysis()
    return run, Compiled(unseen + analysis["bytes accessed"] / sum(map(prod, shapes)), seconds)


def _limit(streams: list[Any], prefetch: bool) -> Callable[[], None]:
    return lambda: _core.move_streams(streams, prefetch)
