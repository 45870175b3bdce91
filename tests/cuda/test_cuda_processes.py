"""flatstep on a CUDA device, in processes of their own: what must be the first, or runs under a tool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

ON_THE_SECOND = """
import threading, torch
import flatstep, flatstep.torch

def step():
    param = torch.nn.Parameter(torch.ones(5, device="cuda:1"))
    param.grad = torch.ones_like(param)
    opts = flatstep.torch.Adam([param]), flatstep.Adam(param.detach(), 0.1)
    opts[0].step()
    for target, arguments in ((opts[0].step, ()), (opts[1].step, (param.grad,))):
        thread = threading.Thread(target=target, args=arguments)
        thread.start()
        thread.join()

step()
torch.cuda.synchronize("cuda:1")
assert torch.cuda.current_device() == 0
assert torch._C._cuda_hasPrimaryContext(1) and not torch._C._cuda_hasPrimaryContext(0)
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_no_context_on_a_device_that_is_not_used():
    """Not even from threads that have used none, and at the end of an optimizer."""
    done = subprocess.run([sys.executable, "-c", ON_THE_SECOND], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


FIRST_CAPTURED = """
from test_cuda_torch import DEFAULTS, DEVICE, SHAPES, give_grads, pair, same, torch
case = DEFAULTS[0]
here, there = pair(SHAPES)
opts = case.make(here), case.make(there)
give_grads(here, seed=0)
opts[0].step()
opts[1].load_state_dict(opts[0].state_dict())
opts[1].param_groups[0]["capturable"] = True
for param, other in zip(here, there, strict=True):
    other.data.copy_(param.data)
    other.grad = param.grad.to(DEVICE)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    opts[1].step()
for _ in range(2):
    graph.replay()
    opts[0].step()
same(opts, here, there)
"""


def test_the_first_step_of_a_process_may_be_captured():
    """As when training is resumed: kernels are loaded while the capture is under way, which CUDA forbids by default."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", FIRST_CAPTURED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_under_the_sanitizer(tool):
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("needs compute-sanitizer")
    program = (
        "import torch, flatstep.torch as f\n"
        "ps = [torch.nn.Parameter(torch.randn(n, device='cuda')) for n in (1, 63, 1025, 70001)]\n"
        "ps.append(torch.nn.Parameter(torch.randn(131, device='cuda')[1:]))\n"
        "opts = [f.AMSGrad(ps), f.OptimisticAdam(ps)]\n"
        "for opt in opts * 2:\n"
        "    for p in ps: p.grad = torch.randn_like(p)\n"
        "    opt.step()\n"
        "torch.cuda.synchronize()\n"
    )
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", program]
    # Without torch's cache each tensor has memory of its own, whose ends memcheck knows. (Of racecheck's races, which
    # are those in shared memory, there are none as long as kernels use none.)
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
