"""flatstep.jax: ``step``, and ``update`` with optax.apply_updates, as optax's users call it."""

from __future__ import annotations

from typing import Any

import optax

import flatstep.jax as ours

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import BF16, F32, F32_MU_BF16, bytes_of, cost
from .jax_programs import contender, too_many

RULES: dict[str, Any] = {"adam": ours.adam, "amsgrad": ours.amsgrad, "optimistic_adam": ours.optimistic_adam_v2}


def _optimizer(task: Task) -> Any:
    options = {} if task.layout.mu == task.layout.param else {"mu_dtype": task.layout.mu}
    return RULES[task.rule](task.rate, **options)


def _step(task: Task, data: Data) -> Contender:
    opt = _optimizer(task)
    unseen = cost(task.rule, task.layout).bytes

    def program(params: Any, state: Any, grads: Any) -> Any:
        return (*opt.step(params, state, grads), None)

    return contender("flatstep.jax", opt, program, data, unseen)


def _update(task: Task, data: Data) -> Contender:
    """The updates are where the gradients were, and so are given back for the next step's."""
    opt = _optimizer(task)
    unseen = cost(task.rule, task.layout).bytes - bytes_of(task.layout.param)

    def program(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state, updates

    return contender("flatstep.jax, update", opt, program, data, unseen)


LAYOUTS = [F32, F32_MU_BF16, BF16]
PEERS = [
    Peer("flatstep.jax", _step, dict.fromkeys(RULES, ""), LAYOUTS, is_ours=True),
    Peer("flatstep.jax, update", _update, dict.fromkeys(RULES, ""), LAYOUTS, left_out=too_many),
]
