"""The work of every call grows with the number of leaves, and no faster: counted in calls of functions, not in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flatstep
from counting import calls_of

LEAVES = 100


def assert_linear(actions: Callable[[int], dict[str, Callable[[], Any]]]) -> None:
    """``actions`` takes a number of leaves, and makes what is called one after another."""
    for action in actions(2).values():
        action()  # what is only done once per process
    few, many = ({name: calls_of(action) for name, action in actions(n).items()} for n in (LEAVES, 2 * LEAVES))
    assert {name: f"{count} to {many[name]}" for name, count in few.items() if many[name] > 2.2 * count + 20} == {}


@dataclass
class Model:
    """A model of the NumPy face, by the number of its leaves."""

    make: Callable[[int], Any] = lambda n: [np.zeros(1, np.float32) for _ in range(n)]
    optimizer: type[flatstep.Optimizer] = flatstep.AMSGrad
    settings: Callable[[int], dict[str, Any]] = lambda n: {"learning_rate": 0.1}
    grads: Callable[[int], list[Any]] = lambda n: [np.ones(1, np.float32)] * n

    def actions(self, n: int, folder: Path) -> dict[str, Callable[[], Any]]:
        params, grads = self.make(n), self.grads(n)
        make = partial(self.optimizer, params, **self.settings(n))
        opt = make()
        state = opt.state_dict()
        return {
            "make": make,
            "step": lambda: opt.step(grads),
            "second step": lambda: opt.step(grads),
            "state": lambda: opt.state,
            "state_dict": opt.state_dict,
            "load_state_dict": lambda: opt.load_state_dict(state),
            "save": lambda: opt.save(folder / "model"),
            "load": lambda: opt.load(folder / "model"),
            "flatten": lambda: flatstep.flatten(params),
        }


def tensors(n: int) -> list[Any]:
    torch = pytest.importorskip("torch")
    return [torch.zeros(1) for _ in range(n)]


MODELS = {
    "NumPy's arrays": Model(),
    "in dicts": Model(
        make=lambda n: {f"w{i}": np.zeros(1, np.float32) for i in range(n)},
        grads=lambda n: {f"w{i}": np.ones(1, np.float32) for i in range(n)},
    ),
    "another library's arrays": Model(make=tensors, grads=tensors),
    "numbers by leaf": Model(settings=lambda n: {"learning_rate": [0.1] * n, "weight_decay": [lambda count: 0.1] * n}),
    "updated apart": Model(
        optimizer=flatstep.OptimisticAdam,
        settings=lambda n: {"learning_rate": 0.1, "nesterov": False},
        grads=lambda n: [np.ones(1, np.float32), None] * (n // 2),
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_numpy(model, tmp_path):
    pytest.importorskip("safetensors")
    assert_linear(lambda n: model.actions(n, tmp_path))


def apart(torch: Any) -> Any:
    """A tensor with gaps."""
    return torch.zeros(2, 2)[:, :1]


TENSORS = {
    "of one element": (lambda torch: torch.zeros(1),) * 2,
    "with gaps": (apart, lambda torch: torch.zeros(2, 1)),
    "with gaps in gradients": (lambda torch: torch.zeros(2, 1), apart),
    "bfloat16": (lambda torch: torch.zeros(1, dtype=torch.bfloat16),) * 2,
    "complex": (lambda torch: torch.zeros(1, dtype=torch.complex64),) * 2,
}


@pytest.mark.parametrize("param, grad", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("by_group", [False, True], ids=["in one group", "a group each"])
def test_torch(param, grad, by_group):
    torch = pytest.importorskip("torch")
    import flatstep.torch

    def actions(n: int) -> dict[str, Callable[[], Any]]:
        params = [torch.nn.Parameter(param(torch)) for _ in range(n)]
        for each in params:
            each.grad = grad(torch)
        make = partial(flatstep.torch.AMSGrad, [{"params": [each]} for each in params] if by_group else params)
        opt = make()
        saved: dict[str, Any] = {}
        return {
            **({} if by_group else {"make": make}),  # torch itself compares each group with all before it
            "first step": opt.step,
            "step": opt.step,
            "state_dict": lambda: saved.update(opt.state_dict()),
            "load_state_dict": lambda: opt.load_state_dict(saved),
            "step after": opt.step,
        }

    assert_linear(actions)
