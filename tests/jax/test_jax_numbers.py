"""flatstep.jax computes what the core does, to the last bit on the CPU; its formula and optax agree with it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import flatstep
from cases import CASES, DEFAULTS, Case, assert_same_bits, numbers, special_values
from flatstep._rules import DECAY_STATE
from table import JAX
from trajectories import distance, gradients, start

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402

import flatstep.jax as front  # noqa: E402
from flatstep.jax import _call  # noqa: E402
from jax_x64 import enable_x64  # noqa: E402
from optax_peers import peer_of  # noqa: E402

STEPS = 4
F32, F64, F16, BF16 = "float32", "float64", "float16", "bfloat16"
# The dtypes of param, grad, first and second moment for which there is a kernel.
WIDE = [(F32, F32, F32, F32), (F32, F32, BF16, F32), (F64, F64, F64, F64)]
NARROW = [
    (param, grad, *moments)
    for param in (BF16, F16)
    for grad in (param, F32)
    for moments in ((param, param), (F32, param), (F32, F32))
]
SHAPES = [(), (1,), (0, 4), (3, 5, 7), (64,)]
# Layouts and shapes of a tree's leaves: more than are stepped by one call.
LEAVES = [*((layout, (203,)) for layout in WIDE + NARROW), *((WIDE[0], shape) for shape in SHAPES), (WIDE[2], (65,))]


def decays_itself(case: Case) -> bool:
    """Whether weight decay is an argument of optax's function, and decoupled."""
    return DECAY_STATE in case.optimizer._declaration.jax.parts({})


def is_coupled_alone(case: Case) -> bool:
    """Whether optax's function cannot couple the weight decay, and none that it is derived from can."""
    is_coupled = case.settings.get("decoupled_weight_decay") is False
    return is_coupled and decays_itself(case) and not case.optimizer._declaration.base


WITH_MOMENTS = [case for case in CASES if hasattr(case.optimizer, "b1") and not is_coupled_alone(case)]
STATIC = [case for case in WITH_MOMENTS if not case.name.endswith("schedules")]
DEFAULTS = [case for case in DEFAULTS if case in STATIC]
# One row for each term of a rule.
TERMS = ["weight_decay", "decoupled", "maximize", "no_memory", "eps_root", "nesterov", "torch", "raw_mu", "raw_nu"]
TERMS += ["alpha_beta", "no_optimism", "eps_tiny"]
WITH_TERMS = [case for case in STATIC if case in DEFAULTS or case.name.split("-", 1)[1] in TERMS]
MAKERS = {entry.optimizer: getattr(front, name) for name, entry in JAX.items()}
FIELDS = {
    **{name: (0, name) for name in ("mu", "nu", "nu_max")},
    "previous": (1, "previous_gradient"),
    "trace": (2, "trace"),
}


Flags = tuple[type, tuple[tuple[str, Any], ...]]  # an optimizer, and the settings that are not numbers


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@pytest.fixture
def x64():
    with enable_x64(True):
        yield


def settings_of(case: Case) -> dict[str, Any]:
    """The case's settings, in the words of flatstep.jax."""
    settings = {"learning_rate": 0.05, **case.settings}
    if settings.get("convention") == "paper":
        settings.update(convention="optax", bias_correction_mu=False, bias_correction_nu=False)
    if decays_itself(case):
        settings = {"weight_decay": case.optimizer._declaration.argument("weight_decay").default, **settings}
    return settings


def make(case: Case, **more: Any) -> Any:
    settings = {**settings_of(case), **more}
    optimizer = case.optimizer
    if decays_itself(case) and settings.pop("decoupled_weight_decay", None) is False:
        optimizer = optimizer.__base__
    return MAKERS[optimizer](**settings)


def wild(rng, shape, dtype: str) -> np.ndarray:
    """Numbers of all sizes, denormals among them, and one in ten special."""
    wide = np.float64 if dtype == F64 else np.float32
    tiny = np.finfo(wide).tiny
    scales = rng.choice(np.array([1, 1e-15, tiny * 1e3, tiny, tiny * 1e-4], wide), shape)
    specials = rng.choice(special_values(np.float16 if dtype == F16 else wide), shape)
    values = np.where(rng.random(shape) < 0.1, specials, numbers(rng, shape, wide) * scales)
    return values.astype(jnp.dtype(dtype))


def tame(rng, shape, dtype: str) -> np.ndarray:
    return numbers(rng, shape, np.float64).astype(jnp.dtype(dtype))


def slots_of(state: Any) -> dict[str, Any]:
    return {
        slot: getattr(state[part], field)
        for slot, (part, field) in FIELDS.items()
        if part < len(state) and hasattr(state[part], field)
    }


def replace_slots(state: Any, slots: dict[str, Any]) -> Any:
    parts = list(state)
    for slot, tree in slots.items():
        part, field = FIELDS[slot]
        parts[part] = parts[part]._replace(**{field: tree})
    return tuple(parts)


def dtype_of(layout, slot: str) -> Any:
    param, _, mu, nu = layout
    return jnp.dtype({"mu": mu, "nu": nu, "nu_max": nu, "previous": param, "trace": param}[slot])


def fresh(opt: Any, params: list, layouts: list) -> Any:
    """optax's state of such layouts, some of which only users with states of their own have."""
    state = opt.init(params)
    wanted = {
        slot: [x.astype(dtype_of(layout, slot)) for x, layout in zip(tree, layouts, strict=True)]
        for slot, tree in slots_of(state).items()
    }
    return replace_slots(state, wanted)


def expect(case: Case, layout, param, grads, settings, step=None):
    """Steps in float32 or float64, each slot rounded once a step, as it is stored. They are the oracle's by default."""
    stored, wide = param.dtype, np.float64 if param.dtype == np.float64 else np.float32
    state: dict[str, Any] = {}
    with np.errstate(all="ignore"):
        for t, (grad, own) in enumerate(zip(grads, settings, strict=True), 1):
            made, slots = (step or case.oracle)(param.astype(wide), grad.astype(wide), state, t, **own)
            param = made.astype(stored)
            state = {slot: x.astype(dtype_of(layout, slot)).astype(wide) for slot, x in slots.items()}
    return param, state


def assert_as_oracle(case: Case, leaves, step, start_state, params, grads, settings) -> None:
    """The same bits on every target. ``step`` takes what differs from step to step first."""
    expected = [
        expect(case, layout, param, [row[i] for row in grads], settings)
        for i, ((layout, _), param) in enumerate(zip(leaves, params, strict=True))
    ]
    for target in flatstep.targets():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLATSTEP_TARGET", target)
            made, state = [jnp.array(x) for x in params], start_state()
            for count, row in enumerate(grads):
                made, state = step(count, made, state, [jnp.array(x) for x in row])
            jax.block_until_ready(made)
        slots = slots_of(state)
        for i, ((layout, shape), (param, own)) in enumerate(zip(leaves, expected, strict=True)):
            where = f"{target}, {layout} {shape}"
            assert made[i].dtype == param.dtype, where
            assert_bits(made[i], param, f"param, {where}")
            assert set(slots) <= set(own)
            for slot in slots:
                assert slots[slot][i].dtype == dtype_of(layout, slot), f"{slot}, {where}"
                assert_bits(slots[slot][i], own[slot].astype(dtype_of(layout, slot)), f"{slot}, {where}")


def assert_bits(actual, expected, what: str) -> None:
    assert_same_bits(np.asarray(actual), expected.astype(np.float32) if expected.dtype == BF16 else expected, what)


def data(leaves, make_numbers=wild, steps: int = STEPS):
    rng = np.random.default_rng(5)
    params = [make_numbers(rng, shape, layout[0]) for layout, shape in leaves]
    return params, [[make_numbers(rng, shape, layout[1]) for layout, shape in leaves] for _ in range(steps)]


# To the last bit ------------------------------------------------------------------------------------------------------


@by_name(STATIC)
def test_bits_of_every_layout(case, x64):
    """All numbers known when the step is compiled; NaN, infinities and denormals among the data."""
    opt, (params, grads) = make(case), data(LEAVES)
    jitted = jax.jit(functools.partial(opt.step, grad_scale=0.7), donate_argnums=(0, 1))
    settings = [{"learning_rate": 0.05, **case.settings, "grad_scale": 0.7}] * STEPS
    assert_as_oracle(
        case,
        LEAVES,
        lambda count, *trees: jitted(*trees),
        lambda: fresh(opt, params, [layout for layout, _ in LEAVES]),
        params,
        grads,
        settings,
    )


FLAGS = {"convention", "bias_correction_mu", "bias_correction_nu", "nesterov", "maximize", "decoupled_weight_decay"}


def flags_of(case: Case) -> Flags:
    return case.optimizer, tuple((name, value) for name, value in settings_of(case).items() if name in FLAGS)


def numbers_of(case: Case) -> dict[str, Any]:
    settings = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    settings = {name: value for name, value in settings.items() if hasattr(case.optimizer, name)} | settings_of(case)
    return {name: value for name, value in settings.items() if name not in FLAGS}


def bare(flags: Flags) -> Case:
    optimizer, settings = flags
    return Case("", optimizer, None, dict(settings))


@functools.cache
def step_of_traced(flags: Flags) -> Any:
    """The step whose first argument is all numbers, compiled once for each choice of flags."""
    case = bare(flags)
    return jax.jit(lambda numbers, *trees, **scale: make(case, **numbers).step(*trees, **scale))


@by_name(WITH_MOMENTS)
def test_bits_of_traced_numbers(case, x64):
    """All numbers as operands, which may change from step to step: in float64 they lose nothing."""
    leaves = [(layout, (77,)) for layout in WIDE]
    params, grads = data(leaves)
    step, scales = step_of_traced(flags_of(case)), [1.0, 0.3, -2.0, 1e-20]
    rows = [{k: float(v(t)) if callable(v) else v for k, v in numbers_of(case).items()} for t in range(STEPS)]
    assert_as_oracle(
        case,
        leaves,
        lambda count, *trees: step(rows[count], *trees, grad_scale=scales[count]),
        lambda: fresh(make(bare(flags_of(case))), params, [layout for layout, _ in leaves]),
        params,
        grads,
        [{**case.settings, **row, "grad_scale": scale} for row, scale in zip(rows, scales, strict=True)],
    )


RATES = [0.1, 0.03, 1e-3, 0.7]


@by_name(DEFAULTS)
def test_bits_where_there_is_no_float64(case):
    """A schedule's float32 numbers are what the core rounds its own to. Large leaves take threads."""
    small = [leaf for leaf in LEAVES if F64 not in leaf[0]]
    leaves = [*small, (WIDE[0], (200_003,)), (NARROW[0], (200_003,)), (WIDE[1], (2, 65_537))]
    params, grads = data(leaves)
    opt = make(case, learning_rate=lambda count: jnp.array(RATES)[count])
    jitted = jax.jit(opt.step)
    assert_as_oracle(
        case,
        leaves,
        lambda count, *trees: jitted(*trees),
        lambda: fresh(opt, params, [layout for layout, _ in leaves]),
        params,
        grads,
        [{**case.settings, "learning_rate": rate} for rate in RATES],
    )


def test_numpy_face_has_the_same_bits(x64):
    """As the oracle says; here without it."""
    rng = np.random.default_rng(9)
    for case in DEFAULTS:
        param = wild(rng, (1000,), F64)
        own, opt = param.copy(), make(case)
        made, state, step, core = jnp.array(param), opt.init(jnp.array(param)), jax.jit(opt.step), case.make(own)
        for _ in range(STEPS):
            grad = wild(rng, (1000,), F64)
            core.step(grad)
            made, state = step(made, state, jnp.array(grad))
        assert_same_bits(made, own, case.name)


# update ---------------------------------------------------------------------------------------------------------------


def apart(actual, expected) -> float:
    """In roundings of 1, or of the number if larger."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected)
    unit = float(jnp.finfo(expected.dtype).eps) * (1 + np.abs(expected.astype(np.float64)))
    return float(np.max(np.abs(actual - expected.astype(np.float64)) / unit, initial=0))


@by_name(WITH_TERMS)
def test_update_is_step(case, x64):
    """update and apply_updates, to the bit without weight decay, which update adds in a pass of its own."""
    leaves = [(WIDE[0], (203,)), (WIDE[2], (203,)), (WIDE[0], ()), (WIDE[0], (0,))]
    params, grads = data(leaves, tame)
    opt = make(case)

    @jax.jit
    def both(params, state, grads):
        updates, updated_state = opt.update(grads, state, params)
        return opt.step(params, state, grads), (optax.apply_updates(params, updates), updated_state)

    state, decays = opt.init(params), bool(settings_of(case).get("weight_decay"))
    for row in grads:
        made, updated = both(params, state, row)
        assert jax.tree.structure(made) == jax.tree.structure(updated)
        for own, other in zip(jax.tree.leaves(made), jax.tree.leaves(updated), strict=True):
            if decays and own.dtype in (F32, F64):
                assert own.dtype == other.dtype and apart(own, other) < 4  # measured: 2.2
            else:
                assert_same_bits(own, np.asarray(other))
        params, state = made


# The formula ----------------------------------------------------------------------------------------------------------


def compiled(function, *arguments, by_formula: bool = True):
    """For the CPU, as for a platform without kernels."""
    with pytest.MonkeyPatch.context() as patch:
        if by_formula:
            patch.setattr(_call, "has_kernel", lambda *_: False)
        program = jax.jit(lambda *own: function(*own)).lower(*arguments).compile()
    assert ("custom-call" in program.as_text()) != by_formula
    return program


PROGRAMS: dict[Any, Any] = {}  # formulas, compiled once for each choice of flags if numbers are operands


COUNTS = [1, 2, 1000, 10**6, 2**31 - 1]
ROUNDINGS = {F32: 4.0, F64: 150.0}  # the core's 1 - b^t loses up to 1 / (1 - b) roundings; measured: 2.8 and 65


def positive(rng, shape, dtype: str) -> np.ndarray:
    """Numbers in whose averages nothing cancels."""
    return np.abs(tame(rng, shape, dtype))


# What optax's functions lack.
LACKING = {"convention", "decoupled_weight_decay", "maximize"}


def optax_step(case: Case) -> Any:
    """optax's step in float64, called as the oracle is. What optax lacks is done to its gradients and updates."""

    def step(param, grad, state, t, **own):
        settings = {**settings_of(case), **own}
        own_decay = {} if decays_itself(case) else {"weight_decay", "decoupled_weight_decay"}
        of_optax = {name: x for name, x in settings.items() if name not in {*own_decay, *LACKING}}
        opt = peer_of(MAKERS[case.optimizer].__name__)(**of_optax)
        decay = settings.get("weight_decay", 0.0) * param if own_decay else 0.0
        is_decoupled = settings.get("decoupled_weight_decay", False)
        before = opt.init(jnp.asarray(param, F64))
        before = replace_slots(before, {slot: jnp.asarray(x, F64) for slot, x in state.items()})
        if hasattr(before[1], "is_initial_step"):
            before = (before[0], before[1]._replace(is_initial_step=jnp.asarray(t == 1)), *before[2:])
        before = (before[0]._replace(count=jnp.int32(t - 1)), *before[1:])
        g = (-1.0 if settings.get("maximize") else 1.0) * np.asarray(grad, F64) + (0.0 if is_decoupled else decay)
        updates, after = opt.update(jnp.asarray(g), before, jnp.asarray(param, F64))
        moved = np.asarray(updates) - (settings["learning_rate"] * decay if is_decoupled else 0.0)
        return param + moved, {slot: np.asarray(x) for slot, x in slots_of(after).items()}

    return step


# optax has one convention of AMSGrad.
IN_OPTAX = [case for case in WITH_TERMS if case.settings.get("convention", "optax") == "optax"]


def steps_at(case: Case, traced: bool):
    """For each of some counts: the formula's step from any state, and what it was given."""
    leaves = [(WIDE[0], (203,)), (WIDE[2], (203,))]
    params, grads = data(leaves, positive, steps=len(COUNTS))
    numbers = {name: float(np.float32(value)) for name, value in numbers_of(case).items()} if traced else {}
    state = make(case).init(params)
    step = step_of_traced(flags_of(case)) if traced else lambda _, *trees: make(case).step(*trees)
    key = (flags_of(case), tuple(numbers)) if traced else case.name
    program = PROGRAMS[key] = PROGRAMS.get(key) or compiled(step, numbers, params, state, grads[0])
    for t, row in zip(COUNTS, grads, strict=True):
        state = (state[0]._replace(count=jnp.int32(t - 1)), *state[1:])
        before = state
        made, state = program(numbers, params, state, row)
        yield t, (numbers, params, before, row), (made, slots_of(state))


@by_name(IN_OPTAX)
@pytest.mark.parametrize("traced", [False, True], ids=["known", "traced"])
def test_formula_agrees_with_optax(case, traced, x64):
    """A step from any state, however late: apart by a few roundings of 1, or of the number if larger."""
    for t, (given, params, before, row), (made, slots) in steps_at(case, traced):
        for i, param in enumerate(params):
            own = {slot: np.asarray(tree[i]) for slot, tree in slots_of(before).items()}
            param, expected = optax_step(case)(param, row[i], own, t, **{"learning_rate": 0.05, **given})
            allowed = ROUNDINGS[str(row[i].dtype)]
            assert apart(made[i], param.astype(row[i].dtype)) < allowed, t
            for slot, tree in slots.items():
                assert apart(tree[i], expected[slot].astype(row[i].dtype)) < allowed, (slot, t)


@by_name([case for case in WITH_TERMS if case not in IN_OPTAX])
@pytest.mark.parametrize("traced", [False, True], ids=["known", "traced"])
def test_formula_agrees_with_the_kernel(case, traced, x64):
    """Where optax has no peer."""
    step = step_of_traced(flags_of(case)) if traced else jax.jit(lambda _, *trees: make(case).step(*trees))
    for t, given, (made, slots) in steps_at(case, traced):
        expected, state = step(*given)
        pairs = zip(jax.tree.leaves((made, slots)), jax.tree.leaves((expected, slots_of(state))), strict=True)
        assert all(apart(x, y) < ROUNDINGS[str(y.dtype)] for x, y in pairs), t


@by_name([case for case in STATIC if case.name.endswith("eps_tiny")])
def test_formula_keeps_a_tiny_eps_positive(case):
    """In float32 it would be zero, and without a gradient the step 0 / 0."""
    opt, params = make(case), jnp.ones(3)
    program = compiled(opt.step, params, opt.init(params), jnp.zeros(3))
    made, _ = program(params, opt.init(params), jnp.zeros(3))
    assert np.array_equal(made, params)


def test_formula_over_many_steps():
    """A run of 1,000 steps, in which differences may add up."""
    grads = jnp.asarray(np.random.default_rng(3).standard_normal((1000, 50)) + 0.3, F32)
    for case in DEFAULTS:
        opt, params = make(case, learning_rate=1e-2), jnp.ones(50)

        def train(*carry, step=opt.step):
            return jax.lax.scan(lambda carry, grad: (step(*carry, grad), None), carry, grads)[0]

        programs = [compiled(train, params, opt.init(params), by_formula=flag) for flag in (False, True)]
        ends = [jax.tree.leaves(program(params, opt.init(params))) for program in programs]
        assert max(apart(*pair) for pair in zip(*ends, strict=True) if pair[0].dtype == F32) < 10  # measured: 5.4


F8 = "float8_e4m3fn"
WITHOUT_KERNEL = [
    (F32, F16, F32, F32),
    (F32, BF16, F32, F32),
    (F8, F8, F8, F8),
    (BF16, F16, BF16, BF16),
    (BF16, BF16, F16, BF16),
    (F64, F32, F64, F64),
    (F64, F64, F32, F64),
    (F64, F64, F64, F32),
]


@by_name(DEFAULTS)
def test_without_a_kernel(case, x64):
    """Other dtypes take the formula and stay what they are; a leaf beside them that has a kernel has its bits."""
    leaves = [(layout, (33,)) for layout in [*WITHOUT_KERNEL, WIDE[0]]]
    params, grads = data(leaves, lambda rng, shape, dtype: rng.uniform(-2, 2, shape).astype(jnp.dtype(dtype)))
    opt = make(case)
    made, state, step = params, fresh(opt, params, [layout for layout, _ in leaves]), jax.jit(opt.step)
    for row in grads:
        made, state = step(made, state, row)
    settings = [{"learning_rate": 0.05, **case.settings}] * STEPS
    for i, (layout, _) in enumerate(leaves):
        step_of_peer = None if layout in WIDE else optax_step(case)
        param, own = expect(case, layout, params[i], [row[i] for row in grads], settings, step_of_peer)
        for name, actual, expected, dtype in [
            ("param", made[i], param, layout[0]),
            *((slot, tree[i], own[slot], dtype_of(layout, slot)) for slot, tree in slots_of(state).items()),
        ]:
            assert actual.dtype == dtype, (layout, name)
            if layout in WIDE:
                assert_bits(actual, expected, name)
            else:
                assert apart(actual, expected.astype(dtype)) < ROUNDINGS.get(layout[0], 1.0), (layout, name)


# optax ----------------------------------------------------------------------------------------------------------------

COSINE = optax.cosine_decay_schedule(0.05, 150)
SCHEDULES = dict(learning_rate=COSINE, weight_decay=COSINE)
ROWS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in JAX),
    *((name, dict(learning_rate=COSINE)) for name in JAX),
    *((name, dict(b1=0.7, b2=0.95, eps=0.0, eps_root=1e-3)) for name in ("amsgrad", "optimistic_adam_v2", "adam")),
    ("amsgrad", dict(bias_correction_mu=False)),
    ("amsgrad", dict(bias_correction_nu=False)),
    ("optimistic_adam_v2", dict(alpha=0.25, beta=0.7, nesterov=False)),
    ("adam", dict(nesterov=True)),
    ("adamw", dict(nesterov=True, weight_decay=0.1)),
    ("adamw", dict(weight_decay=COSINE)),
    ("adamw", dict(weight_decay=0.1, mask={"a": {"w": True, "b": False}, "c": [True, None]})),
    ("adamw", dict(weight_decay=0.1, mask={"a": False, "c": True})),
    ("adamw", dict(**SCHEDULES, mask=lambda tree: jax.tree.map(lambda x: x.shape[0] > 50, tree))),
]


def tree_of(values) -> Any:
    return {"a": {"w": values[..., :100], "b": values[..., 100:140]}, "c": [values[..., 140:], None]}


def run(settings, params, grads, make_optimizer, use_step: bool) -> list[np.ndarray]:
    """All leaves of parameters and state after each of the steps, a row each."""
    name, own = settings
    opt = make_optimizer(name, **{"learning_rate": 0.05, **own})

    def by_update(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step(carry, grads):
        made = (opt.step if use_step else by_update)(*carry, grads)
        return made, made

    rows = jax.jit(lambda *carry: jax.lax.scan(step, carry, grads)[1])(params, opt.init(params))
    return [np.asarray(x) for x in jax.tree.leaves(rows)]


def ours(name, **settings):
    return getattr(front, name)(**settings)


def theirs(name, **settings):
    return peer_of(name)(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join([row[0], *row[1]]))
def test_same_as_optax(row, x64):
    """Parameters and state in float64, after every step; update, which has a mask of its own, too."""
    params, grads = tree_of(jnp.asarray(start())), tree_of(jnp.asarray(gradients()))
    expected = run(row, params, grads, theirs, use_step=False)
    for use_step in (True, False) if "mask" in row[1] else (True,):
        actual = run(row, params, grads, ours, use_step)
        for own, peer in zip(actual, expected, strict=True):
            assert own.dtype == peer.dtype and own.shape == peer.shape
            if own.dtype == F64:
                assert distance(own, peer) < 1e-12
            else:
                assert np.array_equal(own, peer)


@pytest.mark.parametrize("peer", [False, True], ids=["ours", "optax"])
def test_a_schedule_of_weight_decay_by_hand(peer, x64):
    """It is called with 0, 1, 2: without a gradient it is all that moves. optax 0.2.6 called it with 0 each time."""
    rate, strengths, expected = 0.1, [1.0, 0.5, 0.25, 0.125], [1.0]
    for strength in strengths:
        expected.append(expected[-1] * (1 - rate * strength))
    settings = "adamw", dict(learning_rate=rate, weight_decay=lambda count: 0.5**count)
    seen = run(settings, jnp.ones(1), jnp.zeros((4, 1)), theirs if peer else ours, use_step=not peer)[0]
    np.testing.assert_allclose(seen[:, 0], expected[1:], rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in JAX if JAX[name].has(["b1"])])
def test_float32_is_nearer_the_truth_than_optax(name):
    """Not in every moment, but in the parameters at the end. Where there are no moments, both round alike."""
    with enable_x64(True):
        truth = run((name, {}), tree_of(jnp.asarray(start())), tree_of(jnp.asarray(gradients())), ours, True)
    trees = tree_of(jnp.asarray(start(np.float32))), tree_of(jnp.asarray(gradients(np.float32)))
    mine, other = (run((name, {}), *trees, make_optimizer, make_optimizer is ours) for make_optimizer in (ours, theirs))
    errors = [[float(np.sum(np.abs(own[i][-1] - truth[i][-1]))) for i in range(3)] for own in (mine, other)]
    assert sum(errors[0]) <= sum(errors[1]), errors


# Numbers and counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JAX)
def test_known_and_traced_numbers(name):
    """The same bits where float32 holds the numbers, else the same but for their rounding."""
    params, grads = jnp.asarray(start(np.float32)), jnp.asarray(gradients(np.float32))

    def train(numbers):
        step = getattr(front, name)(**numbers).step
        return jax.lax.scan(lambda carry, grad: (step(*carry, grad), None), (params, state), grads)[0]

    state, traced = getattr(front, name)(0.1).init(params), jax.jit(train)
    exact = dict(learning_rate=0.0625, b1=0.875, b2=0.984375, eps=2.0**-20, eps_root=0.0)
    rounded = dict(learning_rate=0.05, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0)
    for row, allowed in ((exact, 0.0), (rounded, 2e-5)):  # 1 - b2 is off by 1.3e-5
        settings = {number: value for number, value in row.items() if JAX[name].has([number])}
        known = jax.tree.leaves(jax.jit(functools.partial(train, settings))())
        for operands in (settings, {key: jnp.float32(value) for key, value in settings.items()}):
            for own, other in zip(jax.tree.leaves(traced(operands)), known, strict=True):
                assert own.dtype == other.dtype
                own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
                assert np.max(np.abs(own - other)) <= allowed * np.max(np.abs(other))


WAVES = dict(learning_rate=lambda count: 0.1 * jnp.cos(count), alpha=0.3)
fused_step = jax.jit(front.optimistic_adam_v2(**WAVES).step)


@jax.jit
def peer_step(param, state, grad):
    updates, state = optax.optimistic_adam_v2(**WAVES).update(grad, state, param)
    return optax.apply_updates(param, updates), state


@pytest.mark.parametrize("of_schedule", [0, 7, 2**31 - 1])
@pytest.mark.parametrize("count", [0, 1, 5, 2**31 - 3, 2**31 - 1])
@pytest.mark.parametrize("is_initial_step", [True, False])
def test_each_count_drives_its_own(count, is_initial_step, of_schedule, x64):
    """optax counts in three places, which wrappers and users may set apart; the last count stays."""
    param, grads = jnp.asarray(start()), jnp.asarray(gradients())[:4]
    state = optax.optimistic_adam_v2(**WAVES).init(param)
    state = (
        state[0]._replace(count=jnp.int32(count), mu=grads[3], nu=grads[3] ** 2),
        state[1]._replace(is_initial_step=jnp.array(is_initial_step), previous_gradient=jnp.sin(param)),
        state[2]._replace(count=jnp.int32(of_schedule)),
    )
    expected, peer_state = param, state
    for grad in grads[:3]:
        param, state = fused_step(param, state, grad)
        expected, peer_state = peer_step(expected, peer_state, grad)
    for own, other in zip(jax.tree.leaves((param, state)), jax.tree.leaves((expected, peer_state)), strict=True):
        assert own.dtype == other.dtype
        np.testing.assert_allclose(own, other, rtol=1e-11)


def test_count_of_another_dtype(x64):
    """A checkpoint may bring one; a kernel would reject it only after donation."""
    opt, param = front.adam(0.1), jnp.ones(3)
    state = opt.init(param)
    wide = (state[0]._replace(count=state[0].count.astype(jnp.int64)), *state[1:])
    (made, state), (same, same_state) = (jax.jit(opt.step)(param, own, param) for own in (wide, state))
    assert_same_bits(made, np.asarray(same))
    assert state[0].count.dtype == jnp.int64 and state[0].count == same_state[0].count == 1


@pytest.mark.parametrize(
    "number", [dict(learning_rate=1e-39), dict(learning_rate=0.1, eps=np.array(1e-39, np.float32))]
)
def test_numbers_that_xla_would_flush(number):
    """What is traced is read in the kernels' mode, not in XLA's, which takes denormals for zero."""
    grads = np.array([0.0, 1.0, -2.0], np.float32)
    params, of_core = np.full(3, 1e-37, np.float32), np.full(3, 1e-37, np.float32)
    core = flatstep.Adam(of_core, **{name: float(np.float32(value)) for name, value in number.items()})
    opt = front.adam(**number)
    made, _ = jax.jit(opt.step)(params, opt.init(params), grads)
    core.step(grads)
    assert of_core[1] != np.float32(1e-37) and not np.isnan(of_core).any()
    assert np.array_equal(np.asarray(made), of_core)


@pytest.mark.parametrize("decoupled", [False, True])
def test_narrow_gradients_keep_weight_decay(decoupled):
    """Updates are as wide as the parameters, as optax's are, so that what is added to them is not lost."""
    opt = front.adam(1e-3, weight_decay=1e-3, decoupled_weight_decay=decoupled)
    stepped = updated = jnp.full(64, 2.0, jnp.float32)
    of_step = of_update = opt.init(stepped)
    step, update, grads = jax.jit(opt.step), jax.jit(opt.update), jnp.full(64, 0.5, jnp.bfloat16)
    for _ in range(50):
        stepped, of_step = step(stepped, of_step, grads)
        updates, of_update = update(grads, of_update, updated)
        assert updates.dtype == jnp.float32
        updated = optax.apply_updates(updated, updates)
    assert np.allclose(updated, stepped, rtol=3e-7, atol=0)
    assert np.allclose(of_update[0].mu, of_step[0].mu, rtol=1e-6, atol=0)
