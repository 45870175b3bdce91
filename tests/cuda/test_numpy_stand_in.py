"""NumPy's laws on an emulated device: every array counts as one on a CUDA device, gradients too."""

from __future__ import annotations

import pytest

# The same tests again, on the device.
from test_golden import *  # noqa: F403
from test_laws import *  # noqa: F403
from test_norm import *  # noqa: F403
from test_oracle import *  # noqa: F403
from test_per_leaf import *  # noqa: F403
from test_state_dict import *  # noqa: F403

import flatstep
import stand_in
from flatstep import _core, _devices, _optimizer
from flatstep._device_arrays import DeviceArray
from foreign import Array

pytestmark = pytest.mark.stand_in

del test_rounding_mode_of_the_caller, test_norms_in_any_floating_point_mode  # noqa: F821  of the processor's


@pytest.fixture(autouse=True)
def device(monkeypatch, request):
    if "AMSGrad-ema" in request.node.name:
        pytest.skip("averages are the processor's")
    stand_in.use_for_arrays(monkeypatch)
    step = flatstep.Optimizer.step

    def take(tree):
        return [DeviceArray(_core.borrow(Array(leaf), _devices.backends())) for leaf in tree.leaves]

    def step_there(self, grads, **more):
        own = self._tree.match(grads, "grads")
        step(self, self._tree.build([grad if grad is None else Array(grad) for grad in own]), **more)

    monkeypatch.setattr(_optimizer, "take_params", take)
    monkeypatch.setattr(_optimizer, "_shared", lambda view: view.shared().data)
    monkeypatch.setattr(flatstep.Optimizer, "step", step_there)


@pytest.fixture(params=[None])
def target(request):
    """The device is the target."""
    return request.param
