"""The tail of a training step in JAX: flatstep.jax in one call, and optax's chain, both as compiled programs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

import flatstep.jax as ours

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32
from ..tail import EMA_DECAY, GRAD_SCALE, MAX_NORM, tail_cost_without_zero
from .jax_programs import contender, too_many


def _in_one_call(task: Task, data: Data) -> Contender:
    opt = ours.amsgrad(task.rate, ema_decay=EMA_DECAY)
    unseen = tail_cost_without_zero(task.rule, task.layout).bytes

    def program(params: Any, state: Any, grads: Any) -> Any:
        return (*opt.step(params, state, grads, grad_scale=GRAD_SCALE, max_norm=MAX_NORM), None)

    return contender("flatstep.jax", opt, program, data, unseen)


class _Chain:
    """optax's pieces with an average of the parameters, as one optimizer."""

    def __init__(self, task: Task) -> None:
        self._chain = optax.chain(
            optax.scale(GRAD_SCALE), optax.clip_by_global_norm(MAX_NORM), optax.amsgrad(task.rate)
        )

    def init(self, params: Any) -> Any:
        return self._chain.init(params), jax.tree.map(jnp.copy, params)

    def step(self, params: Any, state: Any, grads: Any) -> Any:
        updates, inner = self._chain.update(grads, state[0], params)
        params = optax.apply_updates(params, updates)
        return params, (inner, optax.incremental_update(params, state[1], 1 - EMA_DECAY)), None


def _in_pieces(task: Task, data: Data) -> Contender:
    chain = _Chain(task)
    return contender("optax's chain", chain, chain.step, data)


PEERS = [
    Peer("flatstep.jax", _in_one_call, {"amsgrad": ""}, [F32], is_ours=True),
    Peer("optax's chain", _in_pieces, {"amsgrad": ""}, [F32], left_out=too_many),
]
