"""optax under jax.jit with parameters and state donated; and its executable, compiled ahead and called directly."""

from __future__ import annotations

from functools import partial
from typing import Any

import optax

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import BF16, F32, F32_MU_BF16
from .jax_programs import contender, too_many

RULES = {"adam": optax.adam, "amsgrad": optax.amsgrad, "optimistic_adam": optax.optimistic_adam_v2}


def _optax(name: str, ahead: bool, task: Task, data: Data) -> Contender:
    options = {} if task.layout.mu == task.layout.param else {"mu_dtype": task.layout.mu}
    opt: Any = RULES[task.rule](task.rate, **options)

    def program(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state, None

    return contender(name, opt, program, data, ahead=ahead)


def _is_small(task: Task) -> bool:
    """Where the way to call the same program can be told apart."""
    return task.elements <= 10**5


SAME = dict.fromkeys(RULES, "")
PEERS = [
    Peer("optax", partial(_optax, "optax", False), SAME, [F32, F32_MU_BF16, BF16], left_out=too_many),
    Peer("optax, ahead", partial(_optax, "optax, ahead", True), SAME, [F32], is_meant_for=_is_small),
]
