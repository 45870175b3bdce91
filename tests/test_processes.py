"""Threads and processes: how many a step starts, forks, steps from several Python threads."""

from __future__ import annotations

import subprocess
import sys
import threading

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
