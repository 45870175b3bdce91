"""Steps inside of programs: in place under donation and never without, compiled once, exported, not differentiated."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import re

import numpy as np
import pytest

from jax_hlo import calls, copies
from jax_training import RULES, assert_close, batch, front, jax, jnp, loss, optax, random_tree

each_rule = pytest.mark.parametrize("rule", RULES)


# Programs: (optimizer, params, state, x) -> (params, state). x is the data, where it is not said to be the gradients.


def of_gradients(opt, params, state, grads):
    return opt.step(params, state, grads)


def with_model(opt, params, state, x):
    return opt.step(params, state, jax.value_and_grad(loss)(params, x)[1])


def clipped(opt, params, state, x):
    grads = jax.grad(loss)(params, x)
    return opt.step(params, state, grads, grad_scale=jnp.minimum(1, 1 / optax.tree.norm(grads).astype(jnp.float32)))


def unrolled(opt, params, state, x):
    return with_model(opt, *with_model(opt, params, state, x), x)


def scanned(opt, params, state, x):
    return jax.lax.scan(lambda carry, _: (with_model(opt, *carry, x), None), (params, state), length=3)[0]


def repeated(opt, params, state, x):
    return jax.lax.fori_loop(0, 3, lambda _, carry: with_model(opt, *carry, x), (params, state))


def skipping(opt, params, state, grads):
    finite = jnp.isfinite(optax.tree.norm(grads))
    return jax.lax.cond(finite, opt.step, lambda params, state, _: (params, state), params, state, grads)


def skipping_in_a_scan(opt, params, state, grads):
    return jax.lax.scan(lambda carry, _: (skipping(opt, *carry, grads), None), (params, state), length=3)[0]


def skipping_with_model(opt, params, state, x):
    return skipping(opt, params, state, jax.grad(loss)(params, x))


def updated(opt, params, state, x):
    updates, state = opt.update(jax.grad(loss)(params, x), state, params)
    return optax.apply_updates(params, updates), state


def updated_in_a_scan(opt, params, state, x):
    return jax.lax.scan(lambda carry, _: (updated(opt, *carry, x), None), (params, state), length=3)[0]


GIVEN_GRADS = [of_gradients, skipping, skipping_in_a_scan]
PROGRAMS = [*GIVEN_GRADS, with_model, clipped, unrolled, scanned, repeated, updated, updated_in_a_scan]
IN_PLACE = [
    *itertools.product([*PROGRAMS, skipping_with_model], RULES, [jnp.float32]),
    # Not skipping_with_model: XLA transposes bfloat16 gradients of matrices and hands them to a branch as they lie.
    *itertools.product(PROGRAMS, ["optimistic_adam_v2", "adamw"], [jnp.bfloat16]),
]


def arguments(opt, program=of_gradients, dtype=jnp.float32):
    params = random_tree(0, dtype)
    return params, opt.init(params), random_tree(1, dtype) if program in GIVEN_GRADS else batch(dtype)


def arrays(*trees):
    return [leaf for leaf in jax.tree.leaves(trees) if leaf.ndim]


@pytest.mark.slow
@pytest.mark.parametrize("program, rule, dtype", IN_PLACE)
def test_in_place(program, rule, dtype):
    """No copy as large as the smallest array of the network, and each array where it was."""
    opt = getattr(front, rule)(1e-2)
    params, state, x = arguments(opt, program, dtype)
    run = jax.jit(functools.partial(program, opt), donate_argnums=(0, 1)).lower(params, state, x).compile()
    assert calls(run.as_text())
    assert copies(run.as_text(), params["b"].nbytes) == []
    before = [leaf.unsafe_buffer_pointer() for leaf in arrays(params, state)]
    assert [leaf.unsafe_buffer_pointer() for leaf in arrays(run(params, state, x))] == before


@each_rule
def test_steps_of_a_program(rule):
    """In a loop the bits are those of one step after the other; a step that is skipped changes nothing."""
    opt = getattr(front, rule)(1e-2)
    params, state, grads = arguments(opt)
    bad = {**grads, "b": grads["b"].at[3].set(jnp.nan)}
    assert_close(jax.jit(functools.partial(skipping, opt))(params, state, bad), (params, state))
    found = jax.jit(functools.partial(skipping_in_a_scan, opt))(params, state, grads)
    for _ in range(3):
        params, state = opt.step(params, state, grads)
    assert_close(found, (params, state))


def returning_what_was(opt, params, state, grads):
    return params, opt.step(params, state, grads)


def raveled(opt, params, state, grads):
    flat = [jax.tree.map(lambda x: x.reshape(-1) if x.ndim else x, tree) for tree in (params, state, grads)]
    made, state = opt.step(*flat)
    return jax.tree.map(lambda x, like: x.reshape(like.shape), made, params), state


@pytest.mark.parametrize("program", [returning_what_was, raveled])
def test_copies_are_found(program):
    """What the test above looks for, where it must be."""
    opt = front.adam(1e-2)
    given = arguments(opt)
    run = jax.jit(functools.partial(program, opt), donate_argnums=(0, 1)).lower(*given).compile()
    assert copies(run.as_text(), given[0]["b"].nbytes)


def aligned(array):
    """A copy that begins where XLA lets arrays begin, so that a jax.Array may share its memory."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    made = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


SOURCES = {"numpy": lambda x: x, "device_put": jax.device_put, "dlpack": jax.dlpack.from_dlpack}
RUNS = {
    "eager": lambda call: call,
    "jit": jax.jit,
    "donated": lambda call: jax.jit(call, donate_argnums=(0, 1)),
}


@each_rule
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("source", SOURCES)
def test_inputs_are_not_mutated(source, run, rule):
    """Nor the memory of NumPy that they share; donated or not."""
    opt = getattr(front, rule)(1e-2)
    expected = jax.jit(opt.step)(*arguments(opt))
    memory = jax.tree.map(lambda x: aligned(np.asarray(x)), arguments(opt))
    before = jax.tree.map(np.copy, memory)
    given = jax.tree.map(SOURCES[source], memory)
    if source != "numpy":
        addresses = jax.tree.map(lambda x: x.unsafe_buffer_pointer(), given)
        assert addresses == jax.tree.map(lambda x: x.ctypes.data, memory)
    assert_close(RUNS[run](opt.step)(*given), expected)
    assert_close(memory, before)


@each_rule
def test_arrays_that_numpy_looks_at_are_not_donated(rule):
    opt = getattr(front, rule)(1e-2)
    given = arguments(opt)
    views = jax.tree.map(np.asarray, given)
    before = jax.tree.map(np.copy, views)
    jax.block_until_ready(jax.jit(opt.step, donate_argnums=(0, 1))(*given))
    assert_close(views, before)


@each_rule
def test_the_learning_rate_is_an_operand(rule):
    """One program for all rates and counts, and one for a schedule; the rate that it is given is what it steps with."""
    make = getattr(front, rule)
    step = jax.jit(lambda rate, *given: make(rate).step(*given))
    params, state, grads = arguments(make(0.1))
    for rate in (0.1, 0.025, 3.0):
        expected = jax.jit(make(rate).step)(params, state, grads)
        params, state = step(rate, params, state, grads)
        assert_close((params, state), expected)
    assert step._cache_size() == 1

    scheduled = make(optax.linear_schedule(0.1, 0.0, 4))
    step, (params, state, grads) = jax.jit(scheduled.step), arguments(scheduled)
    for _ in range(4):
        params, state = step(params, state, grads)
    assert step._cache_size() == 1


@pytest.fixture
def compilations():
    """Grows with every program that XLA compiles."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@each_rule
@pytest.mark.parametrize("method", ["step", "update"])
def test_eager_steps_are_compiled_once(method, rule, compilations):
    """Another count, rate or optimizer compiles nothing; another weight decay of a step does."""

    def go(rate, **settings):
        opt = getattr(front, rule)(rate, **settings)
        params, state, grads = given
        call = opt.step(*given) if method == "step" else opt.update(grads, state, params)
        return params, call[1], grads

    given, rates = arguments(getattr(front, rule)(0.1)), (0.1, 0.2, np.float32(0.3), jnp.float32(0.4))
    given = go(rates[-1])
    compilations.clear()
    for rate in rates:
        given = go(rate)
    assert compilations == []
    go(0.1, weight_decay=0.5)
    assert compilations or method == "update"  # which adds weight decay by operations of JAX's own


NUMBERS = dict(learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-8, eps_root=0.0, weight_decay=0.1)


def first_step(opt, params, grads, **more):
    return opt.step(params, opt.init(params), grads, **more)


def first_update(opt, params, grads, **extra):
    return opt.update(grads, opt.init(params), params, **extra)


def injected(name, value, params, grads):
    opt = optax.inject_hyperparams(front.adamw)(**NUMBERS)
    state = opt.init(params)
    state.hyperparams[name] = value
    return opt.update(grads, state, params)


def scheduled(value, name):
    return front.adamw(**{**NUMBERS, name: lambda count: value})


# What may change from step to step, as a function of its value, of parameters and gradients.
CHANGING = {
    "grad_scale": lambda value, *trees: first_step(front.adamw(0.1), *trees, grad_scale=value),
    "extra argument": lambda value, *trees: first_update(front.adamw(0.1), *trees, value=value),
    "rate, step": lambda value, *trees: first_step(front.adamw(value), *trees),
    "rate, update": lambda value, *trees: first_update(front.adamw(value), *trees),
    "rate's schedule, step": lambda value, *trees: first_step(scheduled(value, "learning_rate"), *trees),
    "rate's schedule, update": lambda value, *trees: first_update(scheduled(value, "learning_rate"), *trees),
    "decay's schedule, step": lambda value, *trees: first_step(scheduled(value, "weight_decay"), *trees),
    "decay's schedule, update": lambda value, *trees: first_update(scheduled(value, "weight_decay"), *trees),
    **{f"injected {name}": functools.partial(injected, name) for name in NUMBERS},
}
KINDS = {
    "float": float,
    "float32 of NumPy": np.float32,
    "float64 of NumPy": np.float64,
    "array of NumPy": lambda value: np.array(value, np.float32),
    "float32 of JAX": jnp.float32,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHANGING)
def test_what_changes_compiles_nothing(name, kind, compilations):
    """Outside of jit, too, where each number that a program holds would be a program of its own."""
    trees = random_tree(0), random_tree(1)
    CHANGING[name](KINDS[kind](0.5), *trees)
    compilations.clear()
    made = [jax.tree.leaves(CHANGING[name](KINDS[kind](value), *trees)) for value in (0.25, 0.3, 0.7, 0.9)]
    assert compilations == []
    assert name == "extra argument" or not np.array_equal(made[0][0], made[1][0])


def test_a_scale_is_rounded_once():
    """As an operand it has the bits that it had as a number of the program."""
    opt = front.amsgrad(1e-2)
    params, state, grads = arguments(opt)
    for scale in (0.7, 1e-3, 1):
        expected = opt.step(params, state, jax.tree.map(lambda g: np.float32(scale) * g, grads))  # noqa: B023
        assert_close(opt.step(params, state, grads, grad_scale=scale), expected)
        assert_close(jax.jit(functools.partial(opt.step, grad_scale=scale))(params, state, grads), expected)


@pytest.mark.slow
def test_a_thousand_leaves():
    """Few to a call, which is what keeps compilation short; the bits are those of one leaf."""
    opt, rng = front.amsgrad(1e-2), np.random.default_rng(0)
    whole = [jnp.asarray(rng.standard_normal((1000, 3)), jnp.float32) for _ in range(2)]
    params, grads = map(list, whole)
    run = jax.jit(opt.step).lower(params, opt.init(params), grads).compile()
    assert [op.results for op in calls(run.as_text())] == [4 * 16] * 62 + [4 * 8]
    found = jax.tree.leaves(run(params, opt.init(params), grads))
    expected = jax.tree.leaves(opt.step(whole[0], opt.init(whole[0]), whole[1]))
    count = found.pop(1000)
    assert_close(
        [jnp.stack(found[:1000]), count, *(jnp.stack(found[i : i + 1000]) for i in (1000, 2000, 3000))], expected
    )


DERIVATIVES = {
    "grad": jax.grad,
    "value_and_grad": jax.value_and_grad,
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "grad of checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "jvp": lambda f: lambda p: jax.jvp(f, (p,), (p,)),
    "vjp": lambda f: lambda p: jax.vjp(f, p),
    "linearize": lambda f: lambda p: jax.linearize(f, p),
    "hessian": jax.hessian,
}
through = {
    "step": lambda opt, params, state, grads: opt.step(params, state, grads)[0],
    "step in a scan": lambda opt, *given: scanned(opt, *given[:2], batch())[0],
    "update": lambda opt, params, state, grads: opt.update(params, state, params)[0],
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("call", through)
def test_a_step_has_no_derivative(call, derivative):
    opt = front.amsgrad(1e-2)
    params, state, grads = arguments(opt)
    with pytest.raises(TypeError, match="cannot be differentiated.*no derivative.*stop_gradient"):
        DERIVATIVES[derivative](lambda p: through[call](opt, p, state, grads)["b"].sum())(params)


def test_no_derivative_with_respect_to_the_learning_rate():
    params, state, grads = arguments(front.adam(1e-2))
    with pytest.raises(TypeError, match="cannot be differentiated"):
        jax.grad(lambda rate: front.adam(rate).step(params, state, grads)[0]["b"].sum())(0.1)


@pytest.mark.parametrize("differentiate", [jax.grad, jax.jit, jax.jacfwd])
def test_derivatives_beside_a_step(differentiate):
    """stop_gradient around what goes into a step makes it a constant."""
    opt = front.amsgrad(1e-2)
    params, state, grads = arguments(opt)

    def f(scale):
        stepped, _ = opt.step(*jax.lax.stop_gradient((jax.tree.map(lambda p: scale * p, params), state, grads)))
        return scale * stepped["b"].sum()

    expected = f(1.0) if differentiate is jax.jit else opt.step(params, state, grads)[0]["b"].sum()
    np.testing.assert_allclose(differentiate(f)(1.0), expected, rtol=1e-6)


def printing(opt, params, state, grads):
    params, state = opt.step(params, state, grads)
    jax.debug.print("{}", params["b"][0])
    return params, state


WAYS = {
    "eager": lambda opt: opt.step,
    "checkpoint": lambda opt: jax.checkpoint(opt.step),
    "jit of checkpoint": lambda opt: jax.jit(jax.checkpoint(opt.step)),
    "print": lambda opt: jax.jit(functools.partial(printing, opt)),
    "disable_jit": lambda opt: jax.disable_jit()(opt.step),
    "debug_nans": lambda opt: jax.debug_nans(True)(jax.jit(opt.step)),
    "check_tracer_leaks": lambda opt: jax.checking_leaks()(jax.jit(lambda *given: opt.step(*given))),
    "eval_jaxpr": lambda opt: (
        lambda *given: jax.tree.unflatten(
            jax.tree.structure(given[:2]),
            jax.core.eval_jaxpr(jax.make_jaxpr(opt.step)(*given).jaxpr, (), *jax.tree.leaves(given)),
        )
    ),
}


@each_rule
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_run(way, rule):
    """The same bits, and what is made is what was foretold."""
    opt = getattr(front, rule)(1e-2)
    given = arguments(opt)
    expected = jax.jit(opt.step)(*given)
    found = WAYS[way](opt)(*given)
    assert_close(found, expected)
    assert jax.eval_shape(opt.step, *given) == jax.eval_shape(lambda: found)


def test_nan_is_found():
    """jax_debug_nans raises, and does not stumble over the step."""
    opt = front.adam(1e-2, b1=0.85)  # which no test before has compiled
    params, state, grads = arguments(opt)
    bad = {**grads, "b": grads["b"] * jnp.nan}
    clipped = functools.partial(opt.step, max_norm=1.0)
    with jax.debug_nans(True):
        for call in (opt.step, clipped, jax.jit(lambda *given: opt.step(*given)), jax.jit(clipped)):
            with pytest.raises(FloatingPointError, match="nan"):
                call(params, state, bad)


def of_leaves(opt):
    """A step from arrays to arrays, for an export cannot hold optax's classes, and what to call it with."""
    leaves, structure = jax.tree.flatten(arguments(opt))
    return jax.jit(lambda *leaves: jax.tree.leaves(opt.step(*jax.tree.unflatten(structure, leaves)))), leaves


@each_rule
def test_an_exported_step(rule):
    """Rejected as every custom call is unless its check is disabled; then it has the same bits."""
    export = jax.export
    step, leaves = of_leaves(getattr(front, rule)(1e-2))
    with pytest.raises(ValueError, match="(?s)custom calls.*flatstep_step"):
        export.export(step)(*leaves)
    allowed = [export.DisabledSafetyCheck.custom_call(front._versions.registered_name())]
    exported = export.export(step, disabled_checks=allowed)(*leaves)
    if importlib.util.find_spec("flatbuffers"):
        exported = export.deserialize(exported.serialize())
    assert_close(exported.call(*leaves), step(*leaves))


def lowered(step, leaves, platform: str) -> str:
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(front._versions.registered_name())]
    return jax.export.export(step, platforms=[platform], disabled_checks=unchecked)(*leaves).mlir_module()


@each_rule
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_other_platforms_have_the_formula(platform, rule, monkeypatch):
    """And so have CUDA devices where flatstep was built without nvcc."""
    monkeypatch.setattr(front._versions, "device_module", lambda: None)
    text = lowered(*of_leaves(getattr(front, rule)(1e-2)), platform)
    assert "custom_call" not in text and "stablehlo.multiply" in text


@pytest.mark.skipif(front._versions.device_module() is None, reason="built without CUDA")
@each_rule
def test_cuda_devices_have_kernels(rule):
    """One call, each of its results in the place of an operand but for its tables, and not a sign of the formula."""
    text = lowered(*of_leaves(getattr(front, rule)(1e-2)), "cuda")
    (call,) = re.findall(rf"stablehlo.custom_call @{front._versions.registered_name()}\(.*", text)
    results = re.search(r"-> \((tensor.*?)\) loc", call)[1].split(", ")
    places = re.findall(r"output_tuple_indices = \[(\d+)\], operand_index = (\d+)", call)
    assert [int(result) for result, _ in places] == list(range(len(results) - 1))
    assert re.fullmatch(r"tensor<\d+xui8>", results[-1])
    assert "stablehlo.multiply" not in text


@pytest.mark.skipif(front._versions.device_module() is None, reason="built without CUDA")
def test_cuda_devices_have_the_formula_too():
    """Where there is no kernel for the dtypes, and where a shape is not known."""
    opt = front.adam(1e-2)
    params = {"w": jnp.ones(3, jnp.float8_e5m2)}
    state, grads = opt.init(params), {"w": jnp.ones(3)}
    step = jax.jit(lambda *leaves: jax.tree.leaves(opt.step(*jax.tree.unflatten(structure, leaves))))
    leaves, structure = jax.tree.flatten((params, state, grads))
    assert "custom_call" not in lowered(step, leaves, "cuda")
    leaves, structure = jax.tree.flatten((grads, opt.init(grads), grads))
    (size,) = jax.export.symbolic_shape("n")
    unknown = [jax.ShapeDtypeStruct((size,) * x.ndim, x.dtype) for x in leaves]
    assert "@flatstep" not in lowered(step, unknown, "cuda")


@pytest.mark.parametrize("search, value", [(jax.debug_nans, jnp.nan), (jax.debug_infs, jnp.inf)])
def test_a_search_names_the_step(search, value):
    opt = front.adam(1e-2)
    params, state, grads = arguments(opt)
    bad = {**grads, "b": jnp.full_like(grads["b"], value)}
    with search(True), pytest.raises(FloatingPointError, match="encountered in flatstep_step"):
        opt.step(params, state, bad)
