"""Memory: many tensors, no temporaries of a parameter's size, nothing that grows from step to step."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import flatstep
from cases import assert_same_bits, numbers

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")

RESIDENT = """
import gc, resource
import numpy as np, flatstep

def resident():  # bytes
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""


def run(code: str) -> list[int]:
    """The numbers that a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", RESIDENT + code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


def test_a_hundred_thousand_tensors():
    rng = np.random.default_rng(0)
    params, grads = (np.split(numbers(rng, 300_000, np.float32), 100_000) for _ in range(2))
    expected = np.concatenate(params)
    opt = flatstep.AMSGrad([param.copy() for param in params], 0.1)
    opt.step(grads)
    flatstep.AMSGrad(expected, 0.1).step(np.concatenate(grads))
    assert_same_bits(np.concatenate(opt.params), expected)
    with pytest.raises(ValueError, match=r"grads\[99999\] has shape \(4,\)"):
        opt.step([*grads[:-1], np.ones(4, np.float32)])


@linux
@pytest.mark.parametrize("grad", ["grad", "grad.T.copy().T", "np.broadcast_to(np.float32(1), param.shape)"])
def test_no_temporary_of_a_parameters_size(grad):
    """Not even where the gradient lies otherwise in memory than the parameter."""
    code = f"""
param = np.ones((4096, 4096), np.float32)
grad = np.ones_like(param)
opt = flatstep.AMSGrad(param, 0.1)
opt.step(grad)
given = {grad}
before = max(resident(), peak())
held = np.ones(max(before - resident(), 0) + 1, np.uint8)  # so that any more memory is a new peak
before = max(resident(), peak())
opt.step(given)
opt.step(given, grad_scale=0.5)
print(peak() - before)
"""
    (grown,) = run(code)
    assert grown < 4 * 2**20, "of a parameter of 64 MiB"


@linux
def test_memory_is_flat_over_steps():
    code = """
params = [np.ones(3, np.float32), np.ones((2, 2), order="F")]
opt = flatstep.OptimisticAdam(params, lambda count: 0.1, nesterov=False)
grads = [np.ones(3, np.float32), np.ones((2, 2))]
turns = [grads, [None, grads[1]], [grads[0], None]]
for count in range(1000):
    opt.step(turns[count % 3])
before = resident()
for count in range(100_000):
    opt.step(turns[count % 3])
print(resident() - before)
"""
    (grown,) = run(code)
    assert grown < 2**20


@linux
def test_optimizers_leave_nothing_behind():
    code = """
def once():
    opt = flatstep.AMSGrad([np.ones(1000), np.ones(1000)], 0.1)
    opt.step([np.ones(1000), np.ones(1000)])
    try:
        opt.step([np.ones(1000), np.ones(999)])
    except ValueError:
        pass
    return opt.state_dict()

for _ in range(100):
    once()
before = resident()
for _ in range(3000):
    once()
print(resident() - before)
"""
    (grown,) = run(code)
    assert grown < 4 * 2**20, "of 3,000 optimizers with 64 kB each"
