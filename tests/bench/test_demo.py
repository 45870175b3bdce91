"""The demo's three problems, and the command line that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

import flatstep
from flatstep import _core, info
from processes import PNG, command_line, one_line


@pytest.fixture
def demo():
    """The demo's package; skips where its extra is not installed."""
    for module in ("rich", "matplotlib", "sklearn"):
        pytest.importorskip(module)
    import flatstep.demo

    return flatstep.demo


def test_the_game_goes_as_published(demo):
    distances = demo.game.play(demo.game.OPTIMIZERS["OptimisticAdam"])
    published = {1: 2.243, 4: 2.195, 16: 2.161, 64: 2.055, 256: 0.796, 1024: 0.001}
    assert {step: float(distances[step]) for step in published} == pytest.approx(published, abs=0.001)
    assert demo.game.is_as_published(distances)


def test_adam_circles_in_the_game(demo):
    distances = demo.game.play(demo.game.OPTIMIZERS["Adam"])
    assert distances.min() > 1.5
    assert distances[-1] > distances[0]
    assert not demo.game.is_as_published(distances)


def test_amsgrad_solves_the_counterexample_and_adam_does_not(demo):
    problem = demo.counterexample
    last = {name: problem.by_period(problem.play(make))[-1] for name, make in problem.OPTIMIZERS.items()}
    assert last["AMSGrad"] < problem.BEST + 0.3
    assert last["Adam"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AMSGrad", "Adam"])
def test_digits_are_learned(demo, name):
    first, *_, last = demo.digits.train(demo.digits.OPTIMIZERS[name], demo.digits.load(), epochs=40)
    assert last.train_loss < 0.05 * first.train_loss
    assert last.test_loss < 0.1 * first.test_loss
    assert last.test_accuracy > 0.95


def test_optimizers_start_alike(demo):
    firsts = [next(demo.digits.train(make, demo.digits.load(), 1)) for make in demo.digits.OPTIMIZERS.values()]
    assert firsts[0] == firsts[1]


def test_gradients_are_those_of_the_loss(demo):
    import numpy as np

    digits = demo.digits
    batch = digits.Labelled(*(part[:32] for part in digits.load().train))
    params = {name: param.astype(np.float64) for name, param in digits.initial_params(np.random.default_rng(1)).items()}
    for name, gradient in digits.gradients(params, batch).items():
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        losses = []
        for shift in (1e-6, -1e-6):
            moved = {**params, name: params[name].copy()}
            moved[name][at] += shift
            losses.append(digits.loss_and_accuracy(moved, batch)[0])
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(gradient[at], rel=1e-6)


@pytest.mark.slow
def test_demo_command(demo, tmp_path):
    output = tmp_path / "curves.png"
    result = command_line("demo", "--output", str(output), "--epochs", "5")
    assert result.returncode == 0, result.stderr
    assert output.read_bytes().startswith(PNG)
    assert str(output) in result.stdout
    for published in ("2.243", "2.195", "2.161", "2.055", "0.796", "0.001"):
        assert published in result.stdout
    assert max(map(len, result.stdout.replace(str(output), "").splitlines())) <= 80


@pytest.mark.slow
def test_demo_writes_to_the_current_folder_in_plain_ascii(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command_line("demo", "--epochs", "1", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "flatstep-demo.png").read_bytes().startswith(PNG)


def test_demo_fails_where_the_game_goes_otherwise(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(demo.game.PUBLISHED, 64, 2.5)
    assert demo.run(tmp_path / "curves.png", epochs=1) == 1
    assert "✗" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("output", ["missing/curves.png", "."])
def test_an_output_that_cannot_be_written_is_noticed_first(demo, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    result = command_line("demo", "--output", output)
    assert result.returncode == 1
    assert result.stdout == ""  # nothing was trained
    assert f"cannot write {Path(output)}: " in one_line(result.stderr)


def test_looking_whether_an_output_can_be_written_changes_nothing(demo, tmp_path):
    there, new = tmp_path / "there.png", tmp_path / "new.png"
    there.write_bytes(b"kept")
    demo.check_writable(there)
    demo.check_writable(new)
    assert there.read_bytes() == b"kept"
    assert not new.exists()


@pytest.mark.parametrize("module, distribution", [("rich", "rich"), ("sklearn", "scikit-learn")])
def test_a_missing_extra_is_one_clear_line(module, distribution, tmp_path):
    result = command_line("demo", "--output", str(tmp_path / "curves.png"), without=module)
    assert result.returncode == 1
    assert result.stdout == ""
    line = one_line(result.stderr)
    assert distribution in line
    assert 'pip install "flatstep[demo]"' in line


def test_demo_with_an_impossible_target(demo):
    result = command_line("demo", FLATSTEP_TARGET="nonsense")
    assert result.returncode == 1
    assert "FLATSTEP_TARGET=nonsense" in one_line(result.stderr)


def test_info_needs_no_extra():
    result = command_line("info", without="rich")
    assert result.returncode == 0, result.stderr
    assert f"chosen    {flatstep.targets()[0]}, the best that runs here" in result.stdout
    for name in ("threads", "compiler", "flags", "Python", "NumPy", "platform", "torch", "jax", "CUDA"):
        assert f"\n{name} " in result.stdout


def test_info_names_a_forced_target(target):
    result = command_line("info", FLATSTEP_TARGET=target)
    assert result.returncode == 0, result.stderr
    assert f"chosen    {target}, forced by FLATSTEP_TARGET={target}" in result.stdout


def test_info_with_an_impossible_target():
    result = command_line("info", FLATSTEP_TARGET="nonsense")
    assert result.returncode == 1
    assert "chosen    none: FLATSTEP_TARGET=nonsense cannot run here" in result.stdout
    assert result.stderr == ""


def test_info_says_what_the_processor_lacks(monkeypatch):
    class Elsewhere:
        @staticmethod
        def built_targets() -> list[tuple[str, str, str, str]]:
            return [("avx512", "-mavx512f", "avx512f", "avx512f"), ("baseline", "", "", "")]

    monkeypatch.setattr(info, "_core", Elsewhere)
    assert [text for _, text in info.targets()] == [
        "avx512    needs avx512f, which this processor lacks",
        "baseline  runs here",
    ]


def test_version():
    result = command_line("--version")
    assert (result.returncode, result.stdout) == (0, f"flatstep {_core.version}\n")


@pytest.mark.parametrize("epochs", ["0", "-3", "few"])
def test_epochs_are_a_whole_number_above_0(epochs):
    result = command_line("demo", "--epochs", epochs)
    assert result.returncode == 2
    assert f"'{epochs}' is not a whole number above 0" in result.stderr
