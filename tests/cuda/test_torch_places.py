"""One step of flatstep.torch's core over parameters on several devices: emulated ones, and the CPU."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack

import numpy as np
import pytest

import stand_in
from cases import assert_same_bits, numbers
from flatstep import _core
from foreign import ExchangeAPI, capsule_of
from torch_cases import torch

pytestmark = pytest.mark.stand_in

KEYS = ["step", "exp_avg", "exp_avg_sq"]


def exchange_api() -> object:
    """torch's own, which says of each Tensor below that it lies on the device that it names."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    own = ExchangeAPI.from_address(pointer(torch.Tensor.__dlpack_c_exchange_api__, b"dlpack_exchange_api"))

    def describe(tensor: Tensor, out: int) -> int:
        failed = own.describe(tensor._tensor, out)
        kind = {"cpu": 1, "cuda": 2}[tensor.device.type]
        (ctypes.c_int32 * 2).from_address(out + 8)[:] = kind, tensor.device.index or 0
        return failed

    def current_stream(kind: int, index: int, out: int) -> int:
        ctypes.c_void_p.from_address(out).value = 0
        return 0

    return capsule_of(describe=describe, current_stream=current_stream)


class Tensor:
    """A tensor of torch's in the processor's memory, which the table above places on another device."""

    def __init__(self, array: np.ndarray, device: str) -> None:
        self._tensor = torch.from_numpy(array.copy())
        self.device = torch.device(device)
        self.grad: Tensor | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._tensor, name)


class Model:
    """A parameter on each of the devices, and what steps them."""

    def __init__(self, *devices: str) -> None:
        rng = np.random.default_rng(3)
        self.params = [Tensor(numbers(rng, (200,), np.float32), device) for device in devices]
        self.state = {}
        for param, device in zip(self.params, devices, strict=True):
            param.grad = Tensor(numbers(rng, (200,), np.float32), device)
            slots = {key: Tensor(np.zeros(200, np.float32), device) for key in KEYS[1:]}
            self.state[param] = {"step": Tensor(np.zeros((), np.float32), device), **slots}
        self.stepper = _core.TorchStepper([("adam", KEYS)], (Tensor,), exchange_api(), [stand_in.cuda_backend()])

    def step(self, capturable: bool = True) -> None:
        row = 0, 0.1, 1.0, 0.0, 0.0, 0.0, *[{"b1": 0.9, "b2": 0.99}.get(name, 0.0) for name in HYPERPARAMETERS]
        unready, stepped = self.stepper.step(
            [(self.params, row, 0)], self.state, {}, [], capturable, str, 1, [], [], None
        )
        assert not unready
        assert stepped == self.params

    def values(self) -> list[np.ndarray]:
        return [tensor.numpy().copy() for p in self.params for tensor in (p, *self.state[p].values())]


HYPERPARAMETERS = _core.hyperparameters("adam")


def same(ours, theirs):
    for own, other in zip(ours, theirs, strict=True):
        assert_same_bits(own, other)


def test_each_device_steps_what_it_has():
    """With the bits of the processor: tables lie on each device, and each device's kernels run there."""
    apart, here = Model("cuda:0", "cuda:1", "cpu"), Model("cpu", "cpu", "cpu")
    before = stand_in.asked("launches")
    for _ in range(3):
        apart.step()
        here.step()
    same(apart.values(), here.values())
    assert stand_in.asked("launches") - before == 3 * 2 * 2


CAPTURES = {
    "another device": (["cuda:0", "cuda:1"], [0], "on cuda:0, but not what it does on cuda:1.*capture the current str"),
    "the first device": (["cuda:0", "cuda:1"], [1], "on cuda:1, but not what it does on cuda:0.*capture the current s"),
    "the processor": (["cuda:0", "cpu"], [0], "on cuda:0, but not what it does on the CPU.*own for the parameters on"),
    "the processor, first": (["cpu", "cuda:1"], [1], "on cuda:1, but not what it does on the CPU"),
}


@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize(("devices", "captured", "message"), CAPTURES.values(), ids=CAPTURES)
def test_a_graph_of_half_a_step_is_rejected(devices, captured, message, capturable):
    model = Model(*devices)
    model.step()
    before = model.values()
    with stand_in.capturing(*captured), pytest.raises(RuntimeError, match=message):
        model.step(capturable)
    same(model.values(), before)
    stand_in.functions().stand_in_replay()
    same(model.values(), before)
    model.step()


def test_a_graph_of_all_devices_is_not():
    model = Model("cuda:0", "cuda:1")
    model.step()
    before = model.values()
    with ExitStack() as stack:
        for device in (0, 1):
            stack.enter_context(stand_in.capturing(device))
        model.step()
    same(model.values(), before)


def test_devices_without_a_part_are_not_asked():
    """A step that this time has nothing to do on the device whose stream is not captured."""
    model = Model("cuda:0", "cuda:1")
    model.step()
    before = model.values()
    model.params.pop()
    with stand_in.capturing(0):
        model.step()
    same([tensor.numpy() for p in model.state for tensor in (p, *model.state[p].values())], before)
