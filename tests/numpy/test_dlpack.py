"""Arrays of other libraries: taken by DLPack without copying, or rejected by name."""

from __future__ import annotations

import numpy as np
import pytest

import flatstep
import foreign
from cases import DEFAULTS, assert_same_bits, numbers
from flatstep import _devices


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("case", DEFAULTS, ids=[case.name for case in DEFAULTS])
def test_torch_tensors(case, torch):
    """Parameters, gradients or both; dense, and gradients laid out otherwise."""
    rng = np.random.default_rng(0)
    start, grads = numbers(rng, (6, 70), np.float32), [numbers(rng, (6, 70), np.float32) for _ in range(4)]
    tensor, array = torch.from_numpy(start.copy()), start.copy()
    place = tensor.data_ptr()
    over_tensor, over_array = case.make({"w": tensor}), case.make({"w": array})
    assert over_tensor.params["w"] is tensor
    for count, grad in enumerate(grads):
        laid_out = torch.from_numpy(grad.T.copy()).T if count % 2 else torch.from_numpy(grad)
        over_tensor.step({"w": laid_out if count != 2 else grad})
        over_array.step({"w": laid_out})
    expected, _ = case.expect(start, grads)
    assert_same_bits(tensor.numpy(), expected)
    assert_same_bits(array, expected)
    assert tensor.data_ptr() == place


def test_empty_tensors(torch):
    """Have no address of their own, so that NumPy's arrays over them differ in theirs."""
    params = [torch.ones(3), torch.ones(0, 3)]
    opt = flatstep.Adam(params, 0.1)
    for _ in range(3):
        opt.step([torch.ones(3), torch.ones(0, 3)])
    assert params[0][0] < 1


def test_tensors_that_require_grad_are_rejected(torch):
    parameter = torch.nn.Parameter(torch.ones(3))
    frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    for leaf, kind in (
        (parameter, "torch.nn.parameter.Parameter"),
        (frozen, "torch.nn.parameter.Parameter"),
        (parameter * 2, "torch.Tensor"),
    ):
        with pytest.raises(TypeError, match=rf"params\['w'\] is a {kind}, which is autograd's; use flatstep.torch"):
            flatstep.Adam({"w": leaf}, 0.1)
    flatstep.Adam({"w": parameter.detach()}, 0.1).step({"w": torch.ones(3)})
    assert parameter[0] < 1
    with pytest.raises(TypeError, match=r"grads is a torch.Tensor of dtype torch.float32, .*\(by DLPack: .*grad"):
        flatstep.Adam(np.ones(3, np.float32), 0.1).step(parameter * 2)


def test_other_tensors_are_rejected(torch):
    with pytest.raises(TypeError, match="params has dtype int16, expected float16, float32 or float64"):
        flatstep.Adam(torch.ones(3, dtype=torch.int16), 0.1)
    with pytest.raises(TypeError, match="params is a torch.Tensor that cannot be shared by DLPack"):
        flatstep.Adam(torch.ones(3, dtype=torch.bfloat16), 0.1)
    with pytest.raises(ValueError, match=r"params\[0\] has gaps, repeats or reversed axes"):
        flatstep.Adam([torch.ones(3, 4)[:, ::2]], 0.1)
    with pytest.raises(TypeError, match=r"grads has dtype float64, expected float32 like its parameter; convert it to"):
        flatstep.Adam(torch.ones(3), 0.1).step(torch.ones(3, dtype=torch.float64))
    tensor = torch.ones(4)
    with pytest.raises(ValueError, match=r"params\[1\] shares memory with params\[0\]"):
        flatstep.Adam([tensor, tensor.numpy()], 0.1)


MOVES = {
    "data": lambda tensor, torch: setattr(tensor, "data", torch.full((3,), 5.0)),
    "set_": lambda tensor, torch: tensor.set_(torch.full((3,), 5.0)),
    "resize_": lambda tensor, torch: tensor.resize_(1000),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_tensors_that_have_moved_are_rejected(move, torch):
    """torch may free the old memory, where NumPy would go on."""
    tensor = torch.ones(3)
    opt = flatstep.Adam([tensor], 0.1)
    opt.step([torch.ones(3)])
    move(tensor, torch)
    now = tensor.clone()
    with pytest.raises(ValueError, match=r"params\[0\] has another shape, dtype or place in memory"):
        opt.step([torch.ones(3)])
    assert opt.count == 1
    assert torch.equal(tensor.nan_to_num(), now.nan_to_num())


def test_tensors_that_are_not_what_their_memory_is(torch):
    """Negated when read; or of a class that keeps its numbers elsewhere."""
    negated = torch.complex(torch.ones(3), torch.ones(3)).conj().imag
    other = torch.ones(3).as_subclass(type("Other", (torch.Tensor,), {}))
    for tensor, message in (
        (negated, "negated when read"),
        (other, "its class may keep"),
    ):
        with pytest.raises(TypeError, match=message):
            flatstep.Adam(tensor, 0.1)
        with pytest.raises(TypeError, match=message):
            flatstep.Adam(np.ones(3, np.float32), 0.1).step(tensor)


def test_interrupts_on_the_way_are_not_swallowed():
    class Interrupting:
        def __dlpack__(self, **_):
            raise KeyboardInterrupt

        def __dlpack_device__(self):
            return 1, 0

    with pytest.raises(KeyboardInterrupt):
        flatstep.Adam(np.ones(3), 0.1).step(Interrupting())


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy cannot ask for no copy")
def test_parameters_that_come_as_copies_are_rejected():
    """Nobody would see what a step makes of them. Gradients are only read."""

    class Copying:
        copied = np.ones(3)

        def __dlpack__(self, *, copy=None, **more):
            if copy is False:
                raise BufferError("only copies")
            return self.copied.__dlpack__(**more)

        def __dlpack_device__(self):
            return 1, 0

    with pytest.raises(TypeError, match=r"params\['w'\] is a .*Copying that cannot be shared by DLPack: only copies"):
        flatstep.Adam({"w": Copying()}, 0.1)
    param = np.ones(3)
    flatstep.Adam(param, 0.1).step(Copying())
    assert param[0] < 1


class Strange:
    """An array whose DLPack methods are given."""

    def __init__(self, capsule, device=lambda: (1, 0)):
        self._capsule, self._device = capsule, device

    def __dlpack__(self, **_):
        return self._capsule()

    def __dlpack_device__(self):
        return self._device()


def reject(*error):
    def raises():
        raise ValueError(*error)

    return raises


def on_device():
    """A capsule whose memory is on a CUDA device, although the array names the processor's."""
    capsule = np.ones(2, np.float32).__dlpack__()
    foreign.relabel(capsule, (foreign.CUDA, 0))
    return capsule


def negative():
    """A capsule that says it has -1 axes."""
    capsule = np.ones(2, np.float32).__dlpack__()
    foreign.relabel(capsule, (foreign.CPU, 0), ndim=-1)
    return capsule


STRANGE = {
    "another device than it names": (Strange(on_device), "it is not in the processor's memory"),
    "an error that UTF-8 cannot hold": (Strange(reject("file \udc80 gone")), r"file .udc80 gone"),
    "no capsule": (Strange(lambda: 3), "did not give a DLPack capsule"),
    "a negative number of axes": (Strange(negative), "its DLPack capsule has a negative number of axes"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_gradients_are_rejected(name):
    array, message = STRANGE[name]
    w = np.ones(2, np.float32)
    opt = flatstep.Adam(w, learning_rate=0.1)
    with pytest.raises(TypeError, match=rf"grads is a \S+Strange, .*by DLPack: .*{message}"):
        opt.step(array)
    assert opt.count == 0 and w.tolist() == [1, 1]


def test_gradients_without_memory_are_rejected(torch):
    grad = torch.ones(2)
    grad.untyped_storage().resize_(0)
    opt = flatstep.Adam(np.ones(2, np.float32), learning_rate=0.1)
    with pytest.raises(TypeError, match=r"by DLPack: it has no memory"):
        opt.step(grad)


def test_memory_that_the_processor_shares_with_a_device_is_taken():
    """Pinned and managed memory, by their numbers in DLPack."""
    for device in (3, foreign.CUDA_MANAGED):
        w, grad = np.ones(2, np.float32), np.full(2, 0.5, np.float32)

        def capsule(grad=grad, device=device):
            made = grad.__dlpack__()
            foreign.relabel(made, (device, 0))
            return made

        flatstep.Adam(w, learning_rate=0.1).step(Strange(capsule, lambda device=device: (device, 0)))
        assert_same_bits(w, np.full(2, 0.9, np.float32))


def test_jax_arrays():
    """Immutable, so no parameters; but gradients are only read."""
    jnp = pytest.importorskip("jax.numpy")
    array = jnp.ones(3)
    with pytest.raises(TypeError, match=r"params\['w'\] is a jax.*, which is immutable; use flatstep.jax"):
        flatstep.Adam({"w": array}, 0.1)
    param = np.ones(3, np.float32)
    flatstep.Adam(param, 0.1).step(array)
    assert param[0] < 1
    assert np.all(np.asarray(array) == 1)


def test_arrays_on_a_device_need_its_target(monkeypatch):
    """CuPy's, say."""
    monkeypatch.setattr(_devices, "backends", list)
    with pytest.raises(TypeError, match=r"params\['w'\] is a foreign.Array on a CUDA device, but .* no cuda target"):
        flatstep.Adam({"w": foreign.Array(np.ones(3))}, 0.1)
