"""What the tests of flatstep.jax train: a small network with optax's optimizers beside ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
pytest.importorskip("flatstep._xla")
import jax.numpy as jnp  # noqa: E402

import flatstep.jax as front  # noqa: E402
from optax_peers import peer_of  # noqa: E402
from table import JAX  # noqa: E402

RULES = list(JAX)
SHAPES = {"w": (24, 24), "v": (24, 24), "b": (24,), "scale": ()}


def pair(rule: str, *args: Any, **settings: Any) -> tuple[Any, Any]:
    """Our optimizer and optax's."""
    return getattr(front, rule)(*args, **settings), peer_of(rule)(*args, **settings)


def random_tree(seed: int, dtype: Any = jnp.float32) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def batch(dtype: Any = jnp.float32) -> Any:
    return jnp.asarray(np.random.default_rng(99).standard_normal((5, SHAPES["w"][0])), dtype)


def loss(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["w"] + params["b"]) * params["scale"]
    return jnp.mean((hidden @ params["v"] - x) ** 2)


def copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def assert_close(found: Any, expected: Any, **tolerance: float) -> None:
    """The same structure, shapes and dtypes, and values within the tolerance; the same bits where there is none."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
    for path, x, y in zip(paths, jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.shape, x.dtype) == (y.shape, y.dtype), path
        if tolerance:
            wide = np.complex128 if np.iscomplexobj(x) else np.float64
            np.testing.assert_allclose(x.astype(wide), y.astype(wide), err_msg=path, **tolerance)
        else:
            assert x.tobytes() == y.tobytes(), path
