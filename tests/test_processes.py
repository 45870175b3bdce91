"""Threads and processes: how many a step starts, forks, steps from several Python threads."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import flatstep
from cases import CASES, DEFAULTS, assert_same_bits, numbers

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts threads in /proc")


def run(code: str) -> list[str]:
    """What a fresh interpreter prints, word by word; it has a minute."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@linux
def test_a_large_step_starts_the_threads_it_is_given():
    """None for a small one, and none again for the next large one."""
    code = """
import os, numpy as np, flatstep
flatstep.set_num_threads(4)
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
for size in (30_000, 200_000, 200_000):
    flatstep.Adam(np.ones(size, np.float32), 0.1).step(np.ones(size, np.float32))
    print(count() - before)
"""
    assert run(code) == ["0", "3", "3"]


@linux
@pytest.mark.parametrize("on_openmp", [False, True], ids=["own threads", "OpenMP's threads"])
def test_step_after_fork(on_openmp):
    """Threads do not survive a fork: the child works alone, with the same bits, and does not hang."""
    code = f"""
import os, numpy as np, flatstep
flatstep.Optimizer._on_openmp = {on_openmp}
flatstep.set_num_threads(4)
grad = np.ones(200_000, np.float32)
param = np.ones_like(grad)
opt = flatstep.AMSGrad(param, 0.1)
opt.step(grad)
child = os.fork()
opt.step(grad)
os.write(1, f"{{flatstep.get_num_threads()}} {{param[-1]}}\\n".encode())  # whole, whoever else writes
os._exit(0) if child == 0 else os.waitpid(child, 0)
"""
    words = run(code)
    assert sorted(words[0::2]) == ["1", "4"]
    assert words[1] == words[3] != "1.0"


def test_steps_from_several_python_threads(threads):
    """Each thread steps an optimizer of its own, large enough to want the helpers that another one has."""
    threads(4)
    rng = np.random.default_rng(0)
    grads = [numbers(rng, 150_000, np.float32) for _ in range(3)]
    chosen = [CASES[0], DEFAULTS[-1], CASES[0], DEFAULTS[-1]]
    params = [np.ones(150_000, np.float32) for _ in chosen]
    barrier = threading.Barrier(len(chosen))

    def work(case, param):
        opt = case.make(param)
        barrier.wait()
        for _ in range(10):
            for grad in grads:
                opt.step(grad)

    running = [threading.Thread(target=work, args=pair) for pair in zip(chosen, params, strict=True)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for case, param in zip(chosen[:2], params[:2], strict=True):
        expected, _ = case.expect(np.ones(150_000, np.float32), grads * 10)
        assert_same_bits(param, expected)
    assert_same_bits(params[2], params[0])
    assert_same_bits(params[3], params[1])


def test_more_threads_than_processors(threads):
    threads(64)
    case, rng = DEFAULTS[0], np.random.default_rng(1)
    param, grad = numbers(rng, 2_000_003, np.float32), numbers(rng, 2_000_003, np.float32)
    expected, _ = case.expect(param, [grad])
    case.make(param).step(grad)
    assert_same_bits(param, expected)
    assert flatstep.get_num_threads() == 64


@pytest.mark.parametrize("on_openmp", [False, True], ids=["own threads", "OpenMP's threads"])
@pytest.mark.parametrize("order", ["torch, flatstep", "flatstep, torch"])
def test_beside_torch(order, on_openmp):
    """Imported before and after torch, stepping between its operations."""
    pytest.importorskip("torch")
    code = f"""
import {order}
import numpy as np
flatstep.Optimizer._on_openmp = {on_openmp}
param, grad = np.ones(300_000, np.float32), np.ones(300_000, np.float32)
opt = flatstep.Adam(param, 0.1)
for _ in range(5):
    torch.ones(500, 500) @ torch.ones(500, 500)
    opt.step(grad)
print(float(param[0]) == float(param[-1]), round(float(param[0]), 4))
"""
    assert run(code) == ["True", "0.5"]


def step_in_a_child(size: int) -> float:
    param = np.ones(size, np.float32)
    flatstep.Adam(param, 0.1).step(np.ones(size, np.float32))
    return float(param[-1])


def test_spawn():
    """After steps here, a spawned process steps with threads of its own."""
    param = np.ones(200_000, np.float32)
    flatstep.Adam(param, 0.1).step(np.ones(200_000, np.float32))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(step_in_a_child, 200_000).result(timeout=60) == float(param[-1])


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="needs Python 3.13 or later")
def test_the_import_leaves_the_gil_as_it_was():
    """Off, in a free-threaded interpreter."""
    code = "import sys; print(sys._is_gil_enabled()); import flatstep; print(sys._is_gil_enabled())"
    before, after = run(code)
    assert before == after
