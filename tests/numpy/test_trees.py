"""Nested structures: what fits is matched alike in C++ and in Python, and what does not is rejected."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatstep._trees import Tree

Pair = namedtuple("Pair", "a b")

leaves = st.builds(object)
structures = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.sampled_from(["w", "b", 0, 1, None]), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["w", "b", 0]), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)


def varied(structure, data):
    """A structure of the same shape with leaves of its own: other kinds of lists and dicts, keys in any order."""
    if isinstance(structure, dict):
        keys = data.draw(st.permutations(list(structure)))
        return data.draw(st.sampled_from([dict, OrderedDict]))((key, varied(structure[key], data)) for key in keys)
    if isinstance(structure, (list, tuple)):
        return data.draw(st.sampled_from([list, tuple]))(varied(value, data) for value in structure)
    return object()


def at(structure, path):
    return eval(f"structure{path}", {"structure": structure})


@given(structures, st.data())
def test_match_is_indexing(structure, data):
    tree, other = Tree(structure), varied(structure, data)
    matched = tree.match(other, "grads")
    assert len(matched) == len(tree.leaves)
    assert all(leaf is at(other, path) for leaf, path in zip(matched, tree.paths(), strict=True))


@given(structures)
def test_changed_names_the_first_leaf_that_is_another(structure):
    tree = Tree(structure)
    assert tree.changed(structure, "params") is None
    for index in range(len(tree.leaves)):
        others = [leaf if i < index else object() for i, leaf in enumerate(tree.leaves)]
        assert tree.changed(tree.build(others), "params") == index


UNFIT = {
    "too few": [object()],
    "too many": [object(), {"w": object(), "b": object()}, object()],
    "a key too many": [object(), {"w": object(), "b": object(), "c": object()}],
    "a key too few": [object(), {"w": object()}],
    "another key": [object(), {"w": object(), "c": object()}],
    "a leaf for a dict": [object(), object()],
    "a list for a dict": [object(), [object(), object()]],
    "a dict for a list": {0: object(), 1: {"w": object(), "b": object()}},
    "keys that come when asked for": [object(), defaultdict(object, w=object(), c=object())],
}


@pytest.mark.parametrize("structure", UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_rejected(structure):
    tree = Tree([object(), {"w": object(), "b": object()}])
    before = repr(structure)
    for walk in (tree.match, tree.changed):
        with pytest.raises(ValueError, match=r"^grads(\[1\])? (has|is|lacks) "):
            walk(structure, "grads")
    assert repr(structure) == before


def test_dicts_that_look_up_in_their_own_way():
    class Doubling(dict):
        def __getitem__(self, key):
            return 2 * super().__getitem__(key)

    assert Tree({"w": 0, "b": 0}).match(Doubling(b=1, w=2), "grads") == [4, 2]


def test_a_signal_that_raises_while_keys_are_compared():
    """Does not mean that the key is missing, and is not lost."""

    class Key:
        compared = 0

        def __hash__(self):
            return hash("w")

        def __eq__(self, other):
            self.compared += 1
            if self.compared == 1:
                raise KeyboardInterrupt
            return True

    with pytest.raises(KeyboardInterrupt):
        Tree({"w": 0}).match({Key(): 1}, "grads")
