"""Steps on one thread and on all, beside threads that spin, and the processes in which benchmarks run."""

from __future__ import annotations

import json
import math
import os
import platform
import time

import pytest

import flatstep
from flatstep import _core

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from flatstep.bench import beside, measure, runner, shapes, workers
from flatstep.bench import threads as sweeps
from flatstep.bench.cases import Case
from flatstep.bench.contender import Task
from flatstep.bench.data import Data
from flatstep.bench.front_ends import FRONT_ENDS
from flatstep.bench.layouts import F32
from flatstep.bench.measure import Spread
from flatstep.bench.runner import Plan, Workers, run

import in_worker
from bench_results import made_up, made_up_run, row, shown

HERE = [name for name, front_end in FRONT_ENDS.items() if front_end.is_here]


@pytest.mark.parametrize(
    "times, least", [([0.5, 1.0, 1.5, 2.0], 100), ([2.0, 0.9, 1.5, 2.0], 100), ([0.9] * 4, None), ([1.5] * 4, 1)]
)
def test_where_more_threads_pay_is_told(times, least):
    """From a size on, at each greater size too; sizes come in any order, and other front ends are left out."""
    found = [
        made_up(row("flatstep"), row("flatstep, one thread", ratio), front_end=sweeps.SWEEPS.numpy, elements=10**power)
        for power, ratio in enumerate(times)
    ]
    found += [made_up(row("flatstep"), row("flatstep, one thread", 0.1), elements=10**9)]
    gains = sweeps.gains(found[::-1], sweeps.SWEEPS.numpy)
    assert [gain.times for gain in gains] == times
    assert sweeps.pays_from(gains) == least
    told = f"more threads pay from {least} elements on" if least else "more threads pay at no size"
    assert told in shown(sweeps.show_threads, made_up_run(*found))


def test_a_sweep_steps_on_as_many_threads_as_it_says(monkeypatch, threads):
    """Ours and the limit, on all threads and on one, whichever came before."""
    threads(3)
    seen: list[int] = []
    make, move = flatstep.AMSGrad.step, _core.move_streams
    monkeypatch.setattr(flatstep.AMSGrad, "step", lambda *given: (make(*given), seen.append(_core.get_num_threads())))
    monkeypatch.setattr(_core, "move_streams", lambda *given: (move(*given), seen.append(_core.get_num_threads())))
    front_end, task = FRONT_ENDS["threads-numpy"], Task("amsgrad", F32, 1, 100)
    contenders = [peer.make(task, Data([(100,)], F32)) for peer in front_end.peers()[0]]
    contenders += front_end.limits(task)
    names = [contender.name for contender in contenders]
    assert names == ["flatstep", "flatstep, one thread", "limit", "limit, one thread"]
    for contender in [*contenders, *contenders[::-1]]:
        contender.run()
    assert seen == [3, 1, 3, 1, 1, 3, 1, 3]


def test_a_rested_run_comes_after_a_pause(monkeypatch):
    """The pause is not timed; of many runs a few are."""
    order: list[str] = []
    monkeypatch.setattr(measure, "keep_busy", lambda seconds: order.append("pause"))
    assert measure.rested_clock(lambda: order.append("run"), 1000) > 0
    assert order == ["pause", "run"] * measure.MOST_RESTED
    order.clear()
    measure.rested_clock(lambda: order.append("run"), 1)
    assert order == ["pause", "run"]


def test_limits_wait_asleep_beside_our_own_threads(monkeypatch):
    """OpenMP is told so before it is loaded. Beside torch the limit runs on the threads that the step runs on."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with Workers() as started:
        for name in HERE:
            expected = "active" if name in ("torch", "cuda", "threads-torch", "tail-torch") else "passive"
            assert started.of(name).call(in_worker.wait_policy) == expected
            assert started.of(name) is started.of(name)
    assert in_worker.wait_policy() == "active"


def test_a_worker_tells_what_it_raises_and_that_it_died():
    with workers.Worker({"OMP_WAIT_POLICY": "passive"}) as worker:
        with pytest.raises(RuntimeError, match="cannot be built"):
            worker.call(in_worker.fail)
        assert worker.call(math.sqrt, 4.0) == 2.0
        with pytest.raises(workers.Died, match="status 3"):
            worker.call(os._exit, 3)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library places arrays otherwise")
def test_arrays_of_a_case_do_not_all_begin_at_the_same_place_in_a_page():
    with workers.Worker({}) as worker:
        assert len(worker.call(in_worker.places_in_a_page)) > 1


def test_a_case_whose_process_dies_is_left_out(monkeypatch):
    """The next case has a new process."""
    monkeypatch.setattr(runner, "_measure_there", in_worker.die_of_small_cases)
    chosen = [Case("numpy", "amsgrad", F32, shapes.one_array(elements)) for elements in (1000, 2000)]
    with Workers() as started:
        found = list(run(chosen, Plan(rounds=3, end=time.perf_counter() + 60, quick=True), started))
    assert found[0].left_out == {"all": "the process ended with status 3"} and not found[0].rows
    assert found[1].ours is not None


def test_beside_has_a_reference_first(monkeypatch):
    """Each setting that can run here is measured, on the threads and with OpenMP waiting as it says."""
    monkeypatch.setattr(beside, "SIZES", (1000,))
    chosen = beside.settings(quick=True)
    assert chosen[0] == beside.REFERENCE and len(chosen) == len(set(chosen))
    found = beside.measure_beside(chosen)
    assert [row.setting for row in found] == chosen
    assert beside.from_json(json.loads(json.dumps([row.as_json() for row in found]))) == found
    text = shown(beside.show_beside, found)
    assert ("asleep" in text) == any(setting.is_passive for setting in chosen)
    twice = [found[0]._replace(step=Spread(1, 2, 3)), found[0]._replace(setting=chosen[-1], step=Spread(1, 4, 5))]
    assert " 2.00 " in shown(beside.show_beside, twice)


def test_beside_without_time_has_the_reference():
    found = beside.measure_beside(beside.settings(quick=False), seconds=0)
    assert {row.setting for row in found} == {beside.REFERENCE}
