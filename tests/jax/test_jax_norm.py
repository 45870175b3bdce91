"""Clipping in steps of flatstep.jax: the norm of all gradients, and its limit."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import norms
from cases import assert_same_bits, special_values
from cases import numbers as wild
from flatstep.jax import _versions
from flatstep.jax._norm import Limits, formula, limited
from jax_hlo import copies
from jax_steps import calls
from jax_training import RULES, assert_close, front, jax, jnp, optax, random_tree
from jax_x64 import enable_x64

SHAPES = [(), (1,), (17,), (1024,), (1025,), (3, 1000), (0, 4), (50_000,)]
DTYPES = ["float16", "bfloat16", "float32", "float64"]
MOST = 3.0


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def x64(request):
    with enable_x64(request.param):
        yield request.param


def arrays(dtype, seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        return [jnp.asarray(wild(rng, shape, np.float32).astype(jnp.dtype(dtype))) for shape in shapes]


def on_host(grads):
    """As the oracle takes them: it does not know bfloat16."""
    return [np.asarray(x, np.float32) if x.dtype == jnp.bfloat16 else np.asarray(x) for x in grads]


def expected_scale(grads, scale, most):
    factor = 1 if most is None else norms.factor(norms.global_norm(on_host(grads), scale), most)
    return np.float64(scale) * factor


@functools.cache
def limits(most):
    return jax.jit(lambda grads, scale: limited(grads, scale, most))


@functools.cache
def traced_limits():
    return jax.jit(limited)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm(dtype, target):
    """The factor has the oracle's bits, rounded to the operand's dtype, which is no rounding for its step."""
    for has_float64 in (True,) if dtype == "float64" else (False, True):
        with enable_x64(has_float64):
            check_norm(dtype)


def check_norm(dtype):
    grads = arrays(dtype)
    for scale in (1.0, 0.5):
        operand = jnp.asarray(scale, float)
        for most in (None, 1e9, 2.0):
            found, is_finite = map(np.asarray, limits(most)(grads, operand))
            assert is_finite == norms.is_finite(on_host(grads), scale)
            assert found == expected_scale(grads, scale, most).astype(operand.dtype)
        found, _ = traced_limits()(grads, operand, jnp.asarray(2.0, float))
        assert np.asarray(found) == expected_scale(grads, scale, 2.0).astype(operand.dtype)


def test_norm_of_mixed_dtypes(x64):
    grads = [x for dtype in DTYPES[: 3 + x64] for x in arrays(dtype, shapes=[(300,), (7,)])]
    found, _ = limits(2.0)(grads, jnp.asarray(1.0, float))
    assert found == expected_scale(grads, 1.0, 2.0).astype(found.dtype)


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_norm_of_special_values(dtype):
    """Finiteness is that of each number, not of the norm, which may overflow."""
    with enable_x64(True):
        for value in special_values(np.dtype(dtype).type):
            grads = [np.ones(1500, dtype), np.ones(3, dtype)]
            grads[0][1100] = value
            found, is_finite = limits(2.0)(grads, jnp.asarray(1.0))
            assert_same_bits(found, expected_scale(grads, 1.0, 2.0), repr(value))
            assert is_finite == np.isfinite(value)


def test_norm_of_nothing():
    assert limited([], jnp.float32(0.5), 1.0) == (0.5, True)
    assert limited([jnp.ones((0, 3))], jnp.float32(0.5), 1.0) == (0.5, True)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_norm_on_any_thread_count(count, threads):
    threads(count)
    grads = arrays("float32", 3, [(300_001,), (17,), (700_000,)])
    assert limits(2.0)(grads, jnp.float32(1))[0] == np.float32(expected_scale(grads, 1.0, 2.0))


@functools.cache
def formulas(most, count):
    return jax.jit(functools.partial(formula, limits=Limits(most, False, count)))


LIKE_OPTAX = [*(("float32", most) for most in (None, 1e9, 2.0)), ("complex64", 2.0), ("float8_e4m3fn", 2.0)]


@pytest.mark.parametrize("dtype, most", LIKE_OPTAX)
def test_formula_of_norms(dtype, most):
    """Where there is no kernel: optax's norm. The kernel agrees with it."""
    grads = [np.asarray(x).astype(jnp.dtype(dtype)) for x in random_tree(0).values()]
    grads = [x * np.complex64(1 + 2j) if np.iscomplexobj(x) else x for x in grads]
    wide = [0.5 * x.astype(np.complex128 if np.iscomplexobj(x) else np.float64) for x in grads]
    norm = np.sqrt(sum(np.sum(np.abs(x) ** 2) for x in wide))
    expected = np.float32(0.5 if most is None else 0.5 * norms.factor(norm, most)), np.True_
    for form in (limits(most), lambda grads, scale: tuple(formulas(most, len(grads))(scale, *grads))):
        assert_close(form(grads, jnp.float32(0.5)), expected, rtol=1e-6)
        broken = [*grads[:3], np.full((), np.nan, grads[3].dtype)]
        assert not form(broken, jnp.float32(0.5))[1]


@pytest.mark.parametrize("rule, has_float64", [("adam", True), *((rule, False) for rule in RULES)])
def test_max_norm(rule, has_float64):
    """A step is one with the grad_scale that the norm asks for; the limit holds some of them, traced or not."""
    with enable_x64(has_float64):
        opt, dtype = getattr(front, rule)(0.05), jnp.float64 if has_float64 else jnp.float32
        clipped, scaled = jax.jit(functools.partial(opt.step, grad_scale=0.5, max_norm=MOST)), jax.jit(opt.step)
        made = by_trace = expected = random_tree(0, dtype), opt.init(random_tree(0, dtype))
        factors = []
        for seed, size in ((1, 1.0), (2, 1e-3), (3, 10.0)):
            grads = jax.tree.map(lambda x, size=size: np.asarray(x) * x.dtype.type(size), random_tree(seed, dtype))
            scale = expected_scale(jax.tree.leaves(grads), 0.5, MOST)
            made, expected = clipped(*made, grads), scaled(*expected, grads, grad_scale=scale)
            assert_close(made, expected)
            if rule == "adam":  # one operation does it for all rules
                by_trace = scaled(*by_trace, grads, grad_scale=0.5, max_norm=MOST)
                assert_close(by_trace, expected)
            factors.append(scale)
    assert len({scale == 0.5 for scale in factors}) == 2


def test_max_norm_of_each_member():
    """Under vmap, also of limits that differ: each member gets the bits that it gets alone."""
    opt, members = front.amsgrad(0.05), 3
    params, grads = (jax.tree.map(lambda *x: np.stack(x), *map(random_tree, range(i, i + members))) for i in (0, 9))
    state, most = jax.jit(jax.vmap(opt.init))(params), np.linspace(0.5, 60, members, dtype=np.float32)
    clipped = functools.partial(opt.step, max_norm=9.0)
    made = jax.jit(jax.vmap(lambda *given: opt.step(*given[:3], max_norm=given[3])))(params, state, grads, most)
    shared = jax.jit(jax.vmap(clipped))(params, state, grads)
    step, alone = jax.jit(opt.step), jax.jit(clipped)
    for i in range(members):
        own = member(i, (params, state, grads))
        assert_close(member(i, made), step(*own, max_norm=most[i]))
        assert_close(member(i, shared), alone(*own))


def member(i, tree):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def test_a_limit_of_zero():
    """A norm of zero is within it."""
    zeros, scale = np.zeros(3, np.float32), jnp.float32(0.5)
    assert float(limits(0.0)([zeros], scale)[0]) == 0.5
    assert float(formulas(0.0, 1)(scale, zeros)[0]) == 0.5


def test_max_norm_of_complex_gradients():
    """As optax clips them."""
    params = {"w": np.arange(4, dtype=np.complex64) + 1j, "b": np.ones(3, np.float32)}
    opt = front.optimistic_gradient_descent(0.1)
    peer = optax.chain(optax.clip_by_global_norm(0.7), optax.optimistic_gradient_descent(0.1))
    updates, _ = jax.jit(peer.update)(params, peer.init(params))
    made, _ = jax.jit(opt.step)(params, opt.init(params), params, max_norm=0.7)  # which is traced
    assert_close(made, jax.tree.map(np.add, params, updates), rtol=1e-5)


def test_none_gradients_have_no_norm():
    opt = front.adam(0.1)
    params = {"w": jnp.ones(3), "frozen": jnp.ones(3)}
    grads = {"w": jnp.array([3.0, 4.0, 0.0]), "frozen": None}
    made, _ = opt.step(params, opt.init(params), grads, max_norm=1.0)
    expected, _ = opt.step(params, opt.init(params), grads, grad_scale=0.2)
    assert_close(made, expected)


def test_a_limit_costs_two_calls():
    """However many gradients there are; the step is in place as before."""
    opt = front.amsgrad(0.1)
    for count in (1, 17):
        params = {f"w{i}": jnp.ones((40, 5)) for i in range(count)}
        given = params, opt.init(params), params
        plain, limit = (
            jax.jit(functools.partial(opt.step, **more), donate_argnums=(0, 1)).lower(*given).compile().as_text()
            for more in ({}, dict(max_norm=1.0))
        )
        assert calls(limit) == calls(plain) + 2
        assert copies(limit, 40) == []


def test_max_norm_in_an_exported_program():
    """With shapes that are open, which may be empty then."""
    opt, (rows,) = front.adam(0.1), jax.export.symbolic_shape("rows - 1")
    like = {name: jax.ShapeDtypeStruct((rows, 3), jnp.float32) for name in "vw"}
    names = [_versions.registered_name(), *map(_versions.registered_norm, ("square_sums", "limits"))]
    export = jax.export.export(
        jax.jit(functools.partial(opt.step, max_norm=1.0)),
        disabled_checks=list(map(jax.export.DisabledSafetyCheck.custom_call, names)),
    )
    program = export(like, jax.eval_shape(opt.init, like), like)
    for count in (0, 2):
        params = {"v": jnp.ones((count, 3)), "w": jnp.full((count, 3), 2.0)}
        given = params, opt.init(params), params
        assert_close(program.call(*given), opt.step(*given, max_norm=1.0))


def test_max_norm_is_checked():
    opt, params = front.adam(0.1), jnp.ones(3)
    state = opt.init(params)
    for wrong, error in ((-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError), (jnp.ones(2), ValueError)):
        with pytest.raises(error, match="max_norm"):
            opt.step(params, state, params, max_norm=wrong)
    assert_close(opt.step(params, state, params, max_norm=float("inf")), opt.step(params, state, params))
    with pytest.raises(TypeError, match="cannot be differentiated"):
        jax.grad(lambda g: opt.step(params, state, g, max_norm=1.0)[0].sum())(params)
