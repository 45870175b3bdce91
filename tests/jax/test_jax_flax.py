"""flatstep.jax in flax: its own classes, ours with fused steps, and checkpoints."""

from __future__ import annotations

import functools
import itertools

import pytest

from jax_hlo import calls, copies
from jax_training import RULES, SHAPES, assert_close, batch, front, jax, jnp, loss, optax, pair, random_tree
from jax_x64 import enable_x64

pytest.importorskip("flax")
from flax import nnx, serialization
from flax.core import freeze
from flax.training import train_state

from flatstep.jax.flax import Optimizer, TrainState

pytestmark = pytest.mark.slow
each_rule = pytest.mark.parametrize("rule", RULES)
each_kind = pytest.mark.parametrize(
    "rule, dtype", [*((rule, jnp.float32) for rule in RULES), ("optimistic_adam_v2", jnp.bfloat16)]
)
TRAIN_STATES = {"ours": TrainState, "flax's": train_state.TrainState}
OPTIMIZERS = {"ours": Optimizer, "flax's": nnx.Optimizer}
BIGGEST_SCALAR = 8

close = functools.partial(assert_close, rtol=1e-10, atol=1e-11)  # in float64


class Network(nnx.Module):
    def __init__(self, dtype=jnp.float32):
        for name, value in random_tree(0, dtype).items():
            setattr(self, name, nnx.Param(value))
        self.calls = nnx.Variable(jnp.array(0))

    def __call__(self, x):
        self.calls[...] += 1
        return loss({name: getattr(self, name)[...] for name in SHAPES}, x)


def training(cls, tx, dtype=jnp.float32):
    return cls.create(apply_fn=loss, params=random_tree(0, dtype), tx=tx)


def apply(state, x):
    return state.apply_gradients(grads=jax.grad(state.apply_fn)(state.params, x))


def train(model, optimizer, x):
    optimizer.update(model, nnx.grad(lambda model: model(x))(model))


def skip_nan(model, optimizer, x):
    grads = nnx.grad(lambda model: model(x))(model)
    finite = jnp.isfinite(optax.tree.norm(nnx.as_pure(grads)))

    def step(model, optimizer, grads):
        optimizer.update(model, grads)

    nnx.cond(finite, step, lambda *_: None, model, optimizer, grads)


def values(model, optimizer):
    return nnx.as_pure(nnx.state(model, nnx.Param)), nnx.as_pure(optimizer.opt_state), optimizer.step[...]


def addresses(tree):
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if leaf.ndim]


def assert_in_place(program):
    assert calls(program)
    assert copies(program, BIGGEST_SCALAR + 1) == []


@each_kind
@pytest.mark.parametrize("cls", TRAIN_STATES)
def test_train_state_in_place(cls, dtype, rule):
    state = training(TRAIN_STATES[cls], getattr(front, rule)(1e-2), dtype)
    run = jax.jit(apply, donate_argnums=0).lower(state, batch(dtype)).compile()
    assert_in_place(run.as_text())
    before = addresses((state.params, state.opt_state))
    after = run(state, batch(dtype))
    assert addresses((after.params, after.opt_state)) == before


@each_kind
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_optimizer_in_place(cls, dtype, rule):
    model = Network(dtype)
    optimizer = OPTIMIZERS[cls](model, getattr(front, rule)(1e-2), wrt=nnx.Param)
    run = nnx.jit(train, donate_argnums=(0, 1))
    assert_in_place(run.lower(model, optimizer, batch(dtype)).compile().as_text())
    before = addresses(values(model, optimizer))
    run(model, optimizer, batch(dtype))
    assert addresses(values(model, optimizer)) == before


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_cond_in_place(cls):
    model = Network()
    optimizer = OPTIMIZERS[cls](model, front.optimistic_adam_v2(1e-2), wrt=nnx.Param)
    run = nnx.jit(skip_nan, donate_argnums=(0, 1))
    assert_in_place(run.lower(model, optimizer, batch()).compile().as_text())
    run(model, optimizer, batch() * jnp.nan)
    assert_close(dict(values(model, optimizer)[0]), random_tree(0))
    run(model, optimizer, batch())
    assert optimizer.step[...] == 1 and model.calls[...] == 2


@pytest.mark.slow
@each_rule
@pytest.mark.parametrize("cls", TRAIN_STATES)
def test_train_state_as_with_optax(cls, rule):
    with enable_x64(True):
        ours, theirs = pair(rule, optax.linear_schedule(0.05, 0.01, 3))
        state, peer = (
            training(TRAIN_STATES[cls], ours, jnp.float64),
            training(train_state.TrainState, theirs, jnp.float64),
        )
        run = jax.jit(apply)
        for _ in range(3):
            state, peer = run(state, batch(jnp.float64)), run(peer, batch(jnp.float64))
        close((state.params, state.opt_state, state.step), (peer.params, peer.opt_state, peer.step))


@pytest.mark.slow
@each_rule
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_optimizer_as_with_optax(cls, rule):
    with enable_x64(True):
        models = [Network(jnp.float64), Network(jnp.float64)]
        made = zip((OPTIMIZERS[cls], nnx.Optimizer), models, pair(rule, 0.05), strict=True)
        optimizers = [cls(model, tx, wrt=nnx.Param) for cls, model, tx in made]
        run = nnx.jit(train)
        for _ in range(3):
            for model, optimizer in zip(models, optimizers, strict=True):
                run(model, optimizer, batch(jnp.float64))
        close(*(values(*each) for each in zip(models, optimizers, strict=True)))
        assert optimizers[0].step[...] == 3


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_optimizer_of_some_variables(cls):
    """What ``wrt`` leaves out stays as it is, to the bit."""
    model = Network()
    wrt = nnx.All(nnx.Param, nnx.Any(nnx.PathContains("w"), nnx.PathContains("b")))
    optimizer = OPTIMIZERS[cls](model, front.adam(0.1), wrt=wrt)
    optimizer.update(model, nnx.grad(lambda model: model(batch()), argnums=nnx.DiffState(0, wrt))(model))
    before = random_tree(0)
    for name in SHAPES:
        assert jnp.array_equal(getattr(model, name)[...], before[name]) == (name not in ("w", "b")), name


def test_model_and_optimizer():
    """nnx.ModelAndOptimizer is an nnx.Optimizer of flax's."""
    both = nnx.ModelAndOptimizer(Network(), front.adam(0.1), wrt=nnx.Param)
    both.update(nnx.grad(lambda model: model(batch()))(both.model))
    model = Network()
    optimizer = nnx.Optimizer(model, front.adam(0.1), wrt=nnx.Param)
    train(model, optimizer, batch())
    assert_close(values(both.model, both), values(model, optimizer))


def test_a_scale_of_gradients():
    """nnx.Optimizer's further arguments are those of ``step``, TrainState's are fields."""
    model = Network()
    optimizer = Optimizer(model, front.amsgrad(0.1), wrt=nnx.Param)
    grads = nnx.grad(lambda model: model(batch()))(model)
    optimizer.update(model, grads, grad_scale=0.5)
    halves = jax.tree.map(lambda g: g * 0.5, nnx.as_pure(grads))
    opt, params = front.amsgrad(0.1), random_tree(0)
    expected = opt.step(params, opt.init(params), dict(halves))[0]
    assert_close(dict(values(model, optimizer)[0]), expected)
    state = training(TrainState, opt)
    assert state.apply_gradients(grads=dict(halves), apply_fn=None).apply_fn is None


@pytest.mark.parametrize("container", [dict, freeze])
def test_gradients_that_are_values(container):
    """flax's collection of fields for which a gradient is the new value."""
    name = train_state.OVERWRITE_WITH_GRADIENT
    params = container({"params": random_tree(0), name: {"scale": jnp.ones(3)}})
    grads = container({"params": random_tree(1), name: {"scale": jnp.full(3, 7.0)}})
    ours, theirs = (
        cls.create(apply_fn=None, params=params, tx=tx).apply_gradients(grads=grads)
        for cls, tx in zip((TrainState, train_state.TrainState), pair("adam", 0.1), strict=True)
    )
    assert_close(ours.params, theirs.params, rtol=1e-4, atol=1e-5)
    assert_close(ours.params[name], grads[name])


WITHOUT_STEP = {
    "chain": lambda: optax.chain(optax.clip(1.0), front.adam(0.1)),
    "MultiSteps": lambda: optax.MultiSteps(front.adam(0.1), 2).gradient_transformation(),
    "optax": lambda: optax.adam(0.1),
}


@pytest.mark.parametrize("tx", WITHOUT_STEP)
def test_without_a_step(tx):
    """Rejected by our classes, which say where to go, and taken by flax's."""
    model, tx = Network(), WITHOUT_STEP[tx]()
    with pytest.raises(TypeError, match="without a fused step.*flax's own"):
        apply(training(TrainState, tx), batch())
    with pytest.raises(TypeError, match="without a fused step.*flax's own"):
        train(model, Optimizer(model, tx, wrt=nnx.Param), batch())
    assert apply(training(train_state.TrainState, tx), batch()).step == 1


def test_grads_alone():
    """What was flax's way to call it before 0.11."""
    optimizer = Optimizer(Network(), front.adam(0.1), wrt=nnx.Param)
    with pytest.raises(TypeError, match="grads"):
        optimizer.update(random_tree(1))


def by_flax(state, like, path):
    return serialization.from_bytes(like, serialization.to_bytes(state))


def by_orbax(state, like, path):
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "saved", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path / "saved", like)


@pytest.mark.slow
@pytest.mark.parametrize(
    "via, mu_dtype, rule",
    [
        *itertools.product([by_flax], [None], RULES),
        *itertools.product([by_flax, by_orbax], [jnp.bfloat16], ["optimistic_adam_v2"]),
        (by_orbax, None, "adamw"),
    ],
)
def test_checkpoints(via, mu_dtype, rule, tmp_path):
    """Steps go on from what was saved: by the same library with the same bits, by the other within its rounding.

    For mu in bfloat16 optax rounds b1 to bfloat16 too.
    """
    rounding = dict(rtol=1e-4, atol=1e-5) if mu_dtype is None else dict(rtol=1e-2, atol=2e-3)
    txs = pair(rule, 0.05, **({} if mu_dtype is None else dict(mu_dtype=mu_dtype)))
    run = jax.jit(apply)
    for saver in txs:
        saved = run(training(train_state.TrainState, saver), batch())
        for reader in txs:
            path = tmp_path / f"{txs.index(saver)}{txs.index(reader)}"
            loaded = via(saved, training(train_state.TrainState, reader), path)
            assert_close((loaded.params, loaded.opt_state), (saved.params, saved.opt_state))
            tolerance = {} if reader is saver else rounding
            found, expected = run(loaded, batch()), run(saved, batch())
            assert_close((found.params, found.opt_state), (expected.params, expected.opt_state), **tolerance)
