"""The examples of the gallery run, and show what their texts say."""

from __future__ import annotations

import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import flatstep
from repository import ROOT

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
GALLERY = ROOT / "examples" / "gallery"


@pytest.fixture
def run(monkeypatch):
    """Runs an example as sphinx-gallery does, and returns its names."""
    from matplotlib import pyplot

    matplotlib.use("agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)

    def run(name: str) -> dict[str, Any]:
        with redirect_stdout(io.StringIO()):
            return runpy.run_path(str(GALLERY / f"{name}.py"))

    yield run
    assert pyplot.get_fignums(), "the example draws nothing"
    pyplot.close("all")


def test_every_example_has_a_test():
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in GALLERY.glob("*.py") if f'run("{path.stem}")' not in tests] == []


def test_optimistic_optimizers_reach_the_solution_of_the_bilinear_game(run):
    distances = run("bilinear_game")["distances"]
    for name, distance in distances.items():
        if name.startswith("Optimistic"):
            assert distance[-1] < 0.02, name
        else:
            assert distance.min() > 1.5, name


@pytest.mark.slow
def test_amsgrad_wins_on_the_counterexample_alone(run):
    names = run("amsgrad_counterexample")
    last = {name: mean[-1] for name, mean in names["means"].items()}
    assert last.pop("Adam") > 0.7
    assert last.pop('AMSGrad, convention="optax"') < -0.1
    assert max(last.values()) < -0.7
    losses = {name: history[-1].train_loss for name, history in names["histories"].items()}
    assert losses["Adam"] < losses["AMSGrad"]


@pytest.mark.slow
def test_optimism_and_little_momentum_solve_robust_regression(run):
    gaps = {key: gaps[-200:].max() for key, (_, gaps) in run("robust_regression")["games"].items()}
    for (name, b1, _), gap in gaps.items():
        is_solved = name == "OptimisticAdam" and b1 == 0.5
        assert (gap < 0.01) == is_solved, (name, b1)


@pytest.mark.slow
def test_all_targets_and_thread_counts_give_one_hash(run, monkeypatch):
    monkeypatch.setenv("FLATSTEP_TARGET", flatstep.targets()[-1])  # the example puts it back
    names = run("same_bits")
    assert len(names["runs"]) == 3 * len(flatstep.targets())
    assert len(names["hashes"]) == 1


def test_the_gan_finds_more_with_optimistic_adam_on_most_seeds(run):
    names = run("gan_on_a_ring")
    ours, theirs = names["ahead"]("found")
    assert ours > theirs
    found = [run["found"] for run in names["runs"].values()]
    assert found.count(8) == 1, "the text says that one run finds all eight"
    more, fewer = names["ahead"]("found", "OptimisticAdam, averaged", "OptimisticAdam")
    assert fewer == 0 < more, "the text says that none finds fewer with the average"


SETTINGS = ("Adam", "OptimisticAdam", "OptimisticAdam, averaged")


def test_the_stored_runs_are_of_eight_seeds():
    stored = json.loads((GALLERY / "ring.json").read_text(encoding="utf-8"))
    kinds = [(run["optimizer"], run["seed"]) for run in stored["runs"]]
    assert kinds == [(setting, seed) for setting in SETTINGS for seed in range(8)]


@pytest.mark.slow
def test_the_command_that_stores_the_runs(tmp_path, monkeypatch):
    """It gives the same file twice, in the form that the example reads."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "examples" / "gan")
    monkeypatch.delitem(sys.modules, "ring", raising=False)
    seeds = pytest.importorskip("seeds")
    files = [tmp_path / name for name in ("one.json", "two.json")]
    for file in files:
        with redirect_stdout(io.StringIO()):
            seeds.write(file, seeds=2, steps=3)
    one, two = (file.read_text(encoding="utf-8") for file in files)
    assert one == two
    runs = json.loads(one)["runs"]
    assert [(run["optimizer"], run["seed"]) for run in runs] == [
        (setting, seed) for setting in SETTINGS for seed in (0, 1)
    ]
    assert runs[0]["samples"] != runs[1]["samples"]  # another seed is another run
