"""flatstep.torch among threads and processes: whose thread count holds, one OpenMP runtime, forks, workers."""

from __future__ import annotations

import re
import threading

import pytest

import flatstep.torch as front
from processes import linux, run
from repository import ROOT
from torch_cases import DEFAULTS, give_grads, same_bits, torch, twins

SETUP = """
import os, torch, flatstep, flatstep.torch
torch.set_num_threads(1)
params = [torch.nn.Parameter(torch.ones(100_000)) for _ in range(2)]
for param in params:
    param.grad = torch.ones(100_000)
opt = flatstep.torch.AMSGrad(params, lr=0.125)
opt.step()
"""


def test_the_import_of_flatstep_leaves_torch_out():
    assert run("import sys, flatstep; print('torch' in sys.modules)") == ["False"]


@pytest.mark.parametrize(
    "torch, message",
    [
        ("None", "or later: pip install "),  # as if it were not installed
        ("SimpleNamespace(Tensor=object, __version__='2.9.1')", "or later, found 2.9.1: pip install --upgrade "),
    ],
)
def test_the_import_says_which_torch_to_install(torch, message):
    """It names the bound of the package's extra."""
    code = f"""
import sys
from types import SimpleNamespace
sys.modules["torch"] = {torch}
try:
    import flatstep.torch
except ImportError as error:
    print(error)
"""
    bound = re.search(r'^torch = \["torch>=([\d.]+)"\]$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
    assert " ".join(run(code)).startswith(f'flatstep.torch needs PyTorch {bound} {message}"flatstep[torch]"')


@pytest.mark.slow
@linux
def test_torchs_thread_count_holds():
    """It may change between steps, and holds in new threads of Python; flatstep's wins where it was set."""
    code = f"""{SETUP}
import threading, time
started = lambda: len(os.listdir("/proc/self/task"))
before = started()
opt.step()
print(started() - before)
for count in (3, 5):
    torch.set_num_threads(count)
    opt.step()
    print(started() - before)
def elsewhere():
    before = started()
    opt.step()
    print(started() - before)
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
while started() - before > 4:  # its team ends some time after it
    time.sleep(0.01)
flatstep.set_num_threads(8)
opt.step()
print(started() - before)
print(torch.get_num_threads())
"""
    assert run(code) == ["0", "2", "4", "4", "7", "5"]


@pytest.mark.slow
@linux
@pytest.mark.parametrize("order", ["torch, flatstep", "flatstep, torch"])
def test_one_openmp(order):
    """torch's, whichever was imported first: two would keep each other's threads from the processors."""
    code = f"""
import {order}, flatstep.torch, os
torch.set_num_threads(2)
param = torch.nn.Parameter(torch.ones(300_000))
param.grad = torch.ones(300_000) * torch.ones(300_000)
before = set(os.listdir("/proc/self/task"))
flatstep.torch.Adam([param]).step()
assert set(os.listdir("/proc/self/task")) == before, "the step ran on threads of its own"
paths = {{line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}}
names = [os.path.basename(path) for path in paths]
print(*[name for name in names if name.startswith(("libgomp", "libomp", "libiomp"))])
"""
    assert len(run(code)) == 1


@linux
def test_step_after_fork():
    """After a step with several threads: parent and child go on alike, and both may fork again."""
    code = f"""{SETUP}
torch.set_num_threads(4)
opt.step()
child = os.fork()
opt.step()
grandchild = os.fork() if child == 0 else 1
opt.step()
os.write(1, f"{{opt.state[params[0]]['step'].item()}} {{params[1][-1].item()}}\\n".encode())
if child == 0 and grandchild == 0 or child == 0 and os.waitpid(grandchild, 0)[1] == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    words = run(code)
    assert words[-1] == "0"
    assert words[:-1] == ["4.0", words[1]] * 3


@pytest.mark.slow
@linux
def test_data_loader_workers():
    """Forked after steps with several threads; they step optimizers of their own, and the parent goes on meanwhile."""
    code = f"""{SETUP}
class Stepped(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        param = torch.nn.Parameter(torch.full((50_000,), float(index)))
        param.grad = torch.ones_like(param)
        flatstep.torch.Adam([param], lr=1.0, eps=0.0).step()
        return param.detach()[-1]

torch.set_num_threads(4)
opt.step()
for batch in torch.utils.data.DataLoader(Stepped(), num_workers=2, multiprocessing_context="fork", timeout=50):
    opt.step()
    print(batch.item())
print(opt.state[params[0]]["step"].item())
"""
    assert run(code) == ["-1.0", "0.0", "1.0", "2.0", "6.0"]


def test_two_threads_step_two_optimizers():
    ours, theirs = twins([(60_000,), (50_000,)])
    for params in (ours, theirs):
        give_grads(params, seed=0)
    cases = [DEFAULTS[0], DEFAULTS[-1]]
    barrier = threading.Barrier(2)

    def work(case, param):
        opt = case.make([param])
        barrier.wait()
        for _ in range(20):
            opt.step()

    running = [threading.Thread(target=work, args=pair) for pair in zip(cases, ours, strict=True)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for case, param in zip(cases, theirs, strict=True):
        opt = case.make([param])
        for _ in range(20):
            opt.step()
    same_bits(ours, theirs)


def test_two_threads_step_one_optimizer():
    """Who comes second is rejected, and then has done nothing: what was stepped is what was counted."""
    (ours,), (theirs,) = twins([(400_000,)])
    give_grads([ours], [theirs], seed=0)
    opt, peer = front.AMSGrad([ours]), front.AMSGrad([theirs])
    opt.step()
    barrier, steps, rejected = threading.Barrier(4), [], []

    def work():
        barrier.wait()
        for _ in range(30):
            try:
                opt.step()
                steps.append(1)
            except RuntimeError as error:
                rejected.append(str(error))

    running = [threading.Thread(target=work) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(steps) + len(rejected) == 120 and all("in use" in text for text in rejected)
    for _ in range(1 + len(steps)):
        peer.step()
    assert opt.state[ours]["step"] == 1 + len(steps)
    same_bits(ours, theirs)


def test_threads_need_no_turns_with_torch():
    """Backward and step of one model while another thread trains another."""

    def train(results, index):
        model = torch.nn.Linear(64, 64)
        with torch.no_grad():
            for param in model.parameters():
                param.fill_(0.01)
        opt = front.AdamW(model.parameters(), lr=0.1)
        for _ in range(30):
            opt.zero_grad()
            model(torch.ones(16, 64)).square().sum().backward()
            opt.step()
        results[index] = model.weight.detach()

    results = [None] * 3
    running = [threading.Thread(target=train, args=(results, index)) for index in range(2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    train(results, 2)
    same_bits(results[:2], results[1:])
