"""load: what does not fit, or is not what save has written, is rejected by name and changes nothing."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flatstep
from flatstep._trees import Tree
from processes import run
from saving import content, params, sample, stepped

safetensors = pytest.importorskip("safetensors")


def other(change: dict[Any, Any]) -> flatstep.Optimizer:
    """An optimizer over the usual parameters but for this change."""
    return flatstep.AMSGrad({**params(1), **change}, learning_rate=0.2)


UNFIT = {
    "other optimizer": (lambda: flatstep.Adam(params(1), 0.2), "state_dict is of Adam, expected AMSGrad"),
    "other convention": (
        lambda: sample(convention="torch"),
        "made with convention='torch', but this optimizer has convention='optax'",
    ),
    "other flag": (lambda: sample(maximize=True), "made with maximize=True, but this optimizer has maximize=False"),
    "one array": (
        lambda: flatstep.AMSGrad(np.ones(3), 0.2),
        r"state_dict\['params'\] is a ndarray, expected a dict with the keys \['w', 3, 'a.b/c', None\]",
    ),
    "key more": (
        lambda: other({"v": np.ones(2)}),
        r"\['params'\] lacks the keys \[\] and has the unknown keys \['v'\]",
    ),
    "key of another type": (
        lambda: flatstep.AMSGrad({str(key): value for key, value in params(1).items()}, 0.2),
        r"\['params'\] lacks the keys \[3, None\] and has the unknown keys \['3', 'None'\]",
    ),
    "leaf less": (lambda: other({3: [np.ones(70)]}), r"\['params'\]\[3\] has 1 entries, expected a list of 2"),
    "dict for a list": (
        lambda: other({3: dict(enumerate(params(1)[3]))}),
        r"\['params'\]\[3\] is a dict, expected a list of 2",
    ),
    "other shape": (
        lambda: other({"w": np.ones((7, 5), np.float32)}),
        r"\['params'\]\['w'\] has shape \(7, 5\) and dtype float32, expected \(5, 7\) and float32",
    ),
    "0-d for 1-d": (
        lambda: other({3: [np.ones(70), np.ones(1, np.float32)]}),
        r"\['params'\]\[3\]\[1\] has shape \(1,\) and dtype float32, expected \(\) and float32",
    ),
    "other dtype of an empty leaf": (
        lambda: other({"a.b/c": (np.zeros((0, 3), np.float32), {(1, "x"): np.ones((4, 6), np.float32)})}),
        r"\['params'\]\['a.b/c'\]\[0\] has shape \(0, 3\) and dtype float32, expected \(0, 3\) and float64",
    ),
}


@pytest.mark.parametrize("make, message", UNFIT.values(), ids=UNFIT)
def test_unfit_file_changes_nothing(make, message, tmp_path):
    make().save(tmp_path / "model")
    assert_rejected(tmp_path / "model", message)


def assert_rejected(path: Path, message: str) -> None:
    opt = sample()
    before = content(opt)
    with pytest.raises(ValueError, match=message) as raised:
        opt.load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert content(opt) == before


def change_header(path: Path, change) -> None:
    """Writes the file again with another header; ``change`` alters it in place."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def change_metadata(path: Path, change) -> None:
    """Writes the file again with what ``change`` makes of its metadata: text, or what becomes JSON."""

    def change_it(header: Any) -> None:
        described = change(json.loads(header["__metadata__"]["flatstep"]))
        header["__metadata__"]["flatstep"] = described if isinstance(described, str) else json.dumps(described)

    change_header(path, change_it)


BROKEN = {
    "newer format": (lambda d: {**d, "format": 3}, "it has file format 3, expected at most 2; use the flatstep"),
    "newer state": (lambda d: {**d, "version": 3}, "state_dict has version 3, expected at most 2; use the flatstep"),
    "true for a format": (lambda d: {**d, "format": True}, "it has file format True, expected at most 2"),
    "true for a version": (lambda d: {**d, "version": True}, "state_dict has version True, expected at most 2"),
    "unknown key": (lambda d: {**d, "epoch": 3}, r"state_dict has the unknown keys \['epoch'\]"),
    "params": (lambda d: {**d, "params": []}, "its metadata has the unknown key 'params'"),
    "state": (lambda d: {**d, "state": {}}, "its metadata has the unknown key 'state'"),
    "no format": (lambda d: {}, "its metadata lacks 'format'"),
    "not JSON": (lambda d: "{", "its metadata is not JSON"),
    "too deep": (lambda d: "[" * 10**6, "its structure is nested too deeply|its metadata is not JSON"),
    "no structure": (lambda d: {**d, "structure": None}, "its metadata's structure does not have each number"),
    "leaf twice": (lambda d: {**d, "structure": [0, 1, 2, 3, 4, 4]}, "not have each number from 0 to 5 once"),
    "truth for a leaf": (lambda d: {**d, "structure": [0, True, 2, 3, 4, 5]}, "not have each number from 0 to 5 once"),
    "no slots": (lambda d: {**d, "slots": 5}, "its metadata's slots is a int, expected a list"),
    "slot less": (lambda d: {**d, "slots": ["mu", "nu"]}, r"lacks the tensors \[\] .* unknown \['state/nu_max/0'"),
    "slot more": (lambda d: {**d, "slots": [*d["slots"], 5]}, r"lacks the tensors \['state/5/0', 'state/5/1'"),
    "count less": (
        lambda d: {**d, "leaf_counts": [1]},
        "its metadata's leaf_counts is not a list with an entry for ea",
    ),
    "odd count": (lambda d: {**d, "leaf_counts": ["x"] * 6}, r"\['leaf_counts'\]\['w'\] is 'x', expected a whole"),
    "larger count": (
        lambda d: {**d, "leaf_counts": [4] * 6},
        r"\['leaf_counts'\]\['w'\] is 4, expected a whole number from 0 to 3, state_dict\['count'\]",
    ),
    "no options": (lambda d: {**d, "options": None}, r"state_dict\['options'\] is a NoneType, expected a dict"),
    "infinite": (lambda d: {**d, "numbers": {"eps": 10**400}}, r"\['numbers'\]\['eps'\] is inf, expected a finite"),
    "text": (lambda d: {**d, "numbers": {"eps": "1"}}, r"\['numbers'\]\['eps'\] is '1', expected a number"),
}


@pytest.mark.parametrize("change, message", BROKEN.values(), ids=BROKEN)
def test_broken_metadata_changes_nothing(change, message, tmp_path):
    sample(seed=1).save(tmp_path / "model")
    change_metadata(tmp_path / "model", change)
    assert_rejected(tmp_path / "model", message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150)
@given(where=st.integers(0, 10**6), value=JSON)
def test_any_metadata_is_loaded_or_rejected(where, value, tmp_path_factory):
    """With anything in place of any part: a ValueError that names the file, or what is loaded can be gone on with."""
    path = tmp_path_factory.mktemp("metadata") / "model"
    sample(seed=1).save(path)
    change_metadata(path, lambda described: replace(described, where, value))
    opt = sample()
    before = content(opt)
    message = None
    try:
        opt.load(path)
    except ValueError as error:
        message = str(error)
    if message is None:
        stepped(opt, 3, 4)
    else:
        assert message.startswith(f"{path}: ")
        assert content(opt) == before


def replace(described: Any, where: int, value: Any) -> Any:
    """The same with a value in place of one of its parts."""
    spots: list[tuple[Any, Any]] = []

    def visit(part: Any) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            spots.append((part, key))
            visit(part[key])

    visit(described)
    part, key = spots[where % len(spots)]
    part[key] = value
    return described


def test_foreign_and_truncated_files(tmp_path):
    path = tmp_path / "model"
    sample(seed=1).save(path)
    whole = path.read_bytes()
    for length in [*range(60), *range(60, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert_rejected(path, "expected a whole safetensors file, but it cannot be read as one")
    for foreign in (whole + b"\0", b"PK\3\4" * 100, b"\xff" * 100, b"\0" * 100):
        path.write_bytes(foreign)
        assert_rejected(path, "expected a whole safetensors file, but it cannot be read as one")
    from safetensors.numpy import save_file

    save_file({"params/0": np.ones(3)}, path)
    assert_rejected(path, "a safetensors file, but not of an optimizer; expected what save")
    save_file({"params/0": np.ones(3)}, path, metadata={"flatstep": '{"format": 1}'})
    assert_rejected(path, r"its metadata lacks \['structure', 'slots', 'numbers', 'leaf_counts', 'leaf_numbers'\]")


def test_tensors_of_other_dtypes(tmp_path):
    path = tmp_path / "model"
    flatstep.Adam([np.ones(2)], learning_rate=0.1).save(path)
    opt = flatstep.Adam([np.ones(2)], learning_rate=0.1)
    change_header(path, lambda header: header["params/0"].update(dtype="I64"))
    with pytest.raises(ValueError, match=r"\['params'\]\[0\] has shape \(2,\) and dtype int64, expected .* float64"):
        opt.load(path)
    change_header(path, lambda header: header["params/0"].update(dtype="F8_E4M3", shape=[16]))
    with pytest.raises(ValueError, match="model: its tensor params/0 cannot be read: .*float8"):
        opt.load(path)
    change_header(path, lambda header: header["params/0"].update(dtype="BF16", shape=[8]))
    code = f"""
import sys
sys.modules["ml_dtypes"] = None
import flatstep, numpy as np
try:
    flatstep.Adam([np.ones(2)], learning_rate=0.1).load({os.fspath(path)!r})
except ValueError as error:
    print(error)
"""
    assert "model: its tensor params/0 cannot be read: " in " ".join(run(code))


def test_a_parameter_that_became_read_only(tmp_path):
    sample(seed=1).save(tmp_path / "model")
    opt = sample()
    last = Tree(opt.params).leaves[-1]
    last.flags.writeable = False
    before = content(opt)
    with pytest.raises(ValueError, match=r"\['params'\]\[None\] is for an array that has become read-only"):
        opt.load(tmp_path / "model")
    assert content(opt) == before


CHANGES = {
    "shape": lambda array: setattr(array, "shape", (3, 2)),
    "dtype": lambda array: setattr(array, "dtype", np.int32),
    "length": lambda array: array.resize((4, 3), refcheck=False),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_parameter_that_was_changed_in_place(change, tmp_path):
    """Its state is that of another array: a file of both would fit no optimizer."""
    path, array = tmp_path / "model", np.ones((2, 3), np.float32)
    opt = flatstep.Adam([array], learning_rate=0.1)
    opt.save(path)
    whole = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy would rather not
        change(array)
    for method in (opt.save, opt.load):
        with pytest.raises(
            ValueError, match=r"params\[0\] has another shape, strides or dtype than when the optimizer"
        ):
            method(path)
    assert path.read_bytes() == whole


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory: '.*nothing'"):
        sample().load(tmp_path / "nothing")
    sample().save(tmp_path / "model")
    with pytest.raises(NotADirectoryError, match=r"Not a directory: '.*model/model'"):
        sample().load(tmp_path / "model" / "model")
