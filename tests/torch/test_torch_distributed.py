"""Two processes on the CPU: data parallel, sharded and tensor-parallel modules, and what is saved of them.

Also what such training asks of an optimizer in one process. Scenarios are in torch_training.py, torch_checkpoints.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from torch_cases import front, torch

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's own, on import
    import torch_worker
from torch_twins import RANKS, SCENARIOS, Net

SECONDS = 240  # for all scenarios; they take about 30


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What each rank says of each scenario, and what it printed."""
    folder = tmp_path_factory.mktemp("distributed")
    outputs = [folder / f"output-{rank}" for rank in range(RANKS)]
    ranks = []
    try:
        for rank, output in enumerate(outputs):
            command = [sys.executable, torch_worker.__file__, str(folder), str(rank)]
            with output.open("w") as file:
                ranks.append(subprocess.Popen(command, stdout=file, stderr=file))
        for rank in ranks:
            rank.wait(SECONDS)
    except subprocess.TimeoutExpired:
        pass  # the scenarios that are missing say so
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [(results_of(folder / f"report-{rank}"), output.read_text()) for rank, output in enumerate(outputs)]


def results_of(report: Path) -> dict[str, str]:
    return json.loads(report.read_text()) if report.exists() else {}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_processes(scenario, reports):
    for rank, (results, output) in enumerate(reports):
        result = results.get(scenario, f"it did not finish; its last output:\n{output[-3000:]}")
        assert result == "passed", f"rank {rank}: {result}"


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_groups_have_the_keys_of_torch(name, amsgrad):
    """By which a distributed checkpoint of the one is loaded into the other."""
    param = torch.nn.Parameter(torch.ones(2))
    theirs = getattr(torch.optim, name)([param], amsgrad=amsgrad)
    ours = [getattr(front, name)([param], amsgrad=amsgrad)]
    if amsgrad and name == "Adam":
        ours.append(front.AMSGrad([param]))
    for optimizer in ours:
        assert optimizer.param_groups[0].keys() == theirs.param_groups[0].keys()


EXTRAS = [
    (front.Adam, dict(eps_root=1e-4)),
    (front.Adam, dict(nesterov=True)),
    (front.AMSGrad, dict(mu_dtype=torch.bfloat16)),
    (front.AMSGrad, dict(convention="paper")),
    (front.OptimisticAdam, dict(nesterov=True)),
    (front.OptimisticAdam, dict(nesterov=False)),
]


@pytest.mark.parametrize("make, extra", EXTRAS, ids=str)
def test_what_torch_has_no_key_for_is_saved_where_it_matters(make, extra):
    """Into an optimizer that was made with other numbers: what is loaded holds, also what goes without saying."""

    def stepped(optimizer):
        param.grad = torch.full_like(param, 0.3)
        with torch.no_grad():
            param.copy_(torch.tensor([1.0, -2.0]))
        optimizer.step()
        return param.detach().clone()

    param = torch.nn.Parameter(torch.ones(2))
    others = {"eps_root": dict(eps_root=0.5), "nesterov": dict(nesterov=not extra.get("nesterov", True))}
    original = make([param], **extra)
    stepped(original)
    saved = original.state_dict()
    for name in extra.keys() & others.keys():
        loaded = make([param], **others[name])
        loaded.load_state_dict(saved)
        assert torch.equal(stepped(loaded), stepped(original))
    if make is front.Adam:
        plain = make([param])
        stepped(plain)
        loaded = make([param], **extra)
        loaded.load_state_dict(plain.state_dict())
        assert torch.equal(stepped(loaded), stepped(plain))


def test_optimizer_in_backward():
    """One optimizer a parameter, stepped by a hook as soon as the gradient is there, equals one over all."""
    modules = [Net() for _ in range(2)]
    together = front.AMSGrad(modules[0].parameters(), lr=0.1)
    own = {param: front.AMSGrad([param], lr=0.1) for param in modules[1].parameters()}

    def step_now(param):
        own[param].step()
        own[param].zero_grad()

    hooks = [param.register_post_accumulate_grad_hook(step_now) for param in own]
    for _ in range(4):
        inputs = torch.randn(3, 5)
        together.zero_grad()
        for module in modules:
            (module(inputs) - 1).square().mean().backward()
        together.step()
    for param, expected in zip(own, together.param_groups[0]["params"], strict=True):
        assert param.grad is None
        assert torch.equal(param, expected)
    for hook in hooks:
        hook.remove()  # else torch holds on to the optimizers for good
