"""NumPy's laws on an emulated device: every array counts as one on a CUDA device, gradients too."""

from __future__ import annotations

import numpy as np
import pytest

# The same tests again, on the device.
from test_golden import *  # noqa: F403
from test_laws import *  # noqa: F403
from test_norm import *  # noqa: F403
from test_oracle import *  # noqa: F403
from test_per_leaf import *  # noqa: F403
from test_state_dict import *  # noqa: F403
from test_tail import *  # noqa: F403

import flatstep
import stand_in
from flatstep import _around, _core, _devices, _optimizer
from flatstep._device_arrays import DeviceArray
from flatstep._trees import Tree
from foreign import Array

pytestmark = pytest.mark.stand_in

# Of the processor's modes, and of NumPy's own arrays.
del test_rounding_mode_of_the_caller, test_norms_in_any_floating_point_mode  # noqa: F821
del test_parameters_that_cannot_be_written_are_not_swapped, test_gradients_that_numpy_cannot_zero  # noqa: F821


@pytest.fixture(autouse=True)
def device(monkeypatch):
    stand_in.use_for_arrays(monkeypatch)
    step = flatstep.Optimizer.step

    def take(tree):
        return [DeviceArray(_core.borrow(Array(leaf), _devices.backends())) for leaf in tree.leaves]

    def step_there(self, grads, **more):
        own = self._tree.match(grads, "grads")
        step(self, self._tree.build([grad if grad is None else Array(grad) for grad in own]), **more)

    norm_here = flatstep.global_norm

    def norm_there(grads):
        leaves = Tree(grads).leaves
        own = [Array(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        return norm_here(Tree(grads).build(own))

    monkeypatch.setattr(flatstep, "global_norm", norm_there)
    monkeypatch.setattr(_optimizer, "take_params", take)
    shared = lambda view: view.shared().data if isinstance(view, DeviceArray) else view  # noqa: E731
    for module in (_optimizer, _around):
        monkeypatch.setattr(module, "shared", shared)
    monkeypatch.setattr(flatstep.Optimizer, "step", step_there)


@pytest.fixture(params=[None])
def target(request):
    """The device is the target."""
    return request.param
