"""The GAN example: what it counts as found, what it learns, and its command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from processes import PNG
from repository import ROOT

torch = pytest.importorskip("torch")
for module in ("rich", "matplotlib"):
    pytest.importorskip(module)
EXAMPLE = ROOT / "examples" / "gan"


@pytest.fixture
def ring(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    return pytest.importorskip("ring")


def test_quality_counts_gaussians_and_samples(ring):
    centers = ring.centers()
    assert ring.quality(centers.repeat(250, 1)) == (8, 1.0)
    assert ring.quality(centers[:3].repeat(667, 1)[:2000]) == (3, 1.0)
    assert ring.quality(torch.zeros(2000, 2)) == (0, 0.0)
    half = torch.cat([centers[:1].repeat(1000, 1), torch.zeros(1000, 2)])
    assert ring.quality(half) == (1, 0.5)


@pytest.mark.slow
def test_networks_learn_from_each_other(ring):
    """Optimizers start alike, and both networks move."""
    short, long = (ring.train(ring.SETTINGS["OptimisticAdam"], steps) for steps in (1, 150))
    other = ring.train(ring.SETTINGS["Adam"], 1)
    assert torch.allclose(short, other, atol=0.1)
    assert long.norm(dim=1).mean() > short.norm(dim=1).mean() + 0.5


def test_samples_are_those_of_the_averages(ring):
    """Which are the parameters after one step, and behind them after more."""
    plain = ring.SETTINGS["OptimisticAdam, averaged"]._replace(ema_decay=None)
    last, averaged = ([ring.train(s, steps) for steps in (1, 10)] for s in (plain, plain._replace(ema_decay=0.9)))
    assert torch.equal(last[0], averaged[0])
    assert 0 < (averaged[1] - averaged[0]).norm() < (last[1] - last[0]).norm()


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    output = tmp_path / "ring.png"
    command = [sys.executable, str(EXAMPLE / "train.py"), "--output", str(output), "--steps", "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert output.read_bytes().startswith(PNG)
    assert "OptimisticAdam" in result.stdout and "of 8 Gaussians found" in result.stdout
