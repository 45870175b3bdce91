"""Steps of flatstep.jax from several Python threads: their bits, the threads they start, and that they end."""

from __future__ import annotations

import threading

import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jax_steps import OPTIMIZERS, same_bits  # noqa: E402
from processes import linux, run  # noqa: E402

STEPS = 6


def at_once(functions):
    """What each of the functions returns, called by as many threads that begin together."""
    barrier, results = threading.Barrier(len(functions)), {}

    def work(index):
        barrier.wait()
        results[index] = functions[index]()

    running = [threading.Thread(target=work, args=(index,)) for index in range(len(functions))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return [results[index] for index in range(len(functions))]


def trained(step, opt, seed):
    """Some steps, large enough for several threads."""
    random = np.random.default_rng(seed)
    params = {name: jnp.asarray(random.standard_normal(200_000), jnp.float32) for name in "wb"}
    grads = jax.tree.map(jnp.sin, params)
    state = opt.init(params)
    for _ in range(STEPS):
        params, state = step(params, state, grads)
    return jax.device_get((params, state))


@pytest.mark.parametrize("how", ["one program", "a program each", "no program"])
def test_threads_step_at_once(how):
    opts = [OPTIMIZERS["amsgrad"]] * 6 if how == "one program" else [*OPTIMIZERS.values()] * 2
    shared = jax.jit(opts[0].step, donate_argnums=(0, 1))

    def step_of(opt):
        if how == "no program":
            return opt.step
        return shared if how == "one program" else jax.jit(opt.step, donate_argnums=(0, 1))

    made = at_once([lambda i=i, opt=opt: trained(step_of(opt), opt, i) for i, opt in enumerate(opts)])
    for i, opt in enumerate(opts):
        same_bits(made[i], trained(step_of(opt), opt, i))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_threads(threads, count):
    opt = OPTIMIZERS["optimistic"]
    expected = trained(jax.jit(opt.step), opt, 0)
    threads(count)
    same_bits(trained(jax.jit(opt.step), opt, 0), expected)


# Large steps by more callers than there are processors, on several devices; prints the most threads that there were.
CALLERS = """
import os, sys, threading, time
library, devices, callers, processors = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
if processors:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processors])
import jax, numpy as np, optax, flatstep.jax
opt = {"optax": optax, "flatstep": flatstep.jax}[library].amsgrad(1e-3)

def with_updates(params, state, grads):
    updates, state = opt.update(grads, state, params)
    return optax.apply_updates(params, updates), state

step = jax.jit(opt.step if library == "flatstep" else with_updates, donate_argnums=(0, 1))
threads = lambda: len(os.listdir("/proc/self/task"))
most = 0

def work(index):
    global most
    params, grads = (jax.device_put(np.ones(300_000, np.float32), jax.devices()[index % devices]) for _ in range(2))
    state = opt.init(params)
    for _ in range(12):
        params, state = step(params, state, grads)
        most = max(most, threads())
    assert params[0] == params[-1] != 1

running = [threading.Thread(target=work, args=(index,)) for index in range(callers)]
for thread in running:
    thread.start()
for thread in running:
    thread.join()
print(most)
"""


def most_threads(library: str, *arguments: int) -> int:
    code = f"import sys; sys.argv[1:] = {[library, *map(str, arguments)]!r}\n{CALLERS}"
    return int(run(code, JAX_PLATFORMS="cpu")[0])


@pytest.mark.slow
@linux
def test_steps_start_no_threads():
    """Eight devices and eight callers have the threads that XLA starts for them, whatever it computes."""
    callers = 8  # that may not all have been seen at once
    assert most_threads("flatstep", 8, callers, 0) <= most_threads("optax", 8, callers, 0) + callers


@pytest.mark.slow
@linux
@pytest.mark.parametrize("processors", [1, 2])
def test_more_callers_than_processors(processors):
    """Every thread of XLA's pools may be inside of a step that waits for helpers: the steps end all the same."""
    assert most_threads("flatstep", 4, 16, processors) > 16


def test_a_step_without_a_pool():
    """XLA can be told to use no threads of its own."""
    code = """
import jax.numpy as jnp, flatstep.jax
opt, params = flatstep.jax.adam(0.5), jnp.ones(200_000)
print(*{float(x) for x in opt.step(params, opt.init(params), params)[0][::999]})
"""
    flags = "--xla_cpu_multi_thread_eigen=false"
    assert run(code, XLA_FLAGS=flags, JAX_PLATFORMS="cpu") == ["0.5"]


def test_pmap():
    if not hasattr(jax, "pmap"):
        pytest.skip("this jax has none")
    opt, params = OPTIMIZERS["adam"], jnp.arange(5.0)[None]
    made = jax.pmap(opt.step)(params, jax.tree.map(lambda x: x[None], opt.init(params[0])), params)
    same_bits(jax.tree.map(lambda x: x[0], made), jax.jit(opt.step)(params[0], opt.init(params[0]), params[0]))
