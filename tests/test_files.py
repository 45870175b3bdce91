"""save and load: the same bits after, nothing changed by what does not fit, and an old file whole whatever happens."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections import OrderedDict
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flatstep
from cases import CASES, numbers, special_values
from flatstep import files
from flatstep.trees import Tree

safetensors = pytest.importorskip("safetensors")
resource = pytest.importorskip("resource")

HERE = Path(__file__).parent
STEPS = 8


def params(seed: int) -> dict[Any, Any]:
    """Leaves of both dtypes, 0-d, empty, in Fortran order and in another, under keys of several types."""
    rng = np.random.default_rng(seed)
    return {
        "w": numbers(rng, (5, 7), np.float32),
        3: [numbers(rng, (70,), np.float64), numbers(rng, (), np.float32)],
        "a.b/c": (np.zeros((0, 3)), {(1, "x"): np.asfortranarray(numbers(rng, (4, 6), np.float32))}),
        None: numbers(rng, (2, 3, 4), np.float64).transpose(2, 0, 1),
    }


def gradients() -> list[dict[Any, Any]]:
    steps = [params(seed) for seed in range(100, 100 + STEPS)]
    steps[1]["w"] = steps[4][3][1] = steps[6][None] = None
    return steps


def content(opt: flatstep.Optimizer) -> dict[str, Any]:
    """All that a file should keep, to the bit."""
    saved = opt.state_dict()
    slots = {slot: [leaf.tobytes() for leaf in Tree(value).leaves] for slot, value in saved.pop("state").items()}
    return {**saved, "params": [leaf.tobytes() for leaf in Tree(opt.params).leaves], "state": slots}


def stepped(opt: flatstep.Optimizer, first: int, last: int) -> flatstep.Optimizer:
    for grads in gradients()[first:last]:
        opt.step(grads)
    return opt


def sample(seed: int = 0, **more: Any) -> flatstep.Optimizer:
    return stepped(flatstep.AMSGrad(params(seed), **{"learning_rate": 0.1, **more}), 0, 3)


# Resuming.


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_resume(case, tmp_path):
    """Interrupted, and gone on with by another optimizer over other parameters: the same bits."""
    straight = stepped(case.make(params(0)), 0, STEPS)
    stepped(case.make(params(0)), 0, 5).save(tmp_path / "model")
    mine = params(1)
    again = case.make(mine)
    again.load(tmp_path / "model")
    assert again.params is mine and again.count == 5
    assert content(stepped(again, 5, STEPS)) == content(straight)


def test_resume_in_a_new_process(tmp_path):
    for index, case in enumerate(CASES):
        stepped(case.make(params(0)), 0, 5).save(tmp_path / str(index))
    code = "import sys, test_files; test_files.go_on(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=HERE, check=True, timeout=120)
    for index, case in enumerate(CASES):
        again = case.make(params(1))
        again.load(tmp_path / str(index))
        assert content(again) == content(stepped(case.make(params(0)), 0, STEPS)), case.name


def go_on(folder: str) -> None:
    """What the new process does."""
    for index, case in enumerate(CASES):
        opt = case.make(params(1))
        opt.load(f"{folder}/{index}")
        stepped(opt, 5, STEPS).save(f"{folder}/{index}")


def test_every_bit_is_kept(tmp_path):
    """Of NaNs with payloads, infinities, zeros of both signs and denormals, and of numbers that print at length."""
    nans = np.array([0x7FA00001, 0xFFC12345, 0x7F800001], np.uint32).view(np.float32)
    leaves = [special_values(np.float32), special_values(np.float64), nans]
    odd = dict(learning_rate=0.1 + 0.2, eps=5e-324, eps_root=1e38, b1=1 - 2**-53, b2=1 / 3, weight_decay=0.0)
    opt = flatstep.OptimisticAdam([leaf.copy() for leaf in leaves], **odd, alpha=-0.0, beta=-1e-310)
    for slot in opt.state.values():
        for view, leaf in zip(slot, leaves, strict=True):
            view[...] = leaf[::-1]
    opt.save(tmp_path / "model")
    again = flatstep.OptimisticAdam([np.ones_like(leaf) for leaf in leaves], learning_rate=1.0)
    again.load(tmp_path / "model")
    assert content(again) == content(opt)
    assert [value.hex() for value in again.state_dict()["numbers"].values()] == [
        value.hex() for value in opt.state_dict()["numbers"].values()
    ]


def test_schedules_are_not_saved(tmp_path):
    def schedule(count):
        return 0.5

    flatstep.Adam(np.ones(2), learning_rate=schedule, b1=0.25).save(tmp_path / "model")
    other = flatstep.Adam(np.zeros(2), learning_rate=0.125, b1=schedule)
    other.load(tmp_path / "model")
    assert (other.learning_rate, other.b1) == (0.125, schedule)


def test_other_programs_can_read_it(tmp_path):
    """Names, shapes, dtypes and values are those of any safetensors file."""
    opt = sample()
    opt.save(tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        names = ["params", *[f"state/{slot}" for slot in opt.state]]
        assert set(file.keys()) == {f"{name}/{leaf}" for name in names for leaf in range(6)}
        for leaf, param in enumerate(Tree(opt.params).leaves):
            np.testing.assert_array_equal(file.get_tensor(f"params/{leaf}"), param, strict=True)
        described = json.loads(file.metadata()["flatstep"])
    assert described["structure"] == {"'w'": 0, "3": [1, 2], "'a.b/c'": [3, {"(1, 'x')": 4}], "None": 5}


# Structures.

KEYS = st.one_of(
    st.text(max_size=4), st.integers(), st.booleans(), st.floats(allow_nan=False), st.none(), st.binary(max_size=3),
    st.tuples(st.text(max_size=2), st.integers()), st.sampled_from("./'\"[]\\\0\ud800é"),
)  # fmt: skip
STRUCTURES = st.recursive(
    st.just(None),
    lambda part: st.one_of(
        st.dictionaries(KEYS, part, max_size=4),
        st.lists(part, max_size=3),
        st.lists(part, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


def backwards(structure: Any) -> Any:
    """The same structure, dicts in another order."""
    if isinstance(structure, dict):
        return OrderedDict((key, backwards(value)) for key, value in reversed(structure.items()))
    return [backwards(value) for value in structure] if isinstance(structure, (list, tuple)) else structure


@settings(deadline=None, max_examples=200)
@given(structure=STRUCTURES)
def test_any_structure(structure, tmp_path_factory):
    """Nested in any way, under any keys, in any order: each leaf gets its own numbers back."""
    path = tmp_path_factory.mktemp("structure") / "model"
    tree = Tree(structure)
    written = tree.build([np.full(2, leaf, np.float32) for leaf in range(len(tree.leaves))])
    flatstep.Adam(written, learning_rate=0.1).save(path)
    read = backwards(tree.build([np.zeros(2, np.float32) for _ in tree.leaves]))
    flatstep.Adam(read, learning_rate=0.1).load(path)
    for one, other in zip(tree.match(read, "read"), Tree(written).leaves, strict=True):
        np.testing.assert_array_equal(one, other)


class Color(str, Enum):
    RED = "red"


class Layer(IntEnum):
    FIRST = 1


class Same:
    def __repr__(self) -> str:
        return "same"


@pytest.mark.parametrize("key, plain", [(Color.RED, "red"), (Layer.FIRST, 1), (np.str_("a"), "a"), (np.int8(5), 5)])
def test_keys_that_are_equal_find_each_other(key, plain, tmp_path):
    for one, other in [(key, plain), (plain, key)]:
        flatstep.Adam({one: np.ones(2)}, learning_rate=0.1).save(tmp_path / "model")
        read = {other: np.zeros(2)}
        flatstep.Adam(read, learning_rate=0.1).load(tmp_path / "model")
        assert read[plain].tolist() == [1, 1]


@pytest.mark.parametrize(
    "keys, message",
    [
        ([object()], r"params\['layers'\] has the key <object object at 0x\w+>, which no other process can find"),
        ([test_any_structure], r"params\['layers'\] has the key <function .*>, which no other process can find again"),
        ([Same(), Same()], r"params\['layers'\] has different keys that print alike"),
    ],
    ids=["object", "function", "alike"],
)
def test_keys_that_no_file_can_hold(keys, message, tmp_path):
    opt = flatstep.Adam({"layers": {key: np.ones(2) for key in keys}}, learning_rate=0.1)
    with pytest.raises(ValueError, match=message):
        opt.save(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_numbers_may_be_structures(tmp_path):
    """The format has room for hyperparameters that differ from leaf to leaf."""
    tree = Tree({"w": np.ones(2), 5: [np.zeros(1)]})
    opt = flatstep.Adam(tree.build(tree.leaves), learning_rate=0.1)
    each = {"w": 0.25, 5: [0.5]}
    saved = {**opt.state_dict(), "params": opt.params, "numbers": {"learning_rate": each, "b1": 0.5}}
    files.write(tmp_path / "model", tree, saved)
    assert files.read(tmp_path / "model", tree)["numbers"] == {"learning_rate": each, "b1": 0.5}


def test_bfloat16_is_kept(tmp_path):
    """By the format, whatever an optimizer can hold."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    tree = Tree([np.ones(2)])
    mu = np.arange(-3, 3).astype(bfloat16).reshape(2, 3)
    saved = {**flatstep.Adam([np.ones(2)], 0.1).state_dict(), "params": [np.ones(2)], "state": {"mu": [mu]}}
    files.write(tmp_path / "model", tree, saved)
    (read,) = files.read(tmp_path / "model", tree)["state"]["mu"]
    assert read.dtype == bfloat16 and read.tobytes() == mu.tobytes()


def test_many_leaves(tmp_path):
    leaves = [np.full(1, leaf, np.float32) for leaf in range(10_000)]
    flatstep.Adam(leaves, learning_rate=0.1).save(tmp_path / "model")
    read = [np.zeros(1, np.float32) for _ in leaves]
    flatstep.Adam(read, learning_rate=0.1).load(tmp_path / "model")
    np.testing.assert_array_equal(np.concatenate(read), np.arange(10_000))


# What does not fit.


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
    assert_refused(tmp_path / "model", message)


def assert_refused(path: Path, message: str) -> None:
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
    "newer format": (lambda d: {**d, "format": 2}, "it has file format 2, expected 1; use the flatstep that wrote it"),
    "newer state": (lambda d: {**d, "version": 2}, "state_dict has version 2, expected 1; use the flatstep that wrote"),
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
    "no options": (lambda d: {**d, "options": None}, r"state_dict\['options'\] is a NoneType, expected a dict"),
    "infinite": (lambda d: {**d, "numbers": {"eps": 10**400}}, r"\['numbers'\]\['eps'\] is inf, expected a finite"),
    "text": (lambda d: {**d, "numbers": {"eps": "1"}}, r"\['numbers'\]\['eps'\] is '1', expected a number"),
}


@pytest.mark.parametrize("change, message", BROKEN.values(), ids=BROKEN)
def test_broken_metadata_changes_nothing(change, message, tmp_path):
    sample(seed=1).save(tmp_path / "model")
    change_metadata(tmp_path / "model", change)
    assert_refused(tmp_path / "model", message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150)
@given(where=st.integers(0, 10**6), value=JSON)
def test_any_metadata_is_loaded_or_refused(where, value, tmp_path_factory):
    """With anything in place of any part: a ValueError that names the file, or what is loaded can be gone on with."""
    path = tmp_path_factory.mktemp("metadata") / "model"
    sample(seed=1).save(path)
    change_metadata(path, lambda described: replace(described, where, value))
    opt = sample()
    before = content(opt)
    refusal = None
    try:
        opt.load(path)
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        stepped(opt, 3, 4)
    else:
        assert refusal.startswith(f"{path}: ")
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
        assert_refused(path, "expected a whole safetensors file, but it cannot be read as one")
    for foreign in (whole + b"\0", b"PK\3\4" * 100, b"\xff" * 100, b"\0" * 100):
        path.write_bytes(foreign)
        assert_refused(path, "expected a whole safetensors file, but it cannot be read as one")
    from safetensors.numpy import save_file

    save_file({"params/0": np.ones(3)}, path)
    assert_refused(path, "a safetensors file, but not of an optimizer; expected what save")
    save_file({"params/0": np.ones(3)}, path, metadata={"flatstep": '{"format": 1}'})
    assert_refused(path, r"its metadata lacks \['structure', 'slots', 'numbers', 'leaf_counts', 'leaf_numbers'\]")


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


def test_a_parameter_that_became_read_only(tmp_path):
    sample(seed=1).save(tmp_path / "model")
    opt = sample()
    last = Tree(opt.params).leaves[-1]
    last.flags.writeable = False
    before = content(opt)
    with pytest.raises(ValueError, match=r"params\[None\] has become read-only"):
        opt.load(tmp_path / "model")
    assert content(opt) == before


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory: '.*nothing'"):
        sample().load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        sample().load(tmp_path)


# Writing, whole or not at all.


def test_where_it_is_written(tmp_path):
    """Over a file, keeping its permissions; through a link; under any kind of path; nowhere else."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("real")
    sample().save(str(link))
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    sample().save(tmp_path / "new")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new", "real"]
    assert real.read_bytes() == (tmp_path / "new").read_bytes()
    opt = sample(seed=1)
    opt.load(str(link))
    assert content(opt) == content(sample())


def test_a_path_without_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample().save("model")
    sample().load("model")


@pytest.mark.parametrize("path", ["/dev/null", "."])
def test_only_files_are_replaced(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is a directory or a device, expected a file or a new name"):
        sample().save(path)
    assert not any(tmp_path.iterdir()) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory: '.*nowhere/model'"):
        sample().save(tmp_path / "nowhere" / "model")


def test_a_header_too_long_to_be_read_is_not_written(tmp_path):
    sample().save(tmp_path / "model")
    old = (tmp_path / "model").read_bytes()
    opt = flatstep.Adam({"x" * 100_000_000: np.ones(1)}, learning_rate=0.1)
    with pytest.raises(ValueError, match="model: expected a whole safetensors file, .* [hH]eader"):
        opt.save(tmp_path / "model")
    assert_only_file(tmp_path / "model", old)


def assert_only_file(path: Path, expected: bytes) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == expected


def large(value: float) -> flatstep.Optimizer:
    """Larger than any buffer on the way."""
    opt = flatstep.Adam([np.full(20_000, value, np.float32), np.full(3, value, np.float64)], learning_rate=0.1)
    opt.step([np.full(20_000, value, np.float32), np.full(3, value, np.float64)])
    return opt


def test_failing_at_any_byte_leaves_the_old_file(tmp_path):
    """The system writes that many bytes and no more, as if the disk were full."""
    path = tmp_path / "model"
    large(1).save(path)
    old, opt = path.read_bytes(), large(2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in [0, 1, 7, 8, 9, *range(100, len(old), 4999), len(old) - 1]:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError, match=f"File too large: '{path}'") as raised:
                opt.save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert raised.value.errno == errno.EFBIG
        assert_only_file(path, old)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failing_late_leaves_the_old_file(function, error, tmp_path, monkeypatch):
    path = tmp_path / "model"
    large(1).save(path)
    old = path.read_bytes()

    def fail(*_: Any) -> None:
        raise error(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(error):
        large(2).save(path)
    assert_only_file(path, old)


def test_written_through_before_it_replaces(tmp_path, monkeypatch):
    """File, name, folder, in this order; a folder that cannot be synced does not matter."""
    calls = []
    fsync, rename = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if is_folder else f"file of {os.fstat(descriptor).st_size}")
        fsync(descriptor)
        if is_folder:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), rename(*paths)))
    large(1).save(tmp_path / "model")
    assert calls == [f"file of {(tmp_path / 'model').stat().st_size}", "replace", "folder"]


KILLED_AT = """
import os, resource, signal, sys
import numpy as np
from test_files import large
path, limits = sys.argv[1], sys.argv[2:]
old, opt = open(path, "rb").read(), large(2)
for limit in map(int, limits):
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        opt.save(path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) == (limit < len(old)), (limit, status)
    assert (open(path, "rb").read() == old) == (limit < len(old)), limit
"""


@pytest.mark.skipif(sys.platform != "linux", reason="has the system kill a process at a byte")
def test_killed_at_any_byte_leaves_the_old_file(tmp_path):
    """The system kills the process when it writes that byte; with one more, the new file is there."""
    path = tmp_path / "model"
    large(1).save(path)
    old = path.read_bytes()
    limits = [0, 1, 7, 8, 9, *range(100, len(old), 4999), len(old) - 1, len(old)]
    arguments = [sys.executable, "-W", "ignore", "-c", KILLED_AT, path, *map(str, limits)]
    subprocess.run(arguments, cwd=HERE, check=True, timeout=120)
    opt = large(1)
    opt.load(path)
    assert content(opt) == content(large(2))
    assert {entry.suffix for entry in tmp_path.iterdir()} == {"", ".tmp"}


SAVES_FOR_EVER = """
import itertools, os, sys
import numpy as np, flatstep
path, start = sys.argv[1], int(sys.argv[2])
os.fsync = lambda descriptor: None  # outlasts the machine, not the process; without it most moments are in a write
opt = flatstep.Adam(np.zeros(300_000, np.float32), learning_rate=1.0)
for value in itertools.count(start):
    for array in (opt.params, *opt.state.values()):
        array[...] = value
    opt.learning_rate = value
    opt.save(path)
    os.write(1, f"{value}\\n".encode())
"""


def test_killed_at_random_moments_leaves_the_old_or_the_new_file(tmp_path):
    """Which file was the last to be finished is known to within one."""
    path, chance, start = tmp_path / "model", random.Random(0), 1
    opt = flatstep.Adam(np.zeros(300_000, np.float32), learning_rate=1.0)
    for _ in range(12):
        arguments = [sys.executable, "-c", SAVES_FOR_EVER, path, str(start)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()
            try:
                process.wait(chance.uniform(0, 0.03))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            finished = int((first + process.communicate(timeout=60)[0]).split()[-1])
        assert process.returncode == -signal.SIGKILL
        opt.load(path)
        value = opt.learning_rate
        assert finished <= value <= finished + 1
        for array in (opt.params, *opt.state.values()):
            np.testing.assert_array_equal(array, np.float32(value))
        start = int(value) + 1


# Around it.


def test_safetensors_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for method in (sample().save, sample().load):
        with pytest.raises(ImportError, match=r'pip install "flatstep\[files\]"'):
            method(tmp_path / "model")


@pytest.mark.parametrize("method", ["save", "load"])
def test_not_beside_another_thread(method, tmp_path):
    """A file of half a step would be silently wrong."""
    opt = sample()
    opt.save(tmp_path / "model")
    before = content(opt)

    class Meddling:
        def __fspath__(self) -> str:  # called in the middle of it, when the optimizer is taken
            for meddle in (lambda: opt.step(params(1)), lambda: opt.save("x"), lambda: opt.load("x")):
                with pytest.raises(RuntimeError, match="this optimizer is in use"):
                    meddle()
            return str(tmp_path / "model")

    getattr(opt, method)(Meddling())
    assert content(opt) == before
    opt.step(params(1))
