"""What the rules are for: games that circle, problems that lead Adam astray, runs without end, parabolas."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

import flatstep
import reference
from cases import CASES, DEFAULTS, DTYPES, WITH_MOMENTS, Case, assert_same_bits, numbers
from flatstep import _core

# The bilinear game f(x, y) = x y from (1, 2) ------------------------------------------------------------------------

# Distance from the solution after so many steps, as the documentation of optax.optimistic_adam_v2 gives it. Computed in
# float32 there: exact arithmetic has 0.7955 at 256.
PUBLISHED = {1: 2.243, 4: 2.195, 16: 2.161, 64: 2.055, 256: 0.796, 1024: 0.001}


def play(opt, point, steps: int) -> np.ndarray:
    """Distances from the solution, the start's first. x descends, y ascends."""
    distances = [np.hypot(*point)]
    for _ in range(steps):
        x, y = point
        opt.step(np.array([y, -x], point.dtype))
        distances.append(np.hypot(*point))
    return np.array(distances)


def test_optimism_solves_the_game():
    point = np.array([1.0, 2.0])
    distances = play(flatstep.OptimisticAdam(point, learning_rate=1.0, alpha=1e-2, beta=1.0), point, 1024)
    for step, published in PUBLISHED.items():
        assert distances[step] == pytest.approx(published, abs=1e-3), step


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [True, False], ids=["nesterov", "plain"])
def test_the_game_in_every_form(dtype, nesterov):
    """Each form arrives in either precision. Later, when the moments have shrunk with the gradients, it may leave."""
    point = np.array([1.0, 2.0], dtype)
    opt = flatstep.OptimisticAdam(point, learning_rate=1.0, alpha=1e-2, beta=1.0, nesterov=nesterov)
    assert play(opt, point, 1024)[-1] < 0.002


@pytest.mark.parametrize("make", [flatstep.Adam, flatstep.AMSGrad], ids=["Adam", "AMSGrad"])
def test_without_optimism_the_game_circles(make):
    point = np.array([1.0, 2.0])
    distances = play(make(point, learning_rate=1e-2), point, 4096)
    assert distances[1024:].min() > 1.5, "it came nearer"
    assert distances[1024:].max() > 2.5, "it does not go round"


# Reddi, Kale and Kumar's counterexample -------------------------------------------------------------------------------

LARGE = 4.0  # the gradient at every third step; it is -1 at the others, so that of [-1, 1] the best point is -1
# b1, b2 and the decaying learning rate of their Theorem 1.
ONLINE: dict[str, Any] = dict(learning_rate=lambda count: 0.5 / np.sqrt(1 + count), b1=0.0, b2=1 / (1 + LARGE**2))


@pytest.mark.parametrize("start", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("make, settings, goal", [
    pytest.param(flatstep.Adam, {}, 1, id="Adam"),
    pytest.param(flatstep.AdamW, {}, 1, id="AdamW"),
    pytest.param(flatstep.OptimisticAdam, {}, 1, id="OptimisticAdam"),
    pytest.param(flatstep.OptimisticAMSGrad, {}, -1, id="OptimisticAMSGrad"),
    pytest.param(flatstep.AMSGrad, {}, -1, id="AMSGrad"),
    pytest.param(flatstep.AMSGrad, {"convention": "torch"}, -1, id="AMSGrad-torch"),
    pytest.param(flatstep.AMSGrad, {"convention": "paper"}, -1, id="AMSGrad-paper"),
])  # fmt: skip
def test_reddis_counterexample(make, settings, goal, start):
    """Adam takes the worst point, wherever it starts; AMSGrad the best one."""
    x = np.array([start])
    opt = make(x, **ONLINE, **settings)
    for step in range(6000):
        opt.step(np.array([LARGE if step % 3 == 0 else -1.0]))
        np.clip(x, -1, 1, out=x)
    assert x[0] == pytest.approx(goal, abs=0.02)  # the last steps are about 0.006 long; measured: 0.003


# Parabolas ------------------------------------------------------------------------------------------------------------


def moves_the_minimum(case: Case) -> bool:
    """Decoupled decay does."""
    opt = case.make(np.ones(1))
    return bool(opt.decoupled_weight_decay and opt.weight_decay)


def is_unguarded(case):
    """Whether it divides by the variance of a gradient that hardly varies, or without eps by a root that vanishes."""
    has_average = case.make(np.ones(1), learning_rate=1.0).state.keys() & {"mu", "previous"}
    return case.settings.get("centered") or (case.settings.get("eps") == 0 and not has_average)


# The table's schedules end after some steps.
LASTING = [case for case in CASES if not case.name.endswith(("schedules", "schedule"))]
DESCENDING = [case for case in LASTING if not moves_the_minimum(case) and not is_unguarded(case)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DESCENDING, ids=lambda case: case.name)
def test_a_parabola_is_minimised(case, dtype):
    """curvature/2 (x - centre)^2 + weight_decay/2 x^2, with a learning rate that falls. The way to go is up to 2."""
    curvature, centre = np.array([0.5, 1.0, 3.0, 10.0]), np.array([1.0, -2.0, 0.5, -0.25])
    x = np.zeros(4, dtype)
    # Steps that shrink with the slope need a rate that falls slowly, and one that the largest curvature bears.
    slots = _core.slots(case.optimizer._declaration.rules[0])
    rate, fall = (0.1, 500 if "nu_max" in slots else 50) if {"mu", "nu"} & {*slots} else (0.05, 2000)
    opt = case.make(x, learning_rate=lambda count: rate / (1 + count / fall))
    for _ in range(1500):
        slope = curvature * (x - centre)
        opt.step((-slope if opt.maximize else slope).astype(dtype))
    # Measured: 0.01 without memory, where a step is a learning rate long; 0.005 where optimism is weak; else 1e-4.
    assert np.max(np.abs(x - curvature * centre / (curvature + opt.weight_decay))) < 0.02


# Runs without end -----------------------------------------------------------------------------------------------------

# Where a count in float32, int32 or double would go wrong, and near the end of int64.
COUNTS = {"2^24": 2**24, "2^31": 2**31, "2^32": 2**32, "2^53": 2**53, "2^62": 2**62}
SIZE = 130


def slow_betas(count: int) -> dict[str, float]:
    """Betas whose powers still matter after so many steps."""
    return {"b1": 1 - max(2 / count, 2**-53), "b2": 1 - max(1 / count, 2**-53)}


def after(case: Case, dtype, count: int, **settings) -> tuple[flatstep.Optimizer, dict[str, np.ndarray]]:
    """An optimizer that has seen so many steps, by its state_dict; its state with the previous direction."""
    rng = np.random.default_rng(5)
    opt = case.make(numbers(rng, SIZE, dtype), **settings)
    for _ in range(3):
        opt.step(numbers(rng, SIZE, dtype))
    saved = opt.state_dict()
    saved["count"] = saved["leaf_counts"] = count
    opt.load_state_dict(saved)
    state = dict(saved["state"])
    if hasattr(opt, "beta") and "previous" not in state:
        # The form in two slots makes it again, for the count that it is given.
        T = np.dtype(dtype).type
        own = dict(b1=opt.b1, b2=opt.b2, eps=opt.eps, eps_root=opt.eps_root)
        state["previous"] = reference.direction(state["mu"], state["nu"], count, T, **own)
    return opt, state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", WITH_MOMENTS, ids=lambda case: case.name)
@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
def test_counts_go_on(case, dtype, count):
    """Across the edge of a narrower counter: the oracle's bits at each t, and the count exact."""
    first, betas = count - 2, slow_betas(count)
    opt, state = after(case, dtype, first, **betas)
    param, rng = opt.params.copy(), np.random.default_rng(6)
    for t in range(first + 1, first + 6):
        grad = numbers(rng, SIZE, dtype)
        param, state = case.oracle(param, grad, state, t, learning_rate=0.05, **{**case.settings, **betas})
        opt.step(grad)
        assert_same_bits(opt.params, param, f"param at {t}")
        for slot, value in opt.state.items():
            assert_same_bits(value, state[slot], f"{slot} at {t}")
        assert opt.count == t and opt.state_dict()["leaf_counts"] == t


@pytest.mark.parametrize("count", [2**24, 2**31, 2**32])
def test_powers_still_matter_there(count):
    """What test_counts_go_on rests on: there a count that stops or wraps would change the correction."""
    for b in slow_betas(count).values():
        assert reference.correction(b, count + 2) < reference.correction(b, count)
        assert reference.correction(b, count) != reference.correction(b, count % 2**31 + 1)


def test_leaves_count_for_themselves():
    """Leaves with all those counts in one optimizer, each as if it were alone."""
    case = next(case for case in DEFAULTS if case.optimizer is flatstep.OptimisticAdam)
    betas = slow_betas(2**31)
    pairs = [after(case, np.float64, count, **betas) for count in COUNTS.values()]
    both = case.make([alone.params.copy() for alone, _ in pairs], **betas)
    saved = both.state_dict()
    saved["leaf_counts"] = list(COUNTS.values())
    saved["count"] = max(COUNTS.values())
    saved["state"] = {slot: [alone.state[slot] for alone, _ in pairs] for slot in both.state}
    both.load_state_dict(saved)
    grad = numbers(np.random.default_rng(6), SIZE, np.float64)
    both.step([grad] * len(pairs))
    for (alone, _), param in zip(pairs, both.params, strict=True):
        alone.step(grad)
        assert_same_bits(param, alone.params)
    assert both.state_dict()["leaf_counts"] == [count + 1 for count in COUNTS.values()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("b", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("case", WITH_MOMENTS, ids=lambda case: case.name)
def test_corrections_end(case, b, dtype):
    """b^t has underflowed to zero: the correction is exactly 1, whatever t, and AMSGrad's step is the paper's."""
    begin, conventions = {}, ["optax", "torch", "paper"] if case.optimizer is flatstep.AMSGrad else [None]
    seen = []
    for count in (10**5, 2**31, 2**53 + 1, 2**62):
        assert reference.correction(b, count) == 1.0
        for convention in conventions:
            opt, _ = after(case, dtype, count, b1=b, b2=b, **({"convention": convention} if convention else {}))
            begin = begin or {"param": opt.params.copy(), **{slot: x.copy() for slot, x in opt.state.items()}}
            for name, value in {"param": opt.params, **opt.state}.items():
                value[...] = begin[name]
            opt.step(numbers(np.random.default_rng(6), SIZE, dtype))
            seen.append(opt.params.copy())
    assert np.all(np.isfinite(seen[0])) and np.mean(seen[0] != begin["param"]) > 0.5
    for param in seen[1:]:
        assert_same_bits(param, seen[0])


@pytest.mark.parametrize("b", [0.5, 0.9, 0.999, 1 - 1e-6, 1 - 2**-53])
def test_corrections_are_true(b):
    """The oracle's powers against 60 digits: a squaring doubles the relative error and rounds, t half ulps in all."""
    with localcontext() as context:
        context.prec = 60
        for t in [1, 2, 3, 10, 1000, 10**6, 2**24 + 1, 2**31 + 1]:
            exact = Decimal(b) ** t
            assert abs(Decimal(reference.power(b, t)) - exact) <= exact * t * Decimal(2) ** -53 + Decimal("1e-300")
