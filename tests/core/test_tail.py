"""What a step does besides its update: averages of parameters, and gradients that become zero."""

from __future__ import annotations

import numpy as np
import pytest

import averages
import flatstep
from cases import DEFAULTS, assert_same_bits

SIZES = [(1000,), (), (7, 33), (0,), (64,), (3, 5000)]
DTYPES = [np.float16, np.float32, np.float64]
OFF = [case for case in DEFAULTS if case.name == "AMSGrad-default"]
by_name = pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])


def arrays(rng: np.random.Generator, dtype) -> list[np.ndarray]:
    """Some in the order of Fortran."""
    made = [np.asarray(rng.standard_normal(shape), dtype) for shape in SIZES]
    return [np.asfortranarray(array) if array.shape == (7, 33) else array for array in made]


def train(opt: flatstep.Optimizer, dtype, steps: int = 4) -> list[list[np.ndarray]]:
    """The parameters after each step."""
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(steps):
        opt.step(arrays(rng, dtype))
        seen.append([param.copy() for param in opt.params])
    return seen


@by_name
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tail_changes_no_update(case, dtype):
    """Parameters and state are those of an optimizer without it."""
    plain, tailed = (case.make(arrays(np.random.default_rng(0), dtype), **more) for more in ({}, ALL))
    train(plain, dtype)
    train(tailed, dtype)
    for mine, other in zip(tailed.params, plain.params, strict=True):
        assert_same_bits(mine, other)
    for slot in plain.state:
        for mine, other in zip(tailed.state[slot], plain.state[slot], strict=True):
            assert_same_bits(mine, other, slot)


ALL = dict(ema_decay=0.9, zero_grads=True, max_norm=1e30, skip_nonfinite=True)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OFF, ids=[case.name for case in OFF])
def test_averages(case, dtype, decay, target):
    """Each start, in each dtype that there is for these parameters."""
    for own in {None, np.dtype(dtype).name}:
        for start in ("copy", "zero"):
            opt = case.make(arrays(np.random.default_rng(0), dtype), ema_decay=decay, ema_start=start, ema_dtype=own)
            seen = train(opt, dtype)
            for at, average in enumerate(opt.ema):
                stored = np.dtype(own) if own else averages.computed(np.dtype(dtype))
                formula = averages.interpolated if start == "copy" else averages.weighted
                assert_same_bits(average, formula([each[at] for each in seen], decay, stored), f"{start}, {at}")


@pytest.mark.parametrize("asked", [None, "float32"])
def test_averages_of_mixed_dtypes(asked):
    """What one parameter's own dtype is, another computes in."""
    dtypes = [np.float16, np.float32, *([np.float64] if asked is None else [])]
    params = [np.linspace(-1, 1, 50).astype(dtype) for dtype in dtypes]
    opt = flatstep.AMSGrad(params, 0.1, ema_decay=0.9, ema_dtype=asked)
    seen = []
    for _ in range(3):
        opt.step([np.ones_like(param) for param in params])
        seen.append([param.copy() for param in params])
    for at, dtype in enumerate(dtypes):
        expected = averages.interpolated([each[at] for each in seen], 0.9, averages.computed(dtype))
        assert_same_bits(opt.ema[at], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_corrected_averages(dtype):
    """By each parameter's own count; one without a gradient keeps its average."""
    params = arrays(np.random.default_rng(0), dtype)
    opt = flatstep.Adam(params, 0.1, ema_decay=0.9, ema_start="zero", ema_debias=True)
    seen = train(opt, dtype)
    grads = arrays(np.random.default_rng(2), dtype)
    grads[0] = None
    opt.step(grads)
    for at, average in enumerate(opt.ema):
        each = [*[step[at] for step in seen], *([params[at]] if at else [])]
        raw = averages.weighted(each, 0.9, averages.computed(np.dtype(dtype)))
        assert_same_bits(average, averages.debiased(raw, 0.9, len(each)), f"param {at}")


def test_averages_are_torchs_and_optaxs():
    """Up to rounding: the numbers of AveragedModel and of optax.ema."""
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    module = torch.nn.Linear(3, 2)
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    params = [param.detach().numpy() for param in module.parameters()]
    opt = flatstep.Adam(params, 0.1, ema_decay=0.9)
    for _ in range(5):
        opt.step([np.ones_like(param) for param in params])
        averaged.update_parameters(module)
    for mine, theirs in zip(opt.ema, averaged.module.parameters(), strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-6)


def test_corrected_averages_are_optaxs():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    param = np.ones(5, np.float32)
    opt = flatstep.Adam(param, 0.1, ema_decay=0.9, ema_start="zero", ema_debias=True)
    ema = optax.ema(0.9, debias=True)
    state = ema.init(jax.numpy.asarray(param))
    for _ in range(5):
        opt.step(np.ones_like(param))
        expected, state = ema.update(jax.numpy.asarray(param.copy()), state)
    np.testing.assert_allclose(opt.ema, expected, rtol=1e-6)


def test_averages_follow_a_schedule():
    opt = flatstep.AMSGrad(np.ones(3), 0.1, ema_decay=lambda count: 0.5 if count == 1 else 0.9)
    seen = []
    for _ in range(3):
        opt.step(np.ones(3))
        seen.append(opt.params.copy())
    first = averages.interpolated(seen[:2], 0.5, np.float64)
    assert_same_bits(opt.ema, first + (1 - 0.9) * (seen[2] - first))


@pytest.mark.parametrize("more", [{}, dict(ema_start="zero", ema_debias=True)], ids=["copy", "debiased"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_swapping(dtype, more):
    """There and back again changes no bit, and in between nothing can be stepped or saved."""
    opt = flatstep.AMSGrad(arrays(np.random.default_rng(0), dtype), 0.1, ema_decay=0.9, **more)
    train(opt, dtype)
    before = [param.copy() for param in opt.params]
    expected = [np.array(average) for average in opt.ema]
    opt.swap_ema()
    for param, average, swapped, was in zip(opt.params, expected, opt.ema, before, strict=True):
        assert_same_bits(param, average.astype(dtype))
        assert_same_bits(swapped, was)
    grads = arrays(np.random.default_rng(0), dtype)
    for forbidden in (
        lambda: opt.step(grads),
        opt.state_dict,
        lambda: opt.save("never"),
        lambda: opt.load_state_dict({}),
    ):
        with pytest.raises(RuntimeError, match=r"swapped with their averages; call swap_ema\(\) again"):
            forbidden()
    opt.swap_ema()
    for param, average, was, swapped in zip(opt.params, expected, before, opt.ema, strict=True):
        assert_same_bits(param, was)
        assert_same_bits(swapped, average)
    opt.step(grads)


@pytest.mark.parametrize("more", [{}, dict(ema_start="zero", ema_debias=True)], ids=["copy", "debiased"])
@pytest.mark.parametrize("by_file", [False, True])
def test_averages_are_saved(more, by_file, tmp_path):
    """A resumed run has the bits of one that was not interrupted."""
    pytest.importorskip("safetensors")
    one, other = (  # whose decay becomes the saved one
        flatstep.AMSGrad(arrays(np.random.default_rng(seed), np.float32), 0.1, ema_decay=decay, **more)
        for seed, decay in ((0, 0.9), (9, 0.5))
    )
    train(one, np.float32)
    if by_file:
        one.save(tmp_path / "saved")
        other.load(tmp_path / "saved")
    else:
        other.load_state_dict(one.state_dict())
        for into, param in zip(other.params, one.params, strict=True):
            into[...] = param
    train(one, np.float32)
    train(other, np.float32)
    for mine, theirs in zip([*one.ema, *one.params], [*other.ema, *other.params], strict=True):
        assert_same_bits(theirs, mine)


def test_a_state_with_averages_is_not_one_without():
    """And the state of an optimizer without them is as older versions have it."""
    plain, averaged = flatstep.Adam(np.ones(3), 0.1), flatstep.Adam(np.ones(3), 0.1, ema_decay=0.9)
    assert plain.state_dict()["version"] == 1 and "ema" not in plain.state_dict()
    assert averaged.state_dict()["version"] == 2
    for into, other in ((plain, averaged), (averaged, plain)):
        with pytest.raises(ValueError, match="ema"):
            into.load_state_dict(other.state_dict())
    zero, corrected = (
        flatstep.Adam(np.ones(3), 0.1, ema_decay=0.9, ema_start="zero", ema_debias=debias) for debias in (False, True)
    )
    for into, other, option in ((zero, averaged, "ema_start='copy'"), (corrected, zero, "ema_debias=False")):
        with pytest.raises(ValueError, match=f"state_dict was made with {option}"):
            into.load_state_dict(other.state_dict())
    with pytest.raises(AttributeError, match="this Adam has no averages; make it with ema_decay"):
        _ = plain.ema
    with pytest.raises(AttributeError, match="has no averages"):
        plain.swap_ema()


def test_parameters_that_cannot_be_written_are_not_swapped():
    """Nor are those before them."""
    params = [np.ones(3), np.ones(3)]
    opt = flatstep.AMSGrad(params, 0.1, ema_decay=0.9)
    for _ in range(3):
        opt.step([np.ones(3)] * 2)
    before = params[0].copy()
    params[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"params\[1\] has become read-only, but swap_ema writes to it"):
        opt.swap_ema()
    params[1].flags.writeable = True
    assert_same_bits(params[0], before)
    opt.step([np.ones(3)] * 2)


def test_a_corrected_average_has_one_decay_and_a_first_update():
    """Before it the average is the parameter: nothing else would be known of it."""
    params = {"a": np.ones(3), "b": np.full(2, 5.0)}
    opt = flatstep.AMSGrad(params, 0.1, ema_decay=0.9, ema_start="zero", ema_debias=True)
    opt.step({"a": np.ones(3), "b": None})
    assert_same_bits(opt.ema["b"], params["b"])
    opt.ema_decay = 0.99
    for use in (lambda: opt.ema, opt.swap_ema, lambda: opt.step(params)):
        with pytest.raises(ValueError, match=r"ema_decay is 0.99 and was 0.9; with ema_debias=True it is fixed"):
            use()


def test_averages_may_be_loaded_from_views_of_themselves():
    opt = flatstep.AMSGrad([np.ones(2), np.zeros(2)], 0.0, ema_decay=0.9)
    opt.step([np.zeros(2)] * 2)
    state = opt.state_dict()
    state["ema"] = [opt.ema[1], opt.ema[0]]
    opt.load_state_dict(state)
    assert np.array_equal(opt.ema[0], np.zeros(2)) and np.array_equal(opt.ema[1], np.ones(2))


def test_a_skipped_step_moves_no_average():
    """Its gradients are zeroed all the same, of any strides."""
    opt = flatstep.AMSGrad([np.ones(3), np.ones((20, 3))], 0.1, ema_decay=0.9, skip_nonfinite=True, zero_grads=True)
    opt.step([np.ones(3), np.ones((20, 3))])
    wide = np.ones((40, 6))
    before, grads = [np.array(average) for average in opt.ema], [np.array([1.0, np.nan, 2.0]), wide[::2, ::2]]
    opt.step(grads)
    for average, was in zip(opt.ema, before, strict=True):
        assert_same_bits(average, was)
    assert not np.any(grads[0]) and not grads[1].any() and np.count_nonzero(wide) == wide.size - 60
    assert opt.skipped == 1


@pytest.mark.parametrize(
    "more, error, match",
    [
        (dict(ema_start="zero"), ValueError, "need ema_decay"),
        (dict(ema_decay=0.9, ema_debias=True), ValueError, "pass ema_start='zero' too"),
        (
            dict(ema_decay=lambda _: 0.9, ema_start="zero", ema_debias=True),
            ValueError,
            "needs an ema_decay that is a number",
        ),
        (dict(ema_decay=0.9, ema_dtype="float64"), TypeError, "ema_dtype is 'float64', expected 'float32'"),
        (dict(ema_decay=1.0), ValueError, "ema_decay is 1, expected a number at least 0 and below 1"),
        (dict(zero_grads=1), TypeError, "zero_grads is 1, expected True or False"),
        (dict(ema_decay=0.9, ema_start="none"), ValueError, "ema_start is 'none', expected one of 'copy', 'zero'"),
    ],
)
def test_options_that_do_not_fit(more, error, match):
    with pytest.raises(error, match=match):
        flatstep.AMSGrad(np.ones(3, np.float32), 0.1, **more)


@by_name
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_grads(case, dtype):
    """Of any layout, and nothing beside them."""
    rng = np.random.default_rng(0)
    params = [np.asarray(rng.standard_normal((40, 30)), dtype) for _ in range(4)]
    wide = np.ones((80, 62), dtype)
    grads = [np.ones((40, 30), dtype), wide[::2, 1:31], np.ones((30, 40), dtype).T, None]
    opt = case.make(params, zero_grads=True)
    for _ in range(2):
        wide[...] = 1
        grads[0][...] = 1
        opt.step(grads)
        assert not any(grad.any() for grad in grads[:3])
        assert np.count_nonzero(wide) == wide.size - 40 * 30


def test_gradients_that_cannot_be_zeroed():
    """Read-only ones, ones that repeat, ones that share memory; nothing has changed then."""
    memory, part, frozen = np.ones(10), np.ones((2, 6)), np.ones(3)
    frozen.flags.writeable = False
    repeated = np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,))
    cases = {
        r"grads\[0\] is read-only, but zero_grads sets it to zero": [frozen, np.ones(3)],
        r"grads\[0\] has elements that share memory, but zero_grads": [repeated, np.ones(3)],
        r"grads\[1\] shares memory with the gradient of params\[0\], and zero_grads": [memory[:3], memory[2:5]],
    }
    for match, grads in cases.items():
        params = [np.ones(3), np.ones(3)]
        opt = flatstep.AMSGrad(params, 0.1, zero_grads=True)
        with pytest.raises(ValueError, match=match):
            opt.step(grads)
        assert opt.count == 0 and np.array_equal(params, np.ones((2, 3)))
        flatstep.AMSGrad(params, 0.1).step(grads)  # without it they are taken
    opt = flatstep.AMSGrad([np.ones((2, 3)), np.ones(1)], 0.1, zero_grads=True)
    opt.step([part[:, ::2], part[0, 1:2]])  # one between the elements of the other
    assert np.count_nonzero(part) == 5
    wide = np.ones((4, 9))
    opt = flatstep.AMSGrad([np.ones((4, 3)) for _ in range(3)], 0.1, zero_grads=True)
    opt.step([wide[:, :3], wide[:, 3:6], wide[::-1, 6:]])  # columns of one array
    assert not wide.any()
    with pytest.raises(ValueError, match="shares memory with the gradient"):
        opt.step([wide[:, :3], wide[:, 2:5], wide[:, 6:]])


def test_gradients_that_numpy_cannot_zero():
    opt = flatstep.AMSGrad(np.ones(3), 0.1, zero_grads=True)
    with pytest.raises(TypeError, match=r"grads is a memoryview, and zero_grads sets NumPy's arrays to zero"):
        opt.step(memoryview(np.ones(3)))


@pytest.mark.parametrize("count", [1, 3])
def test_on_any_thread_count(count, threads):
    threads(count)
    param, alone = (np.ones(700_001, np.float32) for _ in range(2))
    opt, twin = flatstep.AMSGrad(param, 0.1, **ALL, ema_start="zero"), flatstep.AMSGrad(alone, 0.1)
    seen = []
    for step in range(3):
        grad = np.linspace(-1, 1 + step, 700_001, dtype=np.float32)
        twin.step(grad)
        opt.step(grad)
        assert not grad.any()
        seen.append(alone.copy())
    assert_same_bits(opt.ema, averages.weighted(seen, 0.9, np.float32))
    assert_same_bits(param, alone)
