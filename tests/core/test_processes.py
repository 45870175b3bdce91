"""Threads and processes: how many a step starts, forks, steps from several Python threads."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from flatstep.bench import openmp

import flatstep
from cases import CASES, DEFAULTS, assert_same_bits, numbers
from processes import linux, run


@linux
def test_a_large_step_starts_the_threads_it_is_given():
    """None for a small one, and none again for the next large one."""
    code = """
import os, numpy as np, flatstep
flatstep.set_num_threads(4)
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
for size in (30_000, 600_000, 600_000):
    flatstep.Adam(np.ones(size, np.float32), 0.1).step(np.ones(size, np.float32))
    print(count() - before)
"""
    assert run(code) == ["0", "3", "3"]


@linux
@pytest.mark.parametrize("on_openmp", [False, True], ids=["own threads", "OpenMP's threads"])
def test_step_after_fork(on_openmp):
    """Threads do not survive a fork: the child starts some of its own, with the same bits, and does not hang."""
    code = f"""
import os, numpy as np, flatstep
from flatstep.bench import openmp
flatstep.Optimizer._on_openmp = {on_openmp} and openmp.load()
flatstep.set_num_threads(4)
grad = np.ones(600_000, np.float32)
param = np.ones_like(grad)
opt = flatstep.AMSGrad(param, 0.1)
opt.step(grad)
child = os.fork()
opt.step(grad)
os.write(1, f"{{flatstep.get_num_threads()}} {{param[-1]}}\\n".encode())  # whole, whoever else writes
os._exit(0) if child == 0 else os.waitpid(child, 0)
"""
    words = run(code)
    assert words[0::2] == ["4", "4"]
    assert words[1] == words[3] != "1.0"


@linux
def test_fork_during_a_step_of_another_thread():
    """The child has no such thread: it is told that, instead of to wait for it, and can make another optimizer."""
    code = """
import os, threading, numpy as np, flatstep
forked, stepping = threading.Event(), threading.Event()

def schedule(count):
    stepping.set()
    forked.wait(50)
    return 0.1

def attempt(action):
    try:
        action()
        print("no", "error")
    except RuntimeError as error:
        print("forked" if "forked while another thread was in a step" in str(error) else error, opt.count, flush=True)

param, grad = np.ones(3), np.ones(3)
opt = flatstep.Adam(param, schedule)
thread = threading.Thread(target=opt.step, args=(grad,))
thread.start()
stepping.wait(50)
child = os.fork()
if child == 0:
    attempt(lambda: opt.step(grad))
    attempt(opt.state_dict)
    flatstep.Adam(param, 0.1).step(grad)
    os._exit(0)
os.waitpid(child, 0)
forked.set()
thread.join()
opt.step(grad)
print("parent", opt.count)
"""
    assert run(code) == ["forked", "0", "forked", "0", "parent", "2"]


def test_steps_from_several_python_threads(threads):
    """Each thread steps an optimizer of its own, large enough to want the helpers that another one has."""
    threads(4)
    rng = np.random.default_rng(0)
    grads = [numbers(rng, 600_000, np.float32) for _ in range(3)]
    chosen = [CASES[0], DEFAULTS[-1], CASES[0], DEFAULTS[-1]]
    params = [np.ones(600_000, np.float32) for _ in chosen]
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
        expected, _ = case.expect(np.ones(600_000, np.float32), grads * 10)
        assert_same_bits(param, expected)
    assert_same_bits(params[2], params[0])
    assert_same_bits(params[3], params[1])


def test_more_threads_than_processors(threads):
    threads(64)
    case, rng = DEFAULTS[0], np.random.default_rng(1)
    param, grad = numbers(rng, 10_000_003, np.float32), numbers(rng, 10_000_003, np.float32)
    expected, _ = case.expect(param, [grad])
    case.make(param).step(grad)
    assert_same_bits(param, expected)
    assert flatstep.get_num_threads() == 64


@pytest.mark.slow
@pytest.mark.parametrize("on_openmp", [False, True], ids=["own threads", "OpenMP's threads"])
@pytest.mark.parametrize("order", ["torch, flatstep", "flatstep, torch"])
def test_beside_torch(order, on_openmp):
    """Imported before and after torch, stepping between its operations."""
    pytest.importorskip("torch")
    code = f"""
import {order}
import numpy as np
flatstep.Optimizer._on_openmp = {on_openmp}
param, grad = np.ones(600_000, np.float32), np.ones(600_000, np.float32)
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
    param = np.ones(600_000, np.float32)
    flatstep.Adam(param, 0.1).step(np.ones(600_000, np.float32))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(step_in_a_child, 600_000).result(timeout=60) == float(param[-1])


def test_an_import_in_a_second_interpreter_does_no_harm_here():
    """NumPy cannot be imported, and is asked for before our own compiled core."""
    code = """
import numpy as np, flatstep
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
try:
    interpreters.run_string(interpreters.create(), "import flatstep")
except Exception:
    pass
flatstep.Adam(np.ones(3), 0.1).step(np.ones(3))
print("stepped")
"""
    assert run(code) == ["stepped"]


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="needs Python 3.13 or later")
def test_the_import_leaves_the_gil_as_it_was():
    """Off, in a free-threaded interpreter."""
    code = "import sys; print(sys._is_gil_enabled()); import flatstep; print(sys._is_gil_enabled())"
    before, after = run(code)
    assert before == after


@linux
def test_helpers_do_their_part():
    """Processor time is spent in more threads than the caller's."""
    code = """
import os, numpy as np, flatstep
flatstep.set_num_threads(2)
param, grad = np.ones(4_000_000, np.float32), np.ones(4_000_000, np.float32)
opt = flatstep.AMSGrad(param, 0.1)
before = set(os.listdir("/proc/self/task"))
for _ in range(100):
    opt.step(grad)
for task in set(os.listdir("/proc/self/task")) - before:
    fields = open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()
    print(int(fields[11]) + int(fields[12]))
"""
    (ticks,) = run(code)
    assert int(ticks) > 0


@linux
def test_openmps_threads_are_used_where_chosen():
    """OpenMP's own limit holds for them; our own would be started all the same."""
    code = """
import os, numpy as np, flatstep
from flatstep.bench import openmp
flatstep.Optimizer._on_openmp = openmp.load()
flatstep.set_num_threads(4)
before = len(os.listdir("/proc/self/task"))
flatstep.Adam(np.ones(600_000, np.float32), 0.1).step(np.ones(600_000, np.float32))
print(len(os.listdir("/proc/self/task")) - before)
"""
    if not openmp.load():
        pytest.skip("this machine has no OpenMP runtime")
    assert run(code, OMP_THREAD_LIMIT="1") == ["0"]
    assert run(code) == ["3"]


@linux
def test_flatstep_loads_no_openmp():
    """A second runtime would keep the threads of the first from the processors. NumPy brings none."""
    code = """
import os, numpy as np, flatstep
flatstep.set_num_threads(2)
flatstep.Adam(np.ones(600_000, np.float32), 0.1).step(np.ones(600_000, np.float32))
names = {line.split("/")[-1] for line in open("/proc/self/maps")}
print(*[name for name in names if name.startswith(("libgomp", "libomp", "libiomp"))])
"""
    assert run(code) == []


@linux
@pytest.mark.parametrize("text, expected", [("3", 3), ("3,2", 3), ("", 0), ("0", 0), ("-1", 0), ("many", 0)])
def test_default_thread_count(text, expected):
    """OpenMP's variable, or else the processors that the process may use."""
    code = "import os, flatstep; print(flatstep.get_num_threads(), len(os.sched_getaffinity(0)))"
    threads, processors = map(int, run(code, OMP_NUM_THREADS=text))
    assert threads == (expected or processors)


def test_other_python_threads_go_on_during_a_step(threads):
    """A long step leaves the interpreter to others."""
    threads(1)
    param, grad = np.ones(2**25, np.float32), np.ones(2**25, np.float32)
    opt = flatstep.AMSGrad(param, 0.1)
    rows, _ = opt._settle(opt._numbers.at(0)).rows(opt._progress.history, 1.0)
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        seen = []
        for _ in range(5):
            before = ticks[0]
            opt._stepper.step([grad], rows, None, opt._progress, None, None)
            seen.append(ticks[0] - before)
    finally:
        stop.set()
        ticking.join()
    assert max(seen) > 100


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no timers that send signals")
def test_a_step_and_its_count_are_one_to_signals():
    """Interrupted at any moment, parameters are at the step that the count says, and the optimizer is not in use."""
    code = """
import signal, numpy as np, flatstep

class Interrupt(Exception):
    pass

def interrupt(*_):
    raise Interrupt

signal.signal(signal.SIGALRM, interrupt)
for size, delay, rounds in ((600_000, 1e-3, 100), (10, 2e-5, 2000)):
    param, grad = np.zeros(size, np.float32), np.ones(size, np.float32)
    opt = flatstep.OptimisticGradientDescent(param, 1.0, alpha=1.0, beta=0.0)
    interrupted = 0
    for round in range(rounds):
        try:
            signal.setitimer(signal.ITIMER_REAL, delay * (1 + round % 7) / 4)
            for _ in range(20):
                opt.step(grad)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupted += 1
        assert param[0] == param[-1] == -opt.count, (param[0], param[-1], opt.count)
        assert opt.state_dict()["leaf_counts"] == opt.count
    print(interrupted > 10)
"""
    assert run(code) == ["True", "True"]


@linux
def test_a_daemon_thread_may_step_until_the_end():
    code = """
import threading, time, numpy as np, flatstep

def forever():
    opt = flatstep.Adam(np.ones(600_000, np.float32), 0.1)
    grad = np.ones(600_000, np.float32)
    while True:
        opt.step(grad)

threading.Thread(target=forever, daemon=True).start()
time.sleep(0.1)
print("done")
"""
    for _ in range(3):
        assert run(code) == ["done"]
