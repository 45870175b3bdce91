"""Files that earlier versions, and this one, have written are read, and gone on from with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import flatstep
from flatstep._trees import Tree
from golden import write

safetensors = pytest.importorskip("safetensors")

FILES = sorted(write.FOLDER.glob("format-*/*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden(path: Path, target):
    with safetensors.safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["flatstep"])
    assert path.parent.name == f"format-{described['format']}"
    assert path.stat().st_size < 10_000

    params = write.params()
    for leaf in Tree(params).leaves:
        leaf[...] = 0.5
    opt = {**write.MAKE, **write.AVERAGED}[path.stem](params, learning_rate=0.5)
    opt.load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    assert opt.count == write.STEPS
    own = {name: value for name, value in write.NUMBERS.items() if hasattr(type(opt), name)}
    assert {name: getattr(opt, name) for name in own} == own
    assert opt.state_dict()["leaf_counts"] == {"w": 3, 7: [3, 2], "a.b/c": (0, 3)}
    assert write.bits(opt) == expected["saved"]
    opt.step(write.grads(write.STEPS))
    assert write.bits(opt) == expected["stepped"]


def test_every_optimizer_has_one():
    """To add what is missing: python -m golden.write in tests/helpers."""
    assert {path.stem for path in FILES} == {*write.MAKE, *write.AVERAGED}
    made = {type(make([np.ones(1)], learning_rate=0.1)) for make in write.MAKE.values()}
    assert made == {
        public for public in vars(flatstep).values() if isinstance(public, type) and public is not flatstep.Optimizer
    }
