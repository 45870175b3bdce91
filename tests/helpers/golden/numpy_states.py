"""Golden ``state_dict``s of the NumPy optimizers. write.py writes them, test_golden_states.py reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import flatstep
from flatstep._trees import Tree
from table import TABLE, Entry

from . import encode, write

FOLDER = write.FOLDER / "states-0.1" / "numpy"

# Rows of the table that are written too, beside the defaults and their formats.
OPTIONS = ("nesterov", "coupled", "torch", "paper", "raw_mu", "raw_nu")


def of_entry(entry: Entry) -> Iterator[tuple[str, dict[str, Any]]]:
    name, rows = entry.optimizer.__name__, entry.rows()
    for prefix, options in entry.variants.items():
        variant = f"{name}-{prefix}".rstrip("-")
        yield variant, options
        if entry.only is None:
            yield f"{variant}-float16", options
            if entry.has(["mu_dtype"]):
                yield f"{variant}-bfloat16", {**options, "mu_dtype": "bfloat16"}
    yield from ((f"{name}-{row}", rows[row]) for row in OPTIONS if row in rows)


SETTINGS: dict[str, dict[str, Any]] = dict(pair for entry in TABLE for pair in of_entry(entry))


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
