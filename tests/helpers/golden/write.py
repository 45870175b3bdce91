"""Writes golden files: ``python -m golden.write`` in tests/helpers. test_golden.py and test_golden_states.py read them.

Saved files stand in a folder for each file format, states of each front end in folders of their own. Those that exist
are never written again, since an older version must have written them: a new optimizer adds its row and its files, a
new format its folder. The text of what is public is written each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import flatstep
from flatstep._trees import Tree
from repository import TESTS
from table import TABLE, Entry

FOLDER = TESTS / "golden"
STEPS = 3  # before the file was written; the expected bits are those after one more


def of_entry(entry: Entry) -> dict[str, dict[str, Any]]:
    """Each convention of the optimizer, or each variant."""
    name = entry.optimizer.__name__
    if entry.has(["convention"]):
        choices = entry.optimizer._declaration.argument("convention").choices
        return {f"{name}-{choice}": dict(convention=choice) for choice in choices}
    return {f"{name}-{prefix}".rstrip("-"): options for prefix, options in entry.variants.items()}


def make(entry: Entry, options: dict[str, Any], *args: Any, **numbers: Any) -> flatstep.Optimizer:
    """The optimizer with those of the numbers that it has."""
    return entry.optimizer(*args, **{name: x for name, x in numbers.items() if entry.has([name])}, **options)


MAKE: dict[str, Callable[..., flatstep.Optimizer]] = {
    name: partial(make, entry, options) for entry in TABLE for name, options in of_entry(entry).items()
}
# With averages of the parameters, which the second format of files has.
AVERAGED: dict[str, Callable[..., flatstep.Optimizer]] = {
    "AMSGrad-ema": partial(flatstep.AMSGrad, ema_decay=0.75),
    "AMSGrad-ema-zero": partial(flatstep.AMSGrad, ema_decay=0.75, ema_start="zero", ema_debias=True),
}
NUMBERS = dict(learning_rate=0.1, b1=0.8, b2=0.95, eps=1e-300, eps_root=2.0**-40, weight_decay=0.3)


def params() -> dict[Any, Any]:
    """Keys, shapes and numbers of every kind."""
    return {
        "w": np.asfortranarray(np.arange(-3, 3, dtype=np.float32).reshape(2, 3) / 7),
        7: [np.linspace(0, 1, 4), np.array(0.1, np.float32)],
        "a.b/c": (np.array([np.nan, np.inf, -0.0, 5e-324]), np.ones((0, 3), np.float32)),
    }


def grads(step: int) -> dict[Any, Any]:
    """The gradients of a step, 0 first. One leaf never has any, and one not always."""
    w = np.array([[1, -2, 3], [-4, 5, 0]], np.float32) / np.float32(3 + step)
    scalar = None if step == 1 else np.array(0.7, np.float32)
    return {"w": w, 7: [np.array([1e-3, 1, -1e3, step]), scalar], "a.b/c": (None, np.ones((0, 3), np.float32))}


def bits(opt: flatstep.Optimizer) -> dict[str, list[str]]:
    """Parameters and state as hexadecimal bytes, leaf by leaf."""
    structures = {"params": opt.params, **opt.state, **({} if opt.ema_decay is None else {"ema": opt.ema})}
    return {name: [leaf.tobytes().hex() for leaf in Tree(value).leaves] for name, value in structures.items()}


def write(name: str, folder: Path) -> None:
    path, expected = folder / f"{name}.safetensors", folder / f"{name}.json"
    if path.exists():
        return
    opt = {**MAKE, **AVERAGED}[name](params(), **NUMBERS)
    for step in range(STEPS):
        opt.step(grads(step))
    opt.save(path)
    saved = bits(opt)
    opt.step(grads(STEPS))
    expected.write_text(json.dumps({"saved": saved, "stepped": bits(opt)}, indent=1) + "\n")


def write_missing() -> None:
    for format, names in {1: MAKE, 2: AVERAGED}.items():
        folder = FOLDER / f"format-{format}"
        folder.mkdir(exist_ok=True)
        for name in names:
            write(name, folder)


if __name__ == "__main__":
    from golden import jax_states, numpy_states, public, torch_checkpoint, torch_states
    from golden import write as files

    files.write_missing()
    for states in (numpy_states, torch_states, torch_checkpoint, jax_states):
        states.write_missing()
    public.rewrite()
