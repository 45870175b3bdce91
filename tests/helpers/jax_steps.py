"""What tests of flatstep.jax ask of a step: the bits it makes, and what XLA compiled it to."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import flatstep.jax

OPTIMIZERS = {
    "amsgrad": flatstep.jax.amsgrad(1e-2),
    "optimistic": flatstep.jax.optimistic_adam_v2(lambda count: 1e-2 / (count + 1), weight_decay=0.1),
    "adam": flatstep.jax.adam(1e-2, mu_dtype="bfloat16", nesterov=True),
    "adamw": flatstep.jax.adamw(1e-2, weight_decay=0.1, mask=lambda params: {name: name != "b" for name in params}),
}


def by_update(opt: Any) -> Any:
    """optax's protocol: gradients and state give updates and state."""
    return lambda grads, state, params: opt.update(grads, state, params)


def same_bits(ours: Any, theirs: Any) -> None:
    """Two trees of arrays, NaN only where the other has it too."""
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes(), f"{x.dtype}{list(x.shape)}: {(x != y).sum()} elements differ"


def collectives(program: str) -> list[str]:
    """What a compiled program exchanges between devices."""
    names = "all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter|ragged-all-to-all"
    return sorted(re.findall(rf" ({names})(?:-start)?\(", program))


def copies(program: str) -> list[str]:
    """The arrays of one axis or more that a compiled program copies; counts, flags and empty ones aside."""
    return re.findall(r"= (b?f\d+\[[1-9]\d*(?:,[1-9]\d*)*\])\S* copy(?:-start)?\(", program)


def calls(program: str) -> int:
    """How often a compiled program calls our kernels."""
    return len(re.findall(r'custom_call_target="flatstep_', program))


def buffers(tree: Any) -> list[int]:
    """Where the arrays of a tree are, on all devices; those of no axes, and counts, are made anew by every step."""
    arrays = [x for x in jax.tree.leaves(tree) if x.ndim and x.size and jnp.issubdtype(x.dtype, jnp.floating)]
    shards = [shard for x in arrays for shard in x.addressable_shards]
    return sorted(shard.data.unsafe_buffer_pointer() for shard in shards)
