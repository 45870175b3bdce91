"""Numbers that are fixed when the optimizer is made, that may be None, or that fill a slot."""

from __future__ import annotations

import numpy as np
import pytest

import flatstep
from flatstep._numbers import Number
from table import TABLE

CLASSES = [entry.optimizer for entry in TABLE]


def numbers_with(attribute):
    """Each optimizer, and the names of those of its numbers that have this attribute."""
    return [
        pytest.param(cls, name, id=f"{cls.__name__}-{name}")
        for cls in CLASSES
        for name in dir(cls)
        if isinstance(getattr(cls, name), Number) and getattr(getattr(cls, name), attribute)
    ]


@pytest.mark.parametrize("optimizer, name", numbers_with("is_fixed"))
def test_fixed_numbers(optimizer, name):
    opt = optimizer(np.ones(2), 0.1, **{name: 0.5})
    with pytest.raises(AttributeError, match=f"{name} is fixed when the optimizer is made"):
        setattr(opt, name, 0.25)
    assert getattr(opt, name) == 0.5
    for value in (lambda count: 0.5, None, [0.5]):
        with pytest.raises(TypeError, match=f"{name} is .*, expected a number"):
            optimizer(np.ones(2), 0.1, **{name: value})


@pytest.mark.parametrize("optimizer, name", numbers_with("may_be_none"))
def test_numbers_that_may_be_none(optimizer, name):
    """None says what the state holds, and so it stays None, and a number a number or a schedule."""
    without, with_number = (optimizer(np.ones(2), 0.1, **{name: value}) for value in (None, 0.5))
    keys = [opt.state.keys() | opt.state_dict().keys() for opt in (without, with_number)]
    assert keys[0] < keys[1]
    with pytest.raises(ValueError, match=f"{name} is 0.5, but the optimizer was made with None"):
        setattr(without, name, 0.5)
    with pytest.raises(ValueError, match=f"{name} is None, but the optimizer was made with a number"):
        setattr(with_number, name, None)
    setattr(without, name, None)
    setattr(with_number, name, lambda count: 0.25)
    for opt in (without, with_number):
        opt.step(np.ones(2))
    for opt, other in ((without, with_number), (with_number, without)):
        with pytest.raises(ValueError, match="state_dict"):
            opt.load_state_dict(other.state_dict())


FILLED = [(cls, *pair) for cls in CLASSES for pair in cls._declaration.initial.items()]


@pytest.mark.parametrize("optimizer, slot, name", FILLED)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_slot_is_filled_before_the_first_step(optimizer, slot, name, dtype):
    """Of each leaf, also of one whose first gradient comes late."""
    early, late = np.ones(3, dtype), np.ones((2, 2), dtype)
    opt = optimizer([early, late], 0.1, **{name: 0.5})
    opt.step([np.ones(3, dtype), None])
    assert (opt.state[slot][1] == 0.5).all()
    opt.step([np.ones(3, dtype), np.ones((2, 2), dtype)])
    alone = np.ones((2, 2), dtype)
    optimizer(alone, 0.1, **{name: 0.5}).step(np.ones((2, 2), dtype))
    assert (late == alone).all()


@pytest.mark.parametrize("optimizer, slot, name", FILLED)
def test_a_slot_that_cannot_hold_what_fills_it(optimizer, slot, name):
    with pytest.raises(ValueError, match=f"{name} is 1e\\+06, infinite at these parameters' precision"):
        optimizer(np.ones(3, np.float16), 0.1, **{name: 1e6})


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(nesterov=True), "nesterov=True has no meaning without momentum"),
        *[
            (
                dict(convention="torch", momentum=0.5, **own),
                f"{next(iter(own))} is .*, which convention='torch' does not",
            )
            for own in (
                dict(eps_in_sqrt=True),
                dict(nesterov=True),
                dict(bias_correction=True),
                dict(initial_scale=1.0),
            )
        ],
    ],
    ids=str,
)
def test_options_of_rmsprop_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        flatstep.RMSProp(np.ones(2), 0.1, **options)
