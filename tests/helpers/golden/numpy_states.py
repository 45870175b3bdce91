"""Golden ``state_dict``s of the NumPy optimizers. write.py writes them, test_golden_states.py reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

import flatstep
from flatstep._trees import Tree

from . import encode, write

FOLDER = write.FOLDER / "states-0.1" / "numpy"

BFLOAT16: dict[str, Any] = dict(mu_dtype="bfloat16")
SETTINGS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adam-nesterov": dict(nesterov=True),
    "Adam-bfloat16": BFLOAT16,
    "Adam-float16": {},
    "AdamW": {},
    "AdamW-coupled": dict(decoupled_weight_decay=False),
    "AMSGrad": {},
    "AMSGrad-torch": dict(convention="torch"),
    "AMSGrad-paper": dict(convention="paper"),
    "AMSGrad-raw_mu": dict(bias_correction_mu=False),
    "AMSGrad-raw_nu": dict(bias_correction_nu=False),
    "AMSGrad-bfloat16": BFLOAT16,
    "AMSGrad-float16": {},
    "OptimisticAdam": {},
    "OptimisticAdam-bfloat16": BFLOAT16,
    "OptimisticAdam-float16": {},
    "OptimisticAdam-plain": dict(nesterov=False),
    "OptimisticAdam-plain-bfloat16": dict(nesterov=False, **BFLOAT16),
    "OptimisticAdam-plain-float16": dict(nesterov=False),
    "OptimisticGradientDescent": {},
    "OptimisticGradientDescent-float16": {},
}


def _cast(name: str, tree: Any) -> Any:
    """The tree in the dtypes that the settings of this name can have."""
    narrow = {"bfloat16": np.float32, "float16": np.float16}.get(name.split("-")[-1])
    if narrow is None:
        return tree
    whole = Tree(tree)
    with np.errstate(over="ignore"):
        return whole.build([leaf if leaf is None else np.asarray(leaf, narrow) for leaf in whole.leaves])


def params(name: str) -> Any:
    return _cast(name, write.params())


def grads(name: str, step: int) -> Any:
    return _cast(name, write.grads(step))


def make(name: str, own: Any, **more: Any) -> flatstep.Optimizer:
    """The optimizer over these parameters, with more than its default numbers."""
    cls = getattr(flatstep, name.split("-")[0])
    numbers = {key: value for key, value in write.NUMBERS.items() if hasattr(cls, key)}
    return cls(own, **{**numbers, **SETTINGS[name], **more})


def write_missing() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS:
        path = FOLDER / f"{name}.json"
        if path.exists():
            continue
        opt = make(name, params(name))
        for step in range(write.STEPS):
            opt.step(grads(name, step))
        golden = {"params": opt.params, "state_dict": opt.state_dict()}
        golden = encode.decode(encode.encode(golden))  # a copy: the next step changes the parameters
        opt.step(grads(name, write.STEPS))
        encode.write(path, {**golden, "stepped": {"params": opt.params, "state_dict": opt.state_dict()}})
