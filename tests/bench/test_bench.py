"""The benchmarks run, every case is present, and the figures are sane. No test looks at the clock."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import reference
from flatstep import _core

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from flatstep.bench import (
    accuracy,
    beside,
    cases,
    command,
    compare,
    cost_report,
    device,
    exact,
    handover,
    layouts,
    measure,
    report,
    results,
    runner,
    shapes,
    tail,
)
from flatstep.bench.contender import Contender, Peer, Task
from flatstep.bench.data import Data
from flatstep.bench.front_ends import FRONT_ENDS
from flatstep.bench.layouts import BF16, F32
from flatstep.bench.measure import Spread
from flatstep.bench.rules import RULES
from flatstep.bench.runner import Plan
from flatstep.bench.work import STEP

from bench_results import made_up, made_up_run, row, shown
from flatstep.__main__ import main
from flatstep._trees import Tree

HERE = [name for name, front_end in FRONT_ENDS.items() if front_end.is_here]


def bench(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "flatstep", "bench", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == code, result.stderr
    return result.stdout + result.stderr


def is_sane(spread: Spread) -> bool:
    return (
        len(spread) == 3 and all(math.isfinite(value) and value > 0 for value in spread) and sorted(spread) == [*spread]
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A folder with a quick run's files, and what it printed. A slow machine leaves out cases, for want of time."""
    folder = tmp_path_factory.mktemp("bench")
    return folder, bench("--quick", "--output", str(folder))


@pytest.mark.slow
def test_a_quick_run_has_every_case(quick):
    found = results.read(quick[0] / "results.json")
    expected = [case for case in cases.cases(quick=True) if case.front_end in HERE]
    assert [case.key for case in found.cases] == [(*case[:2], case.layout.name, case.shape.name) for case in expected]
    timed = [case for case in found.cases if case.rows]
    assert timed and all(case.rows or case.left_out for case in found.cases)
    assert {why for case in found.cases if not case.rows for why in case.left_out.values()} <= {"no time was left"}
    for case in timed:
        assert case.ours is not None and case.limit is not None
        for timing in case.rows:
            assert measure.FEWEST <= timing.rounds <= 5
            assert all(map(is_sane, (timing.seconds, timing.share, timing.times_ours))), (case.key, timing)
        assert case.ours.times_ours == (1, 1, 1)
        assert case.limit.share == (1, 1, 1)
        assert 0 < case.ours.ulp < (1e3 if "mu" in case.layout else 20), case.key
    assert {"processor", "processors", "system"} <= set(found.machine)
    assert {"flatstep", "target", "threads", "flags", "numpy"} <= set(found.versions)


@pytest.mark.slow
def test_a_quick_run_shows_and_draws(quick):
    folder, shown = quick
    found = results.read(folder / "results.json")
    models = ["models.png"] * any(case.rows and case.arrays > 1 for case in found.cases)
    for name in ("time.png", "speed.png", "rules.png", *models):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (folder / name).stat().st_size > 20_000, f"{name} has next to nothing on it"
    assert (folder / "results.json").stat().st_size < 200_000
    for words in (
        "Bytes that a step moves",
        "from 1,000,000",
        "right after other work",
        "us a tensor",
        "What a call costs",
        "of limit",
        "measured:",
    ):
        assert words.lower() in shown.lower()
    extras = found.extras
    assert extras["handover"]["many_beside_one"] > 0
    assert all(is_sane(Spread(*seconds)) for seconds in extras["handover"]["seconds"].values())
    assert all(is_sane(row.step) and is_sane(row.work) for row in beside.from_json(extras["beside"]))
    assert all(is_sane(Spread(*program["seconds"])) for program in extras["startup"].values())
    assert {"import flatstep", "first step"} <= extras["startup"].keys()


@pytest.mark.slow
def test_a_run_beside_itself_has_not_moved(quick):
    folder = str(quick[0])
    assert "Moved by more than the spread: 0 of" in bench("compare", folder, folder)


@pytest.mark.parametrize(
    "seconds, rounds, moved",
    [(1.0, 5, False), (1.15, 5, False), (1.3, 5, True), (0.7, 5, True), (1.3, 4, False)],
)
def test_what_moved_is_told(seconds, rounds, moved):
    """Beyond the quartiles only, and of enough rounds only."""
    before, after = (made_up_run(made_up(timed)) for timed in (row("a"), row("a", seconds, rounds=rounds)))
    (found,) = compare.moves(before, after)
    assert found.key == (*before.cases[0].key, "a") and found.time_moved == moved and not found.share_moved


def test_what_only_one_run_has_is_told():
    before = made_up_run(made_up(row("flatstep"), row("gone")), made_up(row("flatstep"), front_end="jax"), quick=True)
    after = made_up_run(made_up(row("flatstep", rounds=3)), made_up(front_end="jax"), quick=False)
    text = shown(compare.show_compared, before, after)
    key = "amsgrad, float32, one array of 1,000,000"
    assert f"only in the first: numpy, {key}, gone; jax, {key}\n" in text
    assert "only in the second" not in text
    assert "measured otherwise, run: quick -> full" in text
    assert "too few rounds, less than 5, to tell: 1 of 1 timings" in text


@pytest.mark.parametrize("text", ["{}", "[]", "no", '{"format": 0}'])
def test_files_that_are_no_results(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    assert "does not hold results" in bench("compare", str(path), str(path), code=1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "0"], "is not a number of elements"),
        (["--size", "inf"], "is not a number of elements"),
        (["--minutes", "0"], "is not a number of minutes"),
        (["--rounds", "0"], "is not a whole number"),
        (["--only", "tensorflow"], "no case is named tensorflow"),
        (["--only", "jax", "float64"], "no case has all of jax, float64"),
        (["--quick", "--rounds", "3", "bindings", "--rounds", "2"], "bindings takes no --quick, --rounds before it"),
        (["--output", "x", "compare", "a", "b"], "compare takes no --output before it"),
    ],
)
def test_arguments_that_are_rejected(arguments, message):
    code = 1 if "--only" in arguments else 2
    assert message in bench(*arguments, code=code)


def test_every_case_can_be_asked_for():
    """The full table: every rule of the catalogue, every front end, shapes as they are called, no case twice."""
    every = cases.cases(quick=False)
    assert len({case.name for case in every}) == len(every)
    assert {case.rule for case in every} == {cost.rule for cost in layouts.cost_model()}
    assert {case.front_end for case in every} == set(FRONT_ENDS)
    only = cases.cases(quick=False, only=["torch", "adam", "numpy"])
    assert {(case.front_end, case.rule) for case in only} == {("torch", "adam"), ("numpy", "adam")}
    assert {case.shape.elements for case in cases.cases(False, sizes=[77], only=["jax"])} >= {77}


def test_a_front_end_that_is_not_here_is_rejected(monkeypatch):
    monkeypatch.setitem(FRONT_ENDS, "torch", replace(FRONT_ENDS["torch"], needs=["no_such_module"]))
    assert "torch" not in {case.front_end for case in command.choose(True, [], [])[0]}
    with pytest.raises(ValueError, match="torch cannot run here, without no_such_module"):
        command.choose(True, ["torch"], [])


def test_extras_can_be_asked_for_alone():
    assert command.choose(True, ["handover"], []) == ([], ["handover"])
    assert command.choose(True, ["numpy", "beside"], [])[1] == ["beside"]
    assert command.choose(True, [], [])[1] == [*command.EXTRAS]


def test_sizes_are_all_that_is_asked_for():
    chosen, extras = command.choose(False, [], [77, 1000])
    assert {case.shape.elements for case in chosen} == {77, 1000} and not extras


def test_shapes_are_what_they_are_called():
    assert len(shapes.gpt2_small()) == 148 and shapes.GPT2.elements == 124_439_808
    assert len(shapes.gan()) == 24
    assert [len(shape.make()) for shape in (shapes.THOUSAND, shapes.TEN_THOUSAND)] == [1_000, 10_000]
    assert {math.prod(lengths) for lengths in shapes.small(1000)} <= set(range(64, 4097))


def test_the_cost_model_counts_bytes():
    """A parameter is read and written, its gradient read, each slot read and written."""
    found = {(cost.rule, cost.layout): cost.bytes for cost in layouts.cost_model()}
    assert found["amsgrad", F32] == 4 * (3 + 2 * 3)
    assert found["amsgrad", layouts.F32_MU_BF16] == 4 * 3 + 2 * (2 + 4 + 4)
    assert found["amsgrad", BF16] == 2 * (3 + 2 * 3)
    assert found["adam", layouts.F64] == 8 * (3 + 2 * 2)
    assert found["optimistic_gradient_descent", F32] == 4 * (3 + 2)


def test_the_cost_model_of_a_tail_counts_bytes():
    """The gradient is read once more and set to zero, the average read and written, in no less than float32."""
    found = {(cost.rule, cost.layout): cost.bytes for cost in layouts.cost_model(tail.tail_cost)}
    assert found["amsgrad", F32] == 36 + 4 + 8 + 4
    assert found["amsgrad", BF16] == 18 + 2 + 8 + 2
    assert found["amsgrad", layouts.F64] == 72 + 8 + 16 + 8
    assert sum(part.apart for part in tail.parts("amsgrad", F32)) == 72
    text = shown(cost_report.show_cost_models)
    assert "pass by pass" in text and "GradScaler's own check adds 8" in text


PEERS = [
    pytest.param(front_end, peer, rule, id=f"{front_end.name}-{peer.name}-{rule}")
    for front_end in FRONT_ENDS.values()
    if front_end.is_here
    for peer in front_end.peers()[0]
    for rule in peer.computes
]


@pytest.mark.parametrize("front_end, peer, rule", PEERS)
def test_peers_compute_what_they_say(front_end, peer, rule):
    """Within the roundings of the parameter itself, unless the row says that it computes something else."""
    if why := peer.left_out(Task(rule, F32, 1, accuracy.ELEMENTS, quick=True)):
        pytest.skip(why)
    error = accuracy.worst_ulp(peer, rule, F32, front_end.convention, front_end.work)
    if peer.computes[rule]:
        assert error is None or error > 20
    else:
        assert 0 < error < 20


def test_the_accuracy_sees_another_convention():
    """That of AMSGrad, and no maximum at all."""
    ours = FRONT_ENDS["numpy"].peers()[0][0]
    assert accuracy.worst_ulp(ours, "amsgrad", F32, "torch") > 100
    wrong = replace(ours, make=lambda task, data: ours.make(replace(task, rule="adam"), data))
    assert accuracy.worst_ulp(wrong, "amsgrad", F32, "optax") > 100


def test_torch_fused_is_fused():
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    class Called(TorchDispatchMode):
        names: set[str] = set()  # noqa: RUF012

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.add(func.name())
            return func(*args, **(kwargs or {}))

    peers = {peer.name: peer for peer in FRONT_ENDS["torch"].peers()[0]}
    seen = {}
    for name in ("torch fused", "torch foreach", "torch for-loop"):
        contender = peers[name].make(Task("amsgrad", F32, 1, 100), Data([(100,)], F32))
        Called.names = set()
        with Called():
            contender.run()
        seen[name] = Called.names
    assert "aten::_fused_adam_" in seen["torch fused"]
    assert any("_foreach_" in name for name in seen["torch foreach"])
    assert not any("fused_adam" in name or "_foreach_" in name for name in seen["torch for-loop"])
    assert torch.get_num_threads() >= 1


def test_jax_programs_move_what_they_promise():
    """A step's streams once; updates and what adds them; optax's by XLA's count."""
    pytest.importorskip("optax")
    task = Task("amsgrad", F32, 2, 2200)
    peers = FRONT_ENDS["jax"].peers()[0]
    moved = {peer.name: peer.make(task, Data([(50, 30), (700,)], F32)).bytes_per_element for peer in peers}
    assert {name: round(count) for name, count in moved.items()} == {
        "flatstep.jax": 36,
        "flatstep.jax, update": 44,
        "optax": 52,
        "optax, ahead": 52,
    }


def small_case() -> cases.Case:
    return cases.Case("numpy", "amsgrad", F32, shapes.one_array(1000))


def measured(
    monkeypatch, *peers: Peer, seconds: float = 60, case: cases.Case | None = None, **settings: object
) -> results.Measured:
    front_end = replace(FRONT_ENDS["numpy"], modules=[], **settings)
    monkeypatch.setitem(FRONT_ENDS, "numpy", front_end)
    monkeypatch.setattr(type(front_end), "peers", lambda self: ([OURS, *peers], []))
    plan = Plan(rounds=3, end=time.perf_counter() + seconds, quick=True)
    return runner.measure(case or small_case(), plan, seconds)


OURS = Peer("flatstep", lambda task, data: Contender("flatstep", lambda: None), {"amsgrad": ""}, [F32], is_ours=True)


def odd(run, **what) -> Peer:
    return Peer("odd", lambda task, data: Contender("odd", run, **what), {"amsgrad": ""}, [F32])


def fail(*_):
    raise RuntimeError("cannot be built\nfor reasons")


def fail_later():
    """At its third step, when it is being timed."""
    runs = iter(range(2))

    def step():
        if next(runs, None) is None:
            fail()

    return step


@pytest.mark.parametrize("where", ["make", "step", "accuracy", "timing"])
def test_a_peer_that_fails_is_left_out_by_name(monkeypatch, where):
    peer = {
        "make": lambda: Peer("odd", fail, {"amsgrad": ""}, [F32]),
        "step": lambda: odd(fail),
        "accuracy": lambda: odd(lambda: None, params=fail),
        "timing": lambda: odd(fail_later()),
    }[where]()
    found = measured(monkeypatch, peer)
    assert found.left_out == {"odd": "RuntimeError: cannot be built"}
    assert [row.name for row in found.contenders] == ["flatstep"]


@pytest.mark.parametrize("seconds, elements", [(-1.0, 1000), (1.0, 10**10)])
def test_without_time_a_case_says_so(monkeypatch, seconds, elements):
    case = cases.Case("numpy", "amsgrad", F32, shapes.one_array(elements))
    found = measured(monkeypatch, odd(lambda: None), seconds=seconds, case=case)
    assert not found.rows and found.left_out == dict.fromkeys(["flatstep", "odd"], "no time was left")


def test_without_time_a_case_has_ours_and_the_limit(monkeypatch):
    make = OURS.make
    late = replace(OURS, make=lambda task, data: (time.sleep(1), make(task, data))[1])
    monkeypatch.setattr(sys.modules[__name__], "OURS", late)
    found = measured(monkeypatch, odd(lambda: None), seconds=1)
    assert found.ours is not None and found.limit is not None
    assert found.left_out == {"odd": "no time was left"}


def test_without_memory_a_case_says_so(monkeypatch):
    assert "GB of memory" in measured(monkeypatch, free_memory=lambda: 1.0).left_out["flatstep"]


def test_a_case_of_a_fast_front_end_takes_little_time(monkeypatch):
    """By what its elements take there, not by what they take on a processor."""
    monkeypatch.setattr("flatstep.bench.runner.Data", lambda *_: None)
    limits = FRONT_ENDS["numpy"].limits
    there = dict(free_memory=lambda: math.inf, limits=lambda task: limits(replace(task, elements=1)))
    case = cases.Case("numpy", "amsgrad", F32, shapes.one_array(2**28))
    for seconds_per_element, is_left_out in [(3e-8, True), (3e-10, False)]:
        found = measured(monkeypatch, seconds=10, case=case, seconds_per_element=seconds_per_element, **there)
        assert (found.ours is None) == is_left_out


def test_the_time_of_the_host_is_a_column_of_its_own(monkeypatch):
    without, found = measured(monkeypatch), measured(monkeypatch, host_seconds=lambda run: 0.25)
    assert {row.host_seconds for row in found.rows} == {0.25}
    assert "250.000 ms" in shown(report.show_cases, made_up_run(found))
    assert " host " not in shown(report.show_cases, made_up_run(without))


class Device:
    """A device with a clock of its own, which a host launches onto: a step takes each of them its time."""

    def __init__(self, monkeypatch, cycle: float = 1e-9):
        torch = pytest.importorskip("torch")
        self.host = self.now = 0.0
        for name, replaced in {
            "Event": lambda enable_timing: self.Event(self),
            "synchronize": lambda: None,
            "_sleep": lambda cycles: self.launch(1e-6, cycles * cycle),
        }.items():
            monkeypatch.setattr(torch.cuda, name, replaced)
        self.zero_ = lambda: self.launch(1e-6, 1e-4)
        monkeypatch.setattr(device, "_scratch", lambda: self)

    def launch(self, on_host: float, on_device: float) -> None:
        self.host += on_host
        self.now = max(self.now, self.host) + on_device

    class Event:
        def __init__(self, owner):
            self.owner = owner

        def record(self):
            self.at = max(self.owner.now, self.owner.host)

        def query(self):
            return self.owner.host >= self.at

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3


@pytest.mark.parametrize("launches", [1, 10, 10_000])
def test_a_device_is_timed_by_what_it_does(monkeypatch, launches):
    """And not by its host, which takes ten times as long to launch a step."""
    played = Device(monkeypatch)

    def step():
        for _ in range(launches):
            played.launch(1e-5, 1e-6)

    assert device.clock(step, 3) == pytest.approx(launches * 1e-6)


def test_a_step_that_waits_for_its_device_is_timed_as_it_is(monkeypatch):
    played = Device(monkeypatch)

    def step():
        played.launch(1e-5, 1e-3)
        played.host = played.now

    assert device.clock(step, 3) == pytest.approx(1e-3, rel=0.1)


def test_memory_is_that_of_who_takes_part(monkeypatch):
    """Who is left out anyway takes none; each takes the parameter and the rule's own slots."""
    asked = []
    monkeypatch.setattr("flatstep.bench.runner._bytes_needed", lambda task, peers, work: asked.append(peers) or 0)
    found = measured(monkeypatch, replace(odd(lambda: None), left_out=lambda task: "too slow"))
    assert asked == [1] and found.left_out == {"odd": "too slow"}
    monkeypatch.undo()
    for rule, arrays in [("amsgrad", 4), ("adam", 3), ("optimistic_gradient_descent", 2)]:
        task = Task(rule, F32, 1, 1000)
        assert runner._bytes_needed(task, 3, STEP) - runner._bytes_needed(task, 2, STEP) == 4000 * arrays
    in_tail = [runner._bytes_needed(Task("amsgrad", F32, 1, 1000), peers, tail.TAIL) for peers in (2, 3)]
    assert in_tail[1] - in_tail[0] == 4000 * 5


def test_memory_that_runs_out_leaves_a_case_out(monkeypatch):
    def too_much(*_):
        raise MemoryError

    monkeypatch.setattr("flatstep.bench.runner.Data", too_much)
    assert measured(monkeypatch).left_out == {"flatstep": "there was not enough memory"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_measured_is_written_and_shown_where_the_next_case_fails(monkeypatch, tmp_path, capsys, error):
    def one_case_and_then(chosen, *_):
        yield made_up(row("limit"), row("flatstep"))
        assert results.read(tmp_path / "results.json").cases
        raise error("for reasons")

    monkeypatch.setattr(command, "run", one_case_and_then)
    arguments = True, ["numpy"], [], 3, None, tmp_path
    if error is KeyboardInterrupt:
        assert command.bench(*arguments) == command.INTERRUPTED
    else:
        with pytest.raises(error, match="for reasons"):
            command.bench(*arguments)
    assert "measured: 1 of 1 cases" in capsys.readouterr().out
    found = results.read(tmp_path / "results.json")
    assert len(found.cases) == 1 and found.settings.get("interrupted", False) == (error is KeyboardInterrupt)


def test_extras_that_there_is_no_time_for_are_left_out(monkeypatch, capsys):
    assert command.bench(True, ["startup", "beside"], [], 3, 1e-4, None) == 0
    told = capsys.readouterr().out
    assert "start-up is left out: no time was left" in told
    assert "beside other libraries is left out: no time was left" in told


def test_only_the_output_is_said_not_to_be_writable(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    assert f"cannot write {tmp_path / 'file'}" in bench("--quick", "--output", str(tmp_path / "file"), code=1)

    def lost(*_):
        raise OSError("of another kind")

    monkeypatch.setattr(command, "run", lost)
    with pytest.raises(OSError, match="of another kind"):
        main(["bench", "--quick", "--only", "numpy"])


def test_bindings_without_a_compiler_are_one_line(monkeypatch):
    def not_found(*_):
        raise RuntimeError("cmake -S . failed:\nCMake Error:\nNo CMAKE_CXX_COMPILER could be found.")

    monkeypatch.setattr(command, "bindings", not_found)
    with pytest.raises(SystemExit, match="^flatstep: bench bindings needs a C[+][+] compiler[^\n]*$"):
        main(["bench", "bindings"])


def test_a_module_of_peers_that_cannot_be_imported_is_told(monkeypatch):
    front_end = FRONT_ENDS["numpy"]
    broken = replace(front_end, modules=[*front_end.modules, ("no_such_peers", ())])
    peers, absent = broken.peers()
    assert peers == front_end.peers()[0] and "no_such_peers (ModuleNotFoundError" in absent[0]
    with pytest.raises(ModuleNotFoundError):
        replace(front_end, modules=[("no_such_peers", ())]).peers()


def test_timings_are_taken_in_turns():
    """A round has each once, short ones after a run that is not timed; after the time is up, some are still made."""
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}

    def clock(run, repeats):
        order.append(f"{repeats} of")
        run()
        return 10.0 if order[-1] == "b" else measure.SHORTEST / 2

    timed = measure.in_turns(runs, rounds=9, seconds=0, clock=clock)
    assert timed == {"a": [measure.SHORTEST / 2] * measure.FEWEST, "b": [10.0] * measure.FEWEST}
    a, b = ["a", "2 of", "a"], ["1 of", "b"]
    turns = order[-len(a + b) * measure.FEWEST :]
    rounds = [turns[first : first + len(a + b)] for first in range(0, len(turns), len(a + b))]
    assert all(turn in (a + b, b + a) for turn in rounds)


def test_what_prepares_a_run_is_not_timed(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(measure, "host_clock", lambda run, repeats: (run(), float(repeats))[1])
    run = measure.Prepared(lambda: order.append("prepared"), lambda: order.append("run"))
    assert measure.prepared_clock(run, 3) == 1.0
    run()
    assert order == ["prepared", "run"] * 4
    assert measure.prepared_clock(lambda: order.append("plain"), 7) == 7.0


def test_none_always_follows_the_same_one():
    order: list[str] = []

    def clock(run, repeats):
        run()
        return 10.0

    measure.in_turns({name: lambda name=name: order.append(name) for name in "abc"}, rounds=15, clock=clock)
    turns = "".join(order)
    assert min(turns.count(pair) for pair in ("ab", "cb", "ba", "ca", "ac", "bc")) >= 3


def test_one_disturbed_run_decides_nothing():
    calls = iter([0.5, 1e-6, 1e-6, 1e-6])  # a first run that was held up
    asked: list[int] = []

    def clock(run, repeats):
        asked.append(repeats)
        return next(calls, 0.05 if len(asked) % 3 else 1e-6)  # two of three are held up

    assert measure._repeats(lambda: None, clock) >= 1000


@pytest.mark.parametrize("rule", _core.rules())
def test_the_accuracy_is_measured_against_what_the_oracle_says(rule):
    """They share the formula, and make its coefficients each in its own way."""
    own = {name: RULES[rule].arguments[name] for name in ("weight_decay", "decoupled_weight_decay")}
    own |= {name: value for name, value in RULES[rule].options.items() if name == "momentum"}
    random = np.random.default_rng(0)
    a = b = random.standard_normal(50)
    ours: exact.State = {}
    state: dict = {}
    for t in range(1, 6):
        grad = random.standard_normal(50)
        a = exact.step(exact.Formula(rule, "optax", 1e-3), np.longdouble(a), np.longdouble(grad), ours, t)
        b, state = reference.oracle(rule)(b, grad, state, t, learning_rate=1e-3, **own)
        assert a.dtype == np.longdouble
    np.testing.assert_allclose(np.float64(a), b, rtol=1e-12)


def test_handover_is_a_slope():
    """Of what it takes beyond one tensor, the median over the rounds; it is left out of many tensors, not of one."""
    seconds = {
        handover.TINY: [1.0, 2.0, 3.0],
        handover.LIST: [2001.0, 4002.0, 3003.0],
        handover.NESTED: [5001.0, 5002.0, 5003.0],
        handover.MANY: [6000.0, 6000.0, 6000.0],
        handover.ONE: [2000.0, 1000.0, 3000.0],
    }
    result = handover.HandOver(seconds)
    assert result.per_tensor(handover.LIST) == 3
    assert result.per_tensor(handover.NESTED) == 5
    assert result.many_beside_one() == 3
    assert result.many_beside_one(without_handover=True) == 1.5
    json.dumps(result.as_json())


def test_handover_cases_are_what_they_are_called():
    result = handover.measure_handover(rounds=2)
    sizes = {case: [leaf.size for leaf in Tree(params).leaves] for case, params in handover.cases().items()}
    assert sizes.keys() == result.seconds.keys()
    assert len(sizes[handover.MANY]) == 1000 and set(sizes[handover.MANY]) <= set(range(64, 4097))
    assert sizes[handover.ONE] == [sum(sizes[handover.MANY])]
    assert sizes[handover.TINY] == [1]
    assert sizes[handover.LIST] == sizes[handover.NESTED] == [1] * 1001


@pytest.mark.cuda
@pytest.mark.skipif(not FRONT_ENDS["cuda"].is_here, reason="needs a CUDA device")
def test_a_device_is_measured(tmp_path):
    bench("--quick", "--only", "cuda", "--minutes", "30", "--rounds", "3", "--output", str(tmp_path))
    found = results.read(tmp_path / "results.json")
    assert {case.front_end for case in found.cases} == {"cuda"}
    for case in found.cases:
        assert case.ours is not None and case.limit is not None
        assert 0 < case.ours.ulp < (1e3 if "mu" in case.layout else 20), case.key
