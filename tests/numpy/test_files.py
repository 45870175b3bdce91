"""save and load: what a file keeps comes back to the bit, under any keys and in any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flatstep
from cases import CASES, assert_same_bits, special_values
from flatstep import _files, _outline
from flatstep._trees import Tree
from repository import HELPERS
from saving import ODD_KEYS, STEPS, Part, content, params, sample, stepped

safetensors = pytest.importorskip("safetensors")


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
    code = "import sys, saving; saving.go_on(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=HELPERS, check=True, timeout=120)
    for index, case in enumerate(CASES):
        again = case.make(params(1))
        again.load(tmp_path / str(index))
        assert content(again) == content(stepped(case.make(params(0)), 0, STEPS)), case.name


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
            assert_same_bits(file.get_tensor(f"params/{leaf}"), param, f"leaf {leaf}")
        described = json.loads(file.metadata()["flatstep"])
    assert described["structure"] == {"'w'": 0, "3": [1, 2], "'a.b/c'": [3, {"(1, 'x')": 4}], "None": 5}


# Structures.


class Color(str, Enum):
    RED = "red"


class Layer(IntEnum):
    FIRST = 1


KEYS = st.recursive(
    st.one_of(
        st.text(max_size=4), st.integers(), st.booleans(), st.floats(allow_nan=False), st.none(), st.binary(max_size=3),
        st.sampled_from("./'\"[]\\\0\ud800é"), st.sampled_from([*Color, *Layer, *Part]),
        st.sampled_from([np.float32(0.1), np.int8(5), np.bool_(True), np.str_("a"), np.bytes_(b"a")]),
    ),
    lambda key: st.lists(key, max_size=2).map(tuple),
    max_leaves=3,
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


@given(key=KEYS, other=KEYS)
def test_equal_keys_are_written_alike_and_others_not(key, other):
    assert (_outline._spelled(key) == _outline._spelled(other)) == (key in {other: None})
    assert _outline._spelled(key) is not None


class Point(NamedTuple):
    x: int
    y: float


class Reversed(NamedTuple):
    y: float
    x: int


def test_named_tuples_have_the_fields_of_the_file(tmp_path):
    """In their order: by position alone, one would silently become the other. Plain tuples and lists go by position."""
    path, named = tmp_path / "named", Point(np.ones(2), (np.full(2, 2.0), {".x": np.full(2, 3.0)}))
    flatstep.Adam([named], learning_rate=0.1).save(path)
    zeros = [np.zeros(2), (np.zeros(2), {".x": np.zeros(2)})]
    for kind in (Point._make, tuple, list):
        read = [kind(zeros)]
        flatstep.Adam(read, learning_rate=0.1).load(path)
        assert [leaf[0] for leaf in Tree(read).leaves] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"\[0\] has the fields \['x', 'y'\], expected \['y', 'x'\] in this order"):
        flatstep.Adam([Reversed(zeros[1], zeros[0])], learning_rate=0.1).load(path)
    with pytest.raises(ValueError, match=r"\[0\] has the fields \['x', 'y'\], expected \['y', 'x'\] in this order"):
        flatstep.Adam([Reversed(zeros[0], zeros[1])], learning_rate=0.1).load(path)
    renamed = namedtuple("renamed", "a def", rename=True)
    flatstep.Adam([renamed(*zeros)], learning_rate=0.1).save(path)
    flatstep.Adam([renamed(*zeros)], learning_rate=0.1).load(path)
    flatstep.Adam([tuple(named)], learning_rate=0.1).save(path)
    flatstep.Adam([Reversed(*zeros)], learning_rate=0.1).load(path)


EQUAL = [
    (Color.RED, "red"), (Layer.FIRST, 1), (np.str_("a"), "a"), (np.int8(5), 5), (np.float32(0.5), 0.5), (True, 1),
    (np.bool_(True), 1.0), (-0.0, 0), (np.bytes_(b"a"), b"a"), (Point(1, 2.5), (1, 2.5)),
    ((True, (np.int8(1),)), (1, (1,))),
]  # fmt: skip


@pytest.mark.parametrize("key, plain", EQUAL, ids=[f"{type(key).__name__}-{key}" for key, _ in EQUAL])
def test_keys_that_are_equal_find_each_other(key, plain, tmp_path):
    for one, other in [(key, plain), (plain, key)]:
        flatstep.Adam({one: np.ones(2)}, learning_rate=0.1).save(tmp_path / "model")
        read = {other: np.zeros(2)}
        flatstep.Adam(read, learning_rate=0.1).load(tmp_path / "model")
        assert read[plain].tolist() == [1, 1]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_keys_find_each_other_in_other_processes(seed, tmp_path):
    """Whatever the order of sets and the addresses of objects there."""
    flatstep.Adam({key: np.full(2, i) / 1 for i, key in enumerate(ODD_KEYS)}, learning_rate=0.1).save(
        tmp_path / "model"
    )
    code = f"""
import sys, flatstep, numpy as np
from saving import ODD_KEYS
params = {{key: np.zeros(2) for key in reversed(ODD_KEYS)}}
flatstep.Adam(params, learning_rate=0.1).load({str(tmp_path / "model")!r})
assert [int(params[key][0]) for key in ODD_KEYS] == list(range(len(ODD_KEYS))), params
"""
    subprocess.run([sys.executable, "-c", code], cwd=HELPERS, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)


@dataclass(frozen=True)
class Data:
    x: Any = object


OTHER_KEYS = {
    "object": (object(), r"<object object at 0x\w+>, a builtins.object"),
    "function": (backwards, "<function backwards at .*>, a builtins.function"),
    "frozenset": (frozenset("ab"), r"frozenset\({'.', '.'}\), a builtins.frozenset"),
    "dataclass": (Data(), r"Data\(x=.*\), a .*test_files.Data"),
    "in a tuple": (("x", (1, Data())), r"\('x', \(1, Data\(.*\)\)\), a builtins.tuple"),
    "complex": (1j, "1j, a builtins.complex"),
    "time": (np.timedelta64(5, "ns"), ".*, a numpy.timedelta64"),
    "long double": (np.longdouble(1) / 3, f".*, a numpy.{np.longdouble.__name__}"),
}


@pytest.mark.parametrize("key, message", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_keys_that_no_file_can_hold(key, message, tmp_path):
    opt = flatstep.Adam({"layers": {"w": np.ones(2), key: np.ones(2)}}, learning_rate=0.1)
    with pytest.raises(
        ValueError, match=rf"params\['layers'\] has the key {message}, .* for a file, use keys that are"
    ):
        opt.save(tmp_path / "model")
    assert not any(tmp_path.iterdir())
    flatstep.Adam({"layers": {"w": np.ones(2), "x": np.ones(2)}}, learning_rate=0.1).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"\['layers'\] lacks the keys \[.*\] and has the unknown keys \['x'\]"):
        opt.load(tmp_path / "model")


@pytest.mark.parametrize(
    "keys",
    [(float("nan"), float("nan")), (Part.HEAD, Enum("Part", ["HEAD"], qualname="Part").HEAD)],
    ids=["NaN", "Enum of that name"],
)
def test_keys_that_print_alike(keys, tmp_path):
    opt = flatstep.Adam({"layers": {key: np.ones(2) for key in keys}}, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"params\['layers'\] has different keys that print alike"):
        opt.save(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_numbers_may_be_structures(tmp_path):
    """The format has room for hyperparameters that differ from leaf to leaf."""
    tree = Tree({"w": np.ones(2), 5: [np.zeros(1)]})
    opt = flatstep.Adam(tree.build(tree.leaves), learning_rate=0.1)
    each = {"w": 0.25, 5: [0.5]}
    saved = {**opt.state_dict(), "params": opt.params, "numbers": {"learning_rate": each, "b1": 0.5}}
    _files.write(tmp_path / "model", tree, saved)
    assert _files.read(tmp_path / "model", tree)["numbers"] == {"learning_rate": each, "b1": 0.5}


def test_bfloat16_is_kept(tmp_path):
    """By the format, whatever an optimizer can hold."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    tree = Tree([np.ones(2)])
    mu = np.arange(-3, 3).astype(bfloat16).reshape(2, 3)
    saved = {**flatstep.Adam([np.ones(2)], 0.1).state_dict(), "params": [np.ones(2)], "state": {"mu": [mu]}}
    _files.write(tmp_path / "model", tree, saved)
    (read,) = _files.read(tmp_path / "model", tree)["state"]["mu"]
    assert read.dtype == bfloat16 and read.tobytes() == mu.tobytes()


def test_many_leaves(tmp_path):
    leaves = [np.full(1, leaf, np.float32) for leaf in range(10_000)]
    flatstep.Adam(leaves, learning_rate=0.1).save(tmp_path / "model")
    read = [np.zeros(1, np.float32) for _ in leaves]
    flatstep.Adam(read, learning_rate=0.1).load(tmp_path / "model")
    np.testing.assert_array_equal(np.concatenate(read), np.arange(10_000))


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
