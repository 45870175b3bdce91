"""What one writes in NumPy oneself: formulas as they stand, and with every result put into an array that exists.

NumPy's arithmetic runs on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import numpy as np

from ..contender import Contender, Peer, Task
from ..data import Data
from ..layouts import F32, F64
from .numpy_arrays import grads, params, refresh

Array = np.ndarray[Any, Any]
Update = Callable[[Array, Array, list[Array], int], None]
LR, B1, B2, EPS = 1e-3, 0.9, 0.999, 1e-8
PLAIN_NAME, OUT_NAME = "NumPy, one thread", "NumPy out=, one thread"
SLOTS = {"adam": 2, "amsgrad": 3, "optimistic_adam": 3}


def _adam(p: Array, g: Array, state: list[Array], t: int) -> None:
    mu, nu = state
    mu[...] = B1 * mu + (1 - B1) * g
    nu[...] = B2 * nu + (1 - B2) * g**2
    p -= LR * (mu / (1 - B1**t)) / (np.sqrt(nu / (1 - B2**t)) + EPS)


def _amsgrad(p: Array, g: Array, state: list[Array], t: int) -> None:
    mu, nu, nu_max = state
    mu[...] = B1 * mu + (1 - B1) * g
    nu[...] = B2 * nu + (1 - B2) * g**2
    np.maximum(nu_max, nu / (1 - B2**t), out=nu_max)
    p -= LR * (mu / (1 - B1**t)) / (np.sqrt(nu_max) + EPS)


def _optimistic_adam(p: Array, g: Array, state: list[Array], t: int) -> None:
    mu, nu, previous = state
    mu[...] = B1 * mu + (1 - B1) * g
    nu[...] = B2 * nu + (1 - B2) * g**2
    mu_hat = B1 * mu / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t)
    direction = mu_hat / (np.sqrt(nu / (1 - B2**t)) + EPS)
    p -= LR * (2 * direction - (direction if t == 1 else previous))
    previous[...] = direction


def _in_place(p: Array, g: Array, state: list[Array], t: int, spare: Array) -> None:
    """Adam, and AMSGrad where there is a third slot, with the factors of bias correction moved into two numbers."""
    mu, nu, *nu_max = state
    size, rest = LR / (1 - B1**t), 1 - B2**t
    spare = spare[: p.size].reshape(p.shape)
    mu *= B1
    mu += np.multiply(g, 1 - B1, out=spare)
    nu *= B2
    np.multiply(g, g, out=spare)
    spare *= 1 - B2
    nu += spare
    if nu_max:
        np.divide(nu, rest, out=spare)
        np.maximum(nu_max[0], spare, out=nu_max[0])
        np.sqrt(nu_max[0], out=spare)
        spare += EPS
    else:
        np.sqrt(nu, out=spare)
        spare += EPS * sqrt(rest)
        size *= sqrt(rest)
    np.divide(mu, spare, out=spare)
    spare *= size
    p -= spare


PLAIN: dict[str, Update] = {"adam": _adam, "amsgrad": _amsgrad, "optimistic_adam": _optimistic_adam}


def _plain(task: Task, data: Data) -> Contender:
    return _contender(PLAIN_NAME, PLAIN[task.rule], task, data)


def _out(task: Task, data: Data) -> Contender:
    spare = np.ones(max(grad.size for grad in data.grads), task.layout.param)
    return _contender(OUT_NAME, partial(_in_place, spare=spare), task, data)


def _contender(name: str, update: Update, task: Task, data: Data) -> Contender:
    mine, given = params(data), grads(data)
    state = [[np.full_like(param, 0) for _ in range(SLOTS[task.rule])] for param in mine]
    count = 0

    def run() -> None:
        nonlocal count
        count += 1
        for p, g, slots in zip(mine, given, state, strict=True):
            update(p, g, slots, count)

    return Contender(name, run, lambda: mine, lambda: refresh(data))


def _slow(task: Task) -> str:
    return "takes seconds a step" if task.elements >= 10**8 else ""


PEERS = [
    Peer(PLAIN_NAME, _plain, dict.fromkeys(PLAIN, ""), [F32, F64], left_out=_slow),
    Peer(OUT_NAME, _out, {"adam": "", "amsgrad": ""}, [F32, F64]),
]
