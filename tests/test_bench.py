"""The benchmarks run, every case is present, and the figures are sane. No test looks at the clock."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import reference

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from flatstep.bench import accuracy, cases, command, compare, exact, handover, layouts, measure, results, shapes
from flatstep.bench.contender import Contender, Peer, Task
from flatstep.bench.data import Data
from flatstep.bench.front_ends import FRONT_ENDS
from flatstep.bench.layouts import BF16, F32
from flatstep.bench.measure import Spread
from flatstep.bench.runner import Plan, run

from flatstep.trees import Tree

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
    """A folder with a quick run's files, and what it printed. It may take as long as it takes."""
    folder = tmp_path_factory.mktemp("bench")
    return folder, bench("--quick", "--minutes", "30", "--rounds", "3", "--output", str(folder))


def test_a_quick_run_has_every_case(quick):
    found = results.read(quick[0] / "results.json")
    expected = [case for case in cases.cases(quick=True) if case.front_end in HERE]
    assert [case.key for case in found.cases] == [(*case[:2], case.layout.name, case.shape.name) for case in expected]
    assert {case.front_end for case in found.cases} == set(HERE)
    for case in found.cases:
        assert case.ours is not None and case.limit is not None
        for row in case.rows:
            assert row.rounds == 3
            assert all(map(is_sane, (row.seconds, row.share, row.times_ours))), (case.key, row)
        assert case.ours.times_ours == (1, 1, 1)
        assert case.limit.share == (1, 1, 1)
        assert 0 < case.ours.ulp < (1e3 if "mu" in case.layout else 20), case.key
    assert {"processor", "processors", "system"} <= set(found.machine)
    assert {"flatstep", "target", "threads", "flags", "numpy"} <= set(found.versions)


def test_a_quick_run_shows_and_draws(quick):
    folder, shown = quick
    for name in ("time.png", "speed.png", "rules.png", "models.png"):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (folder / name).stat().st_size > 20_000, f"{name} has next to nothing on it"
    assert (folder / "results.json").stat().st_size < 200_000
    for words in ("Bytes that a step moves", "us a tensor", "What a call costs", "of limit", "own threads"):
        assert words in shown
    extras = results.read(folder / "results.json").extras
    assert extras["handover"]["many_beside_one"] > 0
    assert all(is_sane(Spread(*seconds)) for seconds in extras["handover"]["seconds"].values())
    assert all(is_sane(Spread(*seconds)) for seconds in extras["beside-numpy"].values())
    assert all(is_sane(Spread(*program["seconds"])) for program in extras["startup"].values())
    assert {"import flatstep", "first step"} <= extras["startup"].keys()


def test_a_run_beside_itself_has_not_moved(quick):
    folder = str(quick[0])
    assert "Moved by more than the spread: 0 of" in bench("compare", folder, folder)


def test_what_moved_is_told(quick):
    """Beyond the quartiles only; and what differs in machine and versions."""
    before, after = (results.read(quick[0] / "results.json") for _ in range(2))
    row = before.cases[0].ours
    upper = row.seconds.upper
    after.cases[0].rows = [
        replace(other, seconds=Spread(upper * 1.01, upper * 1.1, upper * 1.2)) if other.is_ours else other
        for other in after.cases[0].rows
    ]
    moved = [move for move in compare.moves(before, after) if move.time_moved]
    assert [move.key for move in moved] == [(*before.cases[0].key, row.name)]
    after.cases[0].rows = [
        replace(other, seconds=Spread(upper, upper * 1.1, upper * 1.2)) if other.is_ours else other
        for other in after.cases[0].rows
    ]
    assert not any(move.time_moved for move in compare.moves(before, after))


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
    ],
)
def test_arguments_that_are_refused(arguments, message):
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


def test_a_front_end_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setitem(FRONT_ENDS, "torch", replace(FRONT_ENDS["torch"], needs=["no_such_module"]))
    assert "torch" not in {case.front_end for case in command.choose(True, [], [])[0]}
    with pytest.raises(ValueError, match="torch cannot run here, without no_such_module"):
        command.choose(True, ["torch"], [])


def test_extras_can_be_asked_for_alone():
    assert command.choose(True, ["handover"], []) == ([], ["handover"])
    assert command.choose(True, ["numpy", "beside-numpy"], [])[1] == ["beside-numpy"]
    assert command.choose(True, [], [])[1] == [*command.EXTRAS]


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
    error = accuracy.worst_ulp(peer, rule, F32, front_end.convention)
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


def measured(monkeypatch, *peers: Peer, seconds: float = 60) -> results.Measured:
    front_end = replace(FRONT_ENDS["numpy"], modules=[])
    monkeypatch.setitem(FRONT_ENDS, "numpy", front_end)
    ours = Peer(
        "flatstep", lambda task, data: Contender("flatstep", lambda: None), {"amsgrad": ""}, [F32], is_ours=True
    )
    monkeypatch.setattr(type(front_end), "peers", lambda self: ([ours, *peers], []))
    plan = Plan(rounds=3, seconds=seconds, quick=True)
    return next(run([small_case()], plan, lambda case: None, lambda: None))


def test_a_peer_that_fails_is_left_out_by_name(monkeypatch):
    def fail(task, data):
        raise RuntimeError("cannot be built\nfor reasons")

    found = measured(monkeypatch, Peer("odd", fail, {"amsgrad": ""}, [F32]))
    assert found.left_out == {"odd": "RuntimeError: cannot be built"}
    assert [row.name for row in found.contenders] == ["flatstep"]


def test_without_time_a_case_says_so(monkeypatch):
    found = measured(monkeypatch, seconds=-1.0)
    assert not found.rows and found.left_out == {"flatstep": "no time was left"}


def test_without_memory_a_case_says_so(monkeypatch):
    monkeypatch.setattr("flatstep.bench.runner.free_memory", lambda: 1.0)
    assert "GB of memory" in measured(monkeypatch).left_out["flatstep"]


def test_timings_are_taken_in_turns():
    """A round has each once, short ones after a run that is not timed; after the time is up, some are still made."""
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}

    def clock(run, repeats):
        order.append(f"{repeats} of")
        run()
        return 1.0 if order[-1] == "b" else measure.SHORTEST / 2

    timed = measure.in_turns(runs, rounds=9, seconds=0, clock=clock)
    assert timed == {"a": [measure.SHORTEST / 2] * measure.FEWEST, "b": [1.0] * measure.FEWEST}
    assert order[-15:] == ["a", "2 of", "a", "1 of", "b"] * measure.FEWEST


def test_the_accuracy_is_held_against_what_the_oracle_says():
    """It is written twice, here and in tests/reference.py, which share nothing."""
    random = np.random.default_rng(0)
    for rule, theirs, settings in [
        ("adam", reference.adam, {}),
        ("amsgrad", reference.amsgrad, {}),
        ("optimistic_adam", reference.optimistic_adam, {}),
        ("optimistic_gradient_descent", reference.optimistic_gradient_descent, {}),
    ]:
        a = b = random.standard_normal(50)
        ours: exact.State = {}
        state: dict = {}
        for t in range(1, 6):
            grad = random.standard_normal(50)
            a = exact.step(exact.Formula(rule, "optax", 1e-3), a, grad, ours, t)
            b, state = theirs(b, grad, state, t, learning_rate=1e-3, **settings)
        np.testing.assert_allclose(a, b, rtol=1e-12)


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
