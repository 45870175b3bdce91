"""Golden states of the JAX optimizers. write.py writes them, test_golden_states.py reads them.

A state is written as the path and the array of each of its leaves, and the names of the types in its chain.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import flatstep.jax as front
from table import JAX

from . import encode, write

FOLDER = write.FOLDER / "states-0.1" / "jax"

Numbers = dict[str, Any]
NUMBERS: Numbers = dict(b1=0.8, b2=0.95, eps=1e-6, eps_root=2.0**-40)


def schedule(count: Any) -> Any:
    return 0.1 / (1 + count)


def mask(tree: Any) -> Any:
    return {name: name != "b" for name in tree}


MAKE: dict[str, tuple[str, Numbers]] = {
    **{name: (name, {}) for name in JAX},
    "adam-nesterov": ("adam", dict(nesterov=True)),
    "adam-bfloat16": ("adam", dict(mu_dtype="bfloat16")),
    "adam-schedule": ("adam", dict(learning_rate=schedule, weight_decay=0.3)),
    "adamw": ("adamw", dict(weight_decay=0.3)),
    "adamw-schedule": ("adamw", dict(learning_rate=schedule, weight_decay=schedule)),
    "adamw-mask": ("adamw", dict(weight_decay=0.3, mask=mask)),
    "amsgrad-torch": ("amsgrad", dict(convention="torch")),
    "amsgrad-paper": ("amsgrad", dict(bias_correction_mu=False, bias_correction_nu=False)),
    "amsgrad-raw_mu": ("amsgrad", dict(bias_correction_mu=False)),
    "amsgrad-bfloat16": ("amsgrad", dict(mu_dtype="bfloat16")),
    "amsgrad-schedule": ("amsgrad", dict(learning_rate=schedule)),
    "optimistic_adam_v2": ("optimistic_adam_v2", dict(alpha=0.5, beta=0.7)),
    "optimistic_adam_v2-plain": ("optimistic_adam_v2", dict(nesterov=False)),
    "optimistic_adam_v2-bfloat16": ("optimistic_adam_v2", dict(mu_dtype="bfloat16")),
    "optimistic_adam_v2-schedule": ("optimistic_adam_v2", dict(learning_rate=schedule)),
}


def make(name: str) -> Any:
    function, settings = MAKE[name]
    numbers = {key: value for key, value in NUMBERS.items() if JAX[function].has([key])}
    return getattr(front, function)(**{"learning_rate": 0.1, **numbers, **settings})


def params() -> Any:
    return {
        "w": jnp.arange(-3, 3, dtype=jnp.float32).reshape(2, 3) / 7,
        "b": jnp.linspace(0, 1, 4),
        "s": jnp.float32(2),
    }


def grads(step: int) -> Any:
    return jax.tree.map(lambda p: (jnp.ones_like(p).cumsum().reshape(p.shape) - 2) / (3 + step), params())


def step(opt: Any, own: Any, state: Any, count: int) -> Any:
    return jax.jit(opt.step)(own, state, grads(count))


def flat(tree: Any) -> dict[str, Any]:
    """Each leaf's array, by its path."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def types(state: Any) -> list[str]:
    return [type(part).__name__ for part in state]


def write_missing() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in MAKE:
        path = FOLDER / f"{name}.json"
        if path.exists():
            continue
        opt, own = make(name), params()
        state = opt.init(own)
        for count in range(write.STEPS):
            own, state = step(opt, own, state, count)
        golden = {"types": types(state), "params": flat(own), "state": flat(state)}
        own, state = step(opt, own, state, write.STEPS)
        encode.write(path, {**golden, "stepped": {"params": flat(own), "state": flat(state)}})
