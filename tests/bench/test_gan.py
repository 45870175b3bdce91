"""The GAN example: what it counts as found, and its command line."""

from __future__ import annotations

import pytest

from processes import PNG, command_line, one_line

torch = pytest.importorskip("torch")
for module in ("rich", "matplotlib"):
    pytest.importorskip(module)
from flatstep import gan  # noqa: E402


def test_quality_counts_gaussians_and_samples():
    centers = gan.ring.centers()
    assert gan.ring.quality(centers.repeat(250, 1)) == (8, 1.0)
    assert gan.ring.quality(centers[:3].repeat(667, 1)[:2000]) == (3, 1.0)
    assert gan.ring.quality(torch.zeros(2000, 2)) == (0, 0.0)
    half = torch.cat([centers[:1].repeat(1000, 1), torch.zeros(1000, 2)])
    assert gan.ring.quality(half) == (1, 0.5)


@pytest.mark.slow
def test_networks_learn_from_each_other():
    """Optimizers start alike, and both networks move."""
    short, long = (gan.ring.train(gan.ring.OPTIMIZERS["OptimisticAdam"], steps) for steps in (1, 150))
    other = gan.ring.train(gan.ring.OPTIMIZERS["Adam"], 1)
    assert torch.allclose(short, other, atol=0.1)
    assert long.norm(dim=1).mean() > short.norm(dim=1).mean() + 0.5


@pytest.mark.slow
def test_gan_command(tmp_path):
    output = tmp_path / "ring.png"
    result = command_line("gan", "--output", str(output), "--steps", "3")
    assert result.returncode == 0, result.stderr
    assert output.read_bytes().startswith(PNG)
    assert "OptimisticAdam" in result.stdout and "of 8 Gaussians found" in result.stdout


def test_without_torch(tmp_path):
    result = command_line("gan", "--output", str(tmp_path / "ring.png"), without="torch")
    assert result.returncode == 1
    assert one_line(result.stderr) == 'flatstep: gan needs torch: pip install "flatstep[demo,torch]"'


def test_help_keeps_names_as_they_are_written():
    assert "a small GAN on a ring of Gaussians in PyTorch" in command_line("gan", "--help").stdout
