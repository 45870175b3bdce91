"""Arrays of other libraries on an emulated device: they are stepped in place, to the bits of NumPy's."""

from __future__ import annotations

import ctypes
import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import flatstep
import stand_in
from cases import CASES, DEFAULTS, assert_same_bits, numbers
from flatstep._device_arrays import DeviceArray
from foreign import CUDA, CUDA_MANAGED, LEGACY_STREAM, NO_STREAM, Array, capsule_of, from_dlpack

pytestmark = pytest.mark.stand_in

by_name = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
defaults = pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
SHAPES = [(130,), (), (3, 5, 7), (0, 4), (64,), (2100,)]


@pytest.fixture(autouse=True)
def device(monkeypatch):
    stand_in.use_for_arrays(monkeypatch)


def some(rng, dtype=np.float32):
    return [numbers(rng, shape, dtype) for shape in SHAPES]


def on_device(arrays):
    return [Array(array.copy(order="K")) for array in arrays]


def same_state(ours, theirs):
    for slot, views in theirs.state.items():
        for own, view in zip(ours.state[slot], views, strict=True):
            assert_same_bits(getattr(own, "data", own) if isinstance(own, Array) else own, view, slot)


@by_name
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_same_bits(case, dtype):
    """With gradients that lie otherwise, that are missing, and beside arrays of NumPy's."""
    rng = np.random.default_rng(0)
    arrays = some(rng, dtype)
    mixed = [array.copy() if i % 3 == 2 else Array(array.copy()) for i, array in enumerate(arrays)]
    mine, twin = case.make(mixed), case.make(arrays)
    for count in range(5):
        grads = [None if (count + i) % 4 == 3 else grad for i, grad in enumerate(some(rng, dtype))]
        if grads[2] is not None:
            grads[2] = np.asfortranarray(grads[2])
        twin.step(grads)
        mine.step([grad if grad is None or i % 3 == 2 else Array(grad) for i, grad in enumerate(grads)])
    for own, array in zip(mixed, arrays, strict=True):
        assert_same_bits(own.data if isinstance(own, Array) else own, array)
    same_state(mine, twin)
    assert mine.count == twin.count


def test_layouts_in_memory():
    rng = np.random.default_rng(1)
    array = np.asfortranarray(numbers(rng, (6, 70), np.float32))
    mine, twin = [Array(array.copy(order="K"))], [array]
    opt, other = flatstep.AMSGrad(mine, 0.05), flatstep.AMSGrad(twin, 0.05)
    for grad in (numbers(rng, (6, 70), np.float32), np.asfortranarray(numbers(rng, (6, 70), np.float32))):
        opt.step([Array(grad)])
        other.step([grad])
    assert_same_bits(mine[0].data, array)
    same_state(opt, other)
    assert opt.state["mu"][0].data.strides == array.strides
    assert opt.state_dict()["state"]["mu"][0].strides == array.strides


def test_bfloat16_moments():
    pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(2)
    array, grads = numbers(rng, 300, np.float32), [numbers(rng, 300, np.float32) for _ in range(3)]
    mine = Array(array.copy())
    opt, other = (flatstep.Adam(p, 0.05, mu_dtype="bfloat16") for p in (mine, array))
    for grad in grads:
        opt.step(Array(grad))
        other.step(grad)
    assert_same_bits(mine.data, array)
    mu, twin = (each.state_dict()["state"]["mu"] for each in (opt, other))
    assert mu.dtype == twin.dtype and mu.tobytes() == twin.tobytes()


@defaults
def test_state_crosses_over(case, tmp_path):
    """A state_dict and a file of one are the other's too, and both go on with the same bits."""
    rng = np.random.default_rng(3)
    arrays = some(rng)
    mine, twin = on_device(arrays), [array.copy() for array in arrays]
    opt, other = case.make(mine), case.make(twin)
    grads = [some(rng) for _ in range(4)]
    for grad in grads[:2]:
        opt.step([Array(g) for g in grad])
        other.step(grad)
    opt.save(tmp_path / "mine")
    other.save(tmp_path / "twin")
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "twin").read_bytes()
    saved = [opt.state_dict(), other.state_dict()]
    for grad in grads[2:]:
        opt.step([Array(g) for g in grad])
        other.step(grad)

    fresh, host = on_device(arrays), [array.copy() for array in arrays]
    again, on_host = case.make(fresh), case.make(host)
    again.load(tmp_path / "twin")
    on_host.load(tmp_path / "mine")
    again.load_state_dict(saved[1])
    on_host.load_state_dict(saved[0])
    for grad in grads[2:]:
        again.step([Array(g) for g in grad])
        on_host.step(grad)
    for parts in zip(mine, twin, fresh, host, strict=True):
        for part in parts:
            assert_same_bits(part.data if isinstance(part, Array) else part, parts[1])
    same_state(again, on_host)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    opt = flatstep.Adam([Array(np.ones(3)), Array(np.ones(2))], 0.1)
    opt.step([Array(np.ones(3)), Array(np.ones(2))])
    flatstep.Adam([np.zeros(3), np.zeros(5)], 0.1).save(tmp_path / "other")
    before = opt.state_dict(), [param.data.copy() for param in opt.params]
    with pytest.raises(ValueError, match=r"params'\]\[1\] has shape \(5,\)"):
        opt.load(tmp_path / "other")
    for param, array in zip(opt.params, before[1], strict=True):
        assert_same_bits(param.data, array)
    assert opt.state_dict()["count"] == before[0]["count"] == 1


def test_state_is_the_librarys_own():
    """Arrays of the parameter's library over the state itself, for as long as one of them is there."""
    opt = flatstep.Adam({"w": Array(np.ones(3, np.float32))}, 0.1, b1=0.5)
    opt.step({"w": Array(np.ones(3, np.float32))})
    mu = opt.state["mu"]["w"]
    assert isinstance(mu, Array) and mu.device == (CUDA, 0)
    assert mu.data.tolist() == [0.5] * 3
    mu.data[...] = 2
    assert opt.state_dict()["state"]["mu"]["w"].tolist() == [2.0] * 3
    del opt
    gc.collect()
    assert mu.data.tolist() == [2.0] * 3


def test_a_library_without_from_dlpack_gets_what_offers_it():
    class Plain(Array):
        __module__ = "reference"

        def __getattribute__(self, name):
            if name == "__array_namespace__":
                raise AttributeError(name)
            return super().__getattribute__(name)

    opt = flatstep.Adam(Plain(np.ones(3, np.float32)), 0.1)
    mu = opt.state["mu"]
    assert isinstance(mu, DeviceArray) and mu.shape == (3,) and mu.dtype == np.float32
    assert_same_bits(from_dlpack(mu).data, np.zeros(3, np.float32))
    assert mu.__dlpack_device__() == (CUDA, 0)
    with pytest.raises(BufferError, match="not as a copy"):
        mu.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="shared where it is"):
        mu.__dlpack__(dl_device=(1, 0))
    with pytest.raises(ValueError, match="stream 0"):
        mu.__dlpack__(stream=0)
    assert "dltensor_versioned" in repr(mu.__dlpack__(max_version=(1, 1)))
    assert '"dltensor"' in repr(mu.__dlpack__())


def test_nothing_is_kept():
    """Gradients are given back when a step returns, and also when it raises; parameters with the optimizer."""
    param, grad = Array(np.ones(3)), Array(np.ones(3))
    opt = flatstep.Adam([param, Array(np.ones(2))], 0.1)
    with pytest.raises(ValueError, match="shape"):
        opt.step([grad, Array(np.ones(1))])
    opt.step([grad, None])
    gone = [weakref.ref(grad.data), weakref.ref(grad), weakref.ref(param.data), weakref.ref(param)]
    del grad
    gc.collect()
    assert [ref() is None for ref in gone] == [True, True, False, False]
    del param, opt
    gc.collect()
    assert [ref() is None for ref in gone] == [True] * 4


def test_cycles_are_collected():
    """Also where what DLPack hands over holds the array itself, which the collector cannot see: torch's and CuPy's."""
    param, grad = Holding(np.ones(3)), Holding(np.ones(3))
    param.opt = flatstep.Adam(param, 0.1)
    param.opt.step(grad)
    gone = weakref.ref(param), weakref.ref(param.opt), weakref.ref(grad)
    del grad
    assert gone[2]() is None
    del param
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("kind", [CUDA, CUDA_MANAGED])
def test_kinds_of_capsules_and_memory(versioned, kind):
    """DLPack's older capsules, and memory that is the processor's too."""
    param = Array(np.ones(3), (kind, 0), versioned=versioned)
    opt = flatstep.Adam(param, 0.1)
    opt.step(Array(np.ones(3), versioned=not versioned))
    assert opt.target == "cuda"
    assert_same_bits(param.data.round(6), np.full(3, 0.9))


def test_launches_and_streams():
    """One preparation and one sweep, no wait; each array is made to wait for the stream of the first one's library."""
    params = [Array(np.ones(i % 5 + 1, np.float32)) for i in range(100)]
    grads = [Array(np.ones(i % 5 + 1, np.float32)) for i in range(100)]
    opt = flatstep.AMSGrad(params, 0.1)
    opt.step(grads)
    before = {what: stand_in.asked(what) for what in ("launches", "copies", "allocations", "waits")}
    for array in (*params, *grads):
        array.waited_for.clear()
    opt.step(grads)
    changes = {what: stand_in.asked(what) - count for what, count in before.items()}
    assert changes == {"launches": 2, "copies": 1, "allocations": 0, "waits": 0}  # the count goes up
    assert {stream for array in (*params, *grads) for stream in array.waited_for} == {LEGACY_STREAM}
    assert opt.target == "cuda"


def test_a_library_without_the_dtype_gets_what_offers_it():
    pytest.importorskip("ml_dtypes")

    class WithoutBrain(Array):
        def __array_namespace__(self):
            def from_dlpack(lender):
                raise NotImplementedError("bfloat16")  # CuPy 13

            return SimpleNamespace(from_dlpack=from_dlpack)

    mu = flatstep.Adam(WithoutBrain(np.ones(3, np.float32)), 0.1, mu_dtype="bfloat16").state["mu"]
    assert isinstance(mu, DeviceArray) and mu.dtype == "bfloat16" and not mu.to_host().any()


class Memory(np.ndarray):
    """Somebody's."""


class Holding(Array):
    """What it lends holds the array itself, not only its memory."""

    def __dlpack__(self, **asked):
        own, self.data = self.data, self.data.view(Memory)
        self.data.owner = self
        try:
            return super().__dlpack__(**asked)
        finally:
            self.data = own


class Other(Array):
    """Of a second library, on the same device."""


@pytest.fixture
def streams(monkeypatch):
    """Those on which each of the two libraries works now."""
    own, other = stand_in.make_stream(), stand_in.make_stream()
    monkeypatch.setattr(Array, "stream", own)
    monkeypatch.setattr(Other, "stream", other)
    return own, other


def test_a_librarys_own_stream_is_used(streams):
    """As its arrays name it, anew at each step."""
    param, grad = Array(np.ones(3)), Array(np.ones(3))
    opt = flatstep.Adam(param, 0.1)
    opt.step(grad)
    assert stand_in.last_stream() == streams[0]
    param.stream, grad.stream = streams[::-1]
    opt.step(grad)
    assert stand_in.last_stream() == streams[1]
    assert grad.waited_for == list(streams)


def test_a_library_that_names_its_stream_in_c_waits_for_nothing(streams):
    """Its arrays are in the order of the stream on which they are stepped; those on another stream of it are not."""

    def current_stream(kind: int, index: int, out: int) -> int:
        ctypes.c_void_p.from_address(out).value = now
        return 0

    class InC(Array):
        __dlpack_c_exchange_api__ = capsule_of(current_stream=current_stream)

    now = streams[0]
    param, grad = InC(np.ones(3)), InC(np.ones(3))
    opt = flatstep.Adam(param, 0.1)
    opt.step(grad)
    assert stand_in.last_stream() == now
    assert grad.waited_for == [NO_STREAM]
    now = streams[1]
    opt.step(grad)
    assert stand_in.last_stream() == now
    assert grad.waited_for == [NO_STREAM] * 2
    other = flatstep.Adam(Array(np.ones(3)), 0.1)  # whose library works on the first stream
    other.step(grad)
    assert stand_in.last_stream() == streams[0]
    assert grad.waited_for[2:] == [streams[0]]


@pytest.mark.parametrize("seed", range(20))
def test_two_libraries_go_on_after_the_step(streams, seed):
    """The one whose stream it takes, and the one that only gave the gradients; who reads state, too."""
    size = 300 + seed
    param, grad = Array(np.ones(size)), Other(np.ones(size))
    opt = flatstep.Adam(param, 0.1, b1=0.5)
    seen = {}
    with stand_in.late():
        opt.step(grad)
        for stream in streams:
            stand_in.run(stream, lambda stream=stream: seen.update({stream: param.data.copy()}))
        third = stand_in.make_stream()
        mu = opt._state.views("mu")[0]
        capsule = mu.__dlpack__(stream=third)
        stand_in.run(third, lambda: seen.update({third: from_dlpack(mu).data.copy()}))
    expected = {streams[0]: 0.9, streams[1]: 0.9, third: 0.5}
    assert {stream: array.round(6).tolist() for stream, array in seen.items()} == {
        stream: [value] * size for stream, value in expected.items()
    }
    del capsule


def test_a_library_that_does_not_name_its_stream_is_waited_for():
    """Nothing could tell it to go on after the step, nor that its gradients are still read."""
    param, grad = Array(np.ones(300)), Other(np.ones(300))
    opt = flatstep.Adam(param, 0.1)
    with stand_in.late():
        opt.step(grad)
        assert (param.data == 1).all()
        grad.stream = None
        opt.step(grad)
        assert_same_bits(param.data.round(6), np.full(300, 0.8))


def test_several_devices():
    """One launch each, together with the processor's part; what is rejected on one is done on none."""
    rng = np.random.default_rng(4)
    arrays = [numbers(rng, 100 + i, np.float32) for i in range(6)]
    mine = [Array(a.copy(), (CUDA, i % 3)) if i % 3 < 2 else a.copy() for i, a in enumerate(arrays)]
    opt, other = flatstep.AMSGrad(mine, 0.1), flatstep.AMSGrad(arrays, 0.1)
    launches = stand_in.asked("launches")

    def there(grads):
        return [Array(g, (CUDA, i % 3)) if i % 3 < 2 else g for i, g in enumerate(grads)]

    for step in range(3):
        grads = [numbers(rng, 100 + i, np.float32) for i in range(6)]
        before = [np.array(getattr(p, "data", p)) for p in mine]
        with pytest.raises(ValueError, match=r"grads\[4\] has shape"):
            opt.step(there([*grads[:4], grads[3], grads[5]]))
        for param, array in zip(mine, before, strict=True):
            assert_same_bits(param.data if isinstance(param, Array) else param, array)
        opt.step(there(grads))
        other.step(grads)
        assert stand_in.asked("launches") - launches == 4 * (step + 1)
    for param, array in zip(mine, arrays, strict=True):
        assert_same_bits(param.data if isinstance(param, Array) else param, array)
    same_state(opt, other)
    assert opt.state["mu"][1].device == (CUDA, 1)


REJECTED = {
    "of the host's": (lambda: np.ones(3), r"grads\['w'\] is a numpy.ndarray .*on the CPU, expected one on cuda:0"),
    "elsewhere": (
        lambda: Array(np.ones(3), (CUDA, 1)),
        r"is a foreign.Array of dtype float64 on cuda:1, expected one on cuda:0; move",
    ),
    "no array": (lambda: [1.0, 1.0, 1.0], r"grads\['w'\] is a builtins.list, expected an array on a device"),
    "wrong shape": (lambda: Array(np.ones(2)), r"grads\['w'\] has shape \(2,\), expected \(3,\)"),
    "wrong dtype": (lambda: Array(np.ones(3, np.float32)), r"grads\['w'\] has dtype float32, expected float64"),
    "odd dtype": (lambda: Array(np.ones(3, np.int16)), r"grads\['w'\] has dtype int16, expected float64"),
}


@pytest.mark.parametrize("make, message", REJECTED.values(), ids=REJECTED)
def test_gradients_that_are_rejected(make, message):
    param, host = Array(np.ones(3)), np.ones(3)
    opt = flatstep.Adam({"h": host, "w": param}, 0.1)
    with pytest.raises((TypeError, ValueError), match=message):
        opt.step({"h": np.ones(3), "w": make()})
    assert (host == 1).all() and (param.data == 1).all() and opt.count == 0
    opt.step({"h": np.ones(3), "w": Array(np.ones(3))})
    assert_same_bits(param.data, host)
    assert opt.target == f"{flatstep.targets()[0]}, cuda"


def test_gradients_on_a_device_for_parameters_that_are_not():
    with pytest.raises(TypeError, match="grads is a foreign.Array of dtype float64, expected a NumPy array of float16"):
        flatstep.Adam(np.ones(3), 0.1).step(Array(np.ones(3)))


class Elsewhere(Array):
    lends_on = (CUDA, 1)


class Copying(Array):
    lends_copies = True


def test_gradients_may_be_copies_on_the_same_device():
    param = Array(np.ones(3))
    opt = flatstep.Adam(param, 0.1)
    opt.step(Copying(np.ones(3)))
    with pytest.raises(TypeError, match="grads is a .*Elsewhere .*: its memory is not on the device of which it says"):
        opt.step(Elsewhere(np.ones(3)))
    assert_same_bits(param.data.round(6), np.full(3, 0.9))


def test_parameters_that_are_rejected():
    for param, message in (
        (Array(np.ones(3, np.int16)), "params has dtype int16, expected float16, float32 or float64"),
        (Array(np.ones(3), read_only=True), "params is read-only"),
        (Array(np.ones((4, 4))[:, ::2]), "params has gaps"),
        (
            Elsewhere(np.ones(3)),
            "params is a .*Elsewhere that cannot be shared by DLPack: its memory is not on the dev",
        ),
        (Copying(np.ones(3)), "params is a .*Copying that cannot be shared by DLPack: it lends copies"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            flatstep.Adam(param, 0.1)
    both = Array(np.ones(4))
    with pytest.raises(ValueError, match=r"params\[1\] shares memory with params\[0\]"):
        flatstep.Adam([both, Array(both.data[2:])], 0.1)
    with pytest.raises(TypeError, match="params is on a CUDA device, expected an array in the host's memory"):
        flatstep.flatten(both)


def test_parameters_that_have_moved_are_rejected():
    param = Array(np.ones(3))
    opt = flatstep.Adam({"w": param}, 0.1)
    before, param.data = param.data, np.ones(3)
    with pytest.raises(ValueError, match=r"params\['w'\] has another shape, dtype or place in memory"):
        opt.step({"w": Array(np.ones(3))})
    assert (before == 1).all() and (param.data == 1).all() and opt.count == 0


def test_files_of_parameters_that_have_moved_are_rejected(tmp_path):
    """Nothing is read from, nor written to, where they were."""
    param = Array(np.ones(3))
    opt = flatstep.Adam({"w": param}, 0.1)
    opt.save(tmp_path / "saved")
    before, param.data = param.data, np.full(3, 2.0)
    for use in (opt.save, opt.load):
        with pytest.raises(ValueError, match=r"params\['w'\] has another shape, dtype or place in memory"):
            use(tmp_path / "saved")
    assert (before == 1).all() and (param.data == 2).all()
    param.data = before
    before[...] = 3
    opt.load(tmp_path / "saved")
    assert (before == 1).all()


def test_state_as_a_gradient_is_rejected():
    param = Array(np.ones(3))
    opt = flatstep.Adam(param, 0.1)
    with pytest.raises(ValueError, match="grads shares memory with the optimizer's state"):
        opt.step(opt.state["mu"])
    with pytest.raises(ValueError, match="grads shares memory with params"):
        opt.step(param)


def test_captures_are_rejected():
    param = Array(np.ones(3))
    opt = flatstep.Adam(param, 0.1)
    with stand_in.capturing():
        with pytest.raises(RuntimeError, match="part of a CUDA graph, whose replays would not be counted"):
            opt.step(Array(np.ones(3)))
        with pytest.raises(RuntimeError, match="cannot become part of a CUDA graph"):
            opt.state_dict()
        with pytest.raises(RuntimeError, match="making an optimizer's state cannot"):
            flatstep.Adam(Array(np.ones(3)), 0.1)
    assert (param.data == 1).all() and opt.count == 0


def test_launches_that_fail_change_nothing():
    """Nor what is the processor's to step, which cannot fail."""
    param, host = Array(np.ones(3)), np.ones(3)
    opt = flatstep.Adam([host, param], 0.1)
    stand_in.functions().stand_in_fail_launches(1)
    try:
        with pytest.raises(RuntimeError, match="a planned failure"):
            opt.step([np.ones(3), Array(np.ones(3))])
    finally:
        stand_in.functions().stand_in_fail_launches(0)
    assert (host == 1).all() and (param.data == 1).all() and opt.count == 0


def test_captures_of_another_library_are_rejected(streams):
    """Whose stream could not wait for the step."""
    param = Array(np.ones(3))
    opt = flatstep.Adam(param, 0.1)
    with stand_in.capturing(stream=streams[1]), pytest.raises(RuntimeError, match="part of a CUDA graph"):
        opt.step(Other(np.ones(3)))
    assert (param.data == 1).all() and opt.count == 0


def test_interrupts_while_loading_change_nothing(tmp_path):
    """Whichever of the arrays' libraries is asked for its stream when a signal strikes."""

    class Interrupting(Array):
        asked, at = 0, -1

        @property
        def __cuda_array_interface__(self):
            Interrupting.asked += 1
            if Interrupting.asked == Interrupting.at:
                raise KeyboardInterrupt
            return super().__cuda_array_interface__

    params = [Interrupting(np.ones(3)), Interrupting(np.ones(2))]
    opt = flatstep.AMSGrad(params, 0.1)
    other = flatstep.AMSGrad([np.full(3, 2.0), np.full(2, 2.0)], 0.1)
    other.step([np.ones(3), np.ones(2)])
    other.save(tmp_path / "other")
    for use in (lambda: opt.load(tmp_path / "other"), lambda: opt.load_state_dict(other.state_dict())):
        Interrupting.asked, Interrupting.at, interrupts = 0, 1, 0
        while True:
            try:
                use()
            except KeyboardInterrupt:
                interrupts += 1
                Interrupting.asked, Interrupting.at = 0, -1
                assert all((param.data == 1).all() for param in params) and opt.count == 0
                assert not any(view.any() for views in opt.state_dict()["state"].values() for view in views)
                Interrupting.asked, Interrupting.at = 0, interrupts + 1
                continue
            break
        assert interrupts > 5
        Interrupting.at = -1
        assert opt.count == 1
        opt.load_state_dict(flatstep.AMSGrad([np.ones(3), np.ones(2)], 0.1).state_dict())
        for param in params:
            param.data[...] = 1


def test_failures_change_nothing():
    """Whichever call fails, when making an optimizer and in its step."""

    def attempt(after, act):
        with stand_in.failing(after):
            try:
                act()
            except (MemoryError, RuntimeError) as error:
                if "planned: " not in str(error):  # a kernel that cannot be loaded is named first
                    raise
                return False
        return True

    def until_it_works(act, check=lambda: None):
        failures = 0
        while not attempt(failures, act):
            failures += 1
            check()
        assert failures > 2

    param, host = Array(np.ones(300)), np.ones(300)
    made = []
    until_it_works(lambda: made.append(flatstep.AMSGrad([host, param], 0.1)))
    (opt,) = made

    def unchanged():
        assert (param.data == 1).all() and (host == 1).all() and opt.count == 0

    until_it_works(lambda: opt.step([np.ones(300), Array(np.ones(300))]), unchanged)
    assert_same_bits(param.data, host)
    assert opt.count == 1
