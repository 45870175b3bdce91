"""flatstep.jax on an emulated device: the bits of the CPU, three launches a call, and the host reads nothing."""

from __future__ import annotations

import functools

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402

# The same tests again, on the device.
from test_jax_contract import test_any_structure, test_none_gradients  # noqa: E402, F401
from test_jax_numbers import (  # noqa: E402, F401
    NARROW,
    WIDE,
    test_bits_of_every_layout,
    test_bits_of_traced_numbers,
    test_count_of_another_dtype,
    test_each_count_drives_its_own,
    test_narrow_gradients_keep_weight_decay,
    test_numbers_that_xla_would_flush,
    test_update_is_step,
    x64,
)
from test_jax_programs import (  # noqa: E402, F401
    test_in_place,
    test_inputs_are_not_mutated,
    test_nan_is_found,
    test_steps_of_a_program,
    test_the_learning_rate_is_an_operand,
)
from test_jax_tail import (  # noqa: E402, F401
    test_all_of_each_member,
    test_averages_by_update,
    test_skip_nonfinite,
)
from test_jax_vmap import *  # noqa: E402, F403

import flatstep.jax as front  # noqa: E402
import stand_in  # noqa: E402
from flatstep import _core  # noqa: E402
from flatstep._rules import OPTIMIZERS  # noqa: E402
from flatstep.jax import _call  # noqa: E402
from jax_steps import same_bits  # noqa: E402

pytestmark = pytest.mark.stand_in

RULES = sorted({declaration.rules[0] for declaration in OPTIMIZERS if declaration.jax})


@pytest.fixture(autouse=True, scope="module")
def device():
    """flatstep.jax calls the emulated device. Programs compiled before or meanwhile are not used outside of this."""
    with pytest.MonkeyPatch.context() as patch:
        jax.clear_caches()
        stand_in.use_for_jax(patch)
        yield stand_in.xla_device()
    jax.clear_caches()


@pytest.fixture
def launches(device):
    """How many there were since the test began."""
    before = device.launches
    return lambda: device.launches - before


def random_step(rng, rule: str) -> _call.Step:
    names = _call.scalar_names(rule)
    values = {"learning_rate": 0.1, "grad_scale": 0.5, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.01}
    numbers = [values.get(name, float(rng.integers(2))) for name in names]
    traced = tuple(int(i) for i in np.flatnonzero(rng.random(len(names)) < rng.choice([0, 0.3, 1])))
    for place in traced:
        numbers[place] = 0.0
    return _call.Step(rule, bool(rng.integers(2)), tuple(numbers), traced, int(rng.integers(1, 17)))


def random_operands(rng, step: _call.Step, layout) -> list[np.ndarray]:
    batch = [(), (), (1,), (3,), (2, 5), (200,)][rng.integers(6)]
    most = rng.choice([3, 70, 300, 2500]) // (20 if batch == (200,) else 1)
    shapes = [(*batch, int(rng.integers(most + 1))) for _ in range(step.leaves)]
    param, grad, mu, nu = layout
    of_slots = {"mu": mu, "nu": nu, "nu_max": nu, "previous": param}
    dtypes = [*([] if step.makes_update else [param]), *(of_slots[slot] for slot in _core.slots(step.rule)), grad]
    if step.makes_update:
        dtypes[-1] = param
    count = rng.integers(1, 100, batch).astype(np.int32)
    kinds = rng.choice([np.float32, np.float64], len(step.traced))
    traced = [rng.uniform(0, 1, batch).astype(kind) for kind in kinds]
    streams = [np.abs(rng.standard_normal(shape)).astype(jnp.dtype(dtype)) for dtype in dtypes for shape in shapes]
    return [count, *traced, *streams]


@pytest.mark.parametrize("layout", WIDE + NARROW, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_any_leaves_give_the_bits_of_the_cpu(rule, layout, x64):  # noqa: F811
    """Lists of leaves, batches and numbers of every kind, of leaves that begin anywhere."""
    rng = np.random.default_rng([len(rule), *"".join(layout).encode()])
    for _ in range(4):
        step = random_step(rng, rule)
        operands = random_operands(rng, step, layout)
        if not _call.has_kernel(step, operands):
            continue
        same_bits(
            *(jax.jit(functools.partial(form, step=step))(*operands) for form in (on_cpu, _call.kernel_on_device))
        )


def on_cpu(*operands, step):
    return _call._call(stand_in.cpu_name(), step, operands, workspace=[])


def test_three_launches_a_call(launches):
    """Tables, coefficients and the sweep, for sixteen leaves and any number of members; none where there is nothing."""
    opt = front.adam(0.1)
    params = {str(i): jnp.ones((50, i + 1)) for i in range(16)}
    jax.jit(jax.vmap(opt.step))(params, jax.vmap(opt.init)(params), params)
    assert launches() == 3
    empty = {"a": jnp.ones((0, 3))}
    jax.jit(opt.step)(empty, opt.init(empty), empty)
    assert launches() == 3


def test_a_launch_that_fails_is_named(device):
    opt, params = front.amsgrad(0.1), {"w": jnp.ones(3)}
    state = opt.init(params)
    device.fail_launches(True)
    try:
        with pytest.raises(
            Exception, match="launch of the tables of amsgrad on float32 parameters failed on device 0: a planned"
        ):
            jax.block_until_ready(jax.jit(opt.step)(params, state, params))
    finally:
        device.fail_launches(False)


def test_a_workspace_that_is_too_small(device, monkeypatch):
    opt, params = front.adam(0.1), {"w": jnp.ones(12345)}
    state = opt.init(params)
    sized = device.xla_workspace_bytes
    monkeypatch.setattr(device, "xla_workspace_bytes", lambda *given: sized(*given) - 1)
    with pytest.raises(Exception, match="the workspace of a step is too small"):
        jax.block_until_ready(jax.jit(opt.step)(params, state, params))
