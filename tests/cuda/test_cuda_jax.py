"""flatstep.jax on a CUDA device: the bits of the CPU, in place, compiled once, replayed. Runs where there is one."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402
from test_jax_numbers import LEAVES, STATIC, WIDE, assert_bits, by_name, data, fresh, make, numbers_of, x64  # noqa: E402, F401

import flatstep.jax as front  # noqa: E402
from jax_steps import OPTIMIZERS, buffers, calls, copies  # noqa: E402

PLATFORM = "cuda"


def has_device() -> bool:
    try:
        return len(jax.devices(PLATFORM)) > 0 and front._versions.device_module() is not None
    except RuntimeError:
        return False


pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not has_device(), reason="needs a CUDA device, and flatstep._cuda")]
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
SHAPES = {"w": (300, 257), "b": (7,), "s": (), "none": (3, 0), "c": (2, 3, 5)}
RATES = np.array([0.1, 0.03, 1e-3, 0.7, 0.01], np.float32)


def tree(seed: int, *lead: int) -> dict:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(lead + shape).astype(np.float32) for name, shape in SHAPES.items()}


def on(platform: str, *trees):
    """Copies, which may be donated."""
    return jax.tree.map(jnp.copy, jax.device_put(trees, jax.devices(platform)[0]))


def on_both(run, *operands, **options):
    """What a function of operands gives on the device, with the bits that it has on the CPU."""
    made, expected = (jax.jit(run, **options)(*on(platform, *operands)) for platform in (PLATFORM, "cpu"))
    same(made, expected)
    return made


def same(made, expected) -> None:
    pairs = zip(jax.tree_util.tree_leaves_with_path(made), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert_bits(x, np.asarray(y), jax.tree_util.keystr(path))


@by_name(STATIC)
def test_every_layout(case, x64):  # noqa: F811
    """NaN, infinities and denormals among the data."""
    opt, (params, grads) = make(case), data(LEAVES)
    state = fresh(opt, [jnp.array(x) for x in params], [layout for layout, _ in LEAVES])
    for row in grads:
        params, state = on_both(functools.partial(opt.step, grad_scale=0.7), params, state, row)


@by_name(STATIC)
def test_traced_numbers(case, x64):  # noqa: F811
    leaves = [(layout, (77,)) for layout in WIDE]
    params, grads = data(leaves)
    numbers = {name: np.float64(value) for name, value in numbers_of(case).items()}
    state = fresh(make(case), [jnp.array(x) for x in params], [layout for layout, _ in leaves])
    for row in grads:
        params, state = on_both(lambda numbers, *given: make(case, **numbers).step(*given), numbers, params, state, row)


@each_optimizer
def test_updates(name):
    params = tree(0)
    opt = OPTIMIZERS[name]
    on_both(lambda grads, state, params: opt.update(grads, state, params), tree(1), opt.init(params), params)


@each_optimizer
def test_in_place(name):
    """Nothing is copied, and what is donated is where the results are."""
    params, grads = on(PLATFORM, tree(0), tree(1))
    state = jax.jit(OPTIMIZERS[name].init)(params)
    compiled = jax.jit(OPTIMIZERS[name].step, donate_argnums=(0, 1)).lower(params, state, grads).compile()
    assert copies(compiled.as_text()) == []
    assert calls(compiled.as_text()) > 0
    places = buffers((params, state))
    assert buffers(compiled(params, state, grads)) == places


@each_optimizer
def test_not_donated(name):
    """What goes in stays as it is."""
    params, grads = on(PLATFORM, tree(0), tree(1))
    state = jax.jit(OPTIMIZERS[name].init)(params)
    before = jax.tree.map(np.array, (params, state, grads))
    jax.block_until_ready(jax.jit(OPTIMIZERS[name].step)(params, state, grads))
    same((params, state, grads), before)


def by_table(rates):
    """A schedule that has the same bits everywhere."""
    return front.amsgrad(lambda count: jnp.asarray(rates)[count])


def test_scan():
    opt, rows = by_table(RATES), [tree(seed) for seed in range(1, 6)]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *rows)

    def epoch(params, state, grads):
        return jax.lax.scan(lambda carry, row: (opt.step(*carry, row), None), (params, state), grads)[0]

    params = tree(0)
    on_both(epoch, params, opt.init(params), stacked, donate_argnums=(0, 1))


def test_a_schedule_compiles_nothing_anew():
    opt = by_table(RATES)
    step = jax.jit(opt.step, donate_argnums=(0, 1))
    made, expected = ((*on(p, tree(0), opt.init(tree(0))),) for p in (PLATFORM, "cpu"))
    for count in range(5):
        made, expected = (step(*trees, *on(p, tree(count + 1))) for trees, p in ((made, PLATFORM), (expected, "cpu")))
    same(made, expected)
    assert step._cache_size() == 2  # one for each platform


@pytest.mark.parametrize("members", [1, 5, 1000])
def test_vmap(members):
    """Members that begin anywhere, each at its own rate."""
    if members == 1000:
        params, grads = ({k: x for k, x in tree(i, members).items() if k != "w"} for i in range(2))
    else:
        params, grads = tree(0, members), tree(1, members)
    rates = np.linspace(0.01, 0.1, members, dtype=np.float32)
    state = jax.vmap(front.adam(0.1).init)(params)
    on_both(jax.vmap(lambda rate, *given: front.adam(rate, b1=0.8 + rate).step(*given)), rates, params, state, grads)


REPLAYED = """
import jax, numpy as np
import jax.numpy as jnp
import flatstep.jax

def twice(params, state, grads, rate):
    opt = flatstep.jax.optimistic_adam_v2(rate)
    return opt.step(*opt.step(params, state, grads), grads)

def trained(device):
    step = jax.jit(twice, donate_argnums=(0, 1))
    rng, opt = np.random.default_rng(0), flatstep.jax.optimistic_adam_v2(0.1)
    numbers = lambda: {str(n): rng.standard_normal(n).astype(np.float32) for n in (3, 1000, 70000)}
    params = numbers()
    params, state = jax.device_put((params, opt.init(params)), device)
    kept = []
    for count in range(20):
        grads, rate = jax.device_put((numbers(), np.float32(0.1 / (count + 1))), device)
        params, state = step(params, state, grads, rate)
        kept.append(jnp.full(1 << 12, count, device=device))  # may lie where a call's tables have been
    assert all((np.asarray(x) == i).all() for i, x in enumerate(kept))
    return jax.tree.map(np.asarray, (params, state))

made, expected = trained(jax.devices("PLATFORM")[0]), trained(jax.devices("cpu")[0])
for x, y in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
    assert x.tobytes() == y.tobytes()
"""


def test_command_buffers():
    """Two steps that XLA captures and replays, with new gradients and rates, while others take and leave memory.

    That it captures them is not asserted: XLA forms command buffers after the program that as_text() shows, and records
    one again wherever an array has moved, so that neither the text nor the number of our calls tells.
    """
    flags = "--xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL --xla_gpu_graph_min_graph_size=1"
    script = REPLAYED.replace("PLATFORM", PLATFORM)
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
