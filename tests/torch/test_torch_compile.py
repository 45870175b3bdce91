"""flatstep.torch beside torch.compile: a compiled model with the eager step, and a step that breaks the graph."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torch_cases import DEFAULTS, give_grads, parametrize, same_bits, torch, twins

BACKENDS = ["eager", "aot_eager"]
SHAPES = [(7, 3), (40,)]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def train(opt, forward, step, count):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        opt.zero_grad()
        forward(torch.randn(5, 4, generator=generator)).square().sum().backward()
        step()


@pytest.mark.slow
@parametrize(DEFAULTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model(case, backend):
    """The eager step sees gradients of the eager model's bits."""
    ours, theirs = model(), model()
    opt, peer = case.make(ours.parameters()), case.make(theirs.parameters())
    train(opt, torch.compile(ours, backend=backend), opt.step, 3)
    train(peer, theirs, peer.step, 3)
    same_bits(list(ours.parameters()), list(theirs.parameters()))


@parametrize(DEFAULTS)
def test_a_compiled_step(case):
    """It stays as it is, hooks included; closures, schedulers and a missing gradient too."""
    ours, theirs = twins(SHAPES)
    opt, peer, calls = case.make(ours), case.make(theirs), []
    opt.register_step_post_hook(lambda *_: calls.append("post"))
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.5) for each in (opt, peer)]
    compiled = torch.compile(opt.step, backend="eager")
    for count in range(4):
        give_grads(ours, theirs, seed=count)
        if count == 2:
            ours[0].grad = theirs[0].grad = None
        assert compiled(lambda: 3.0) == 3.0
        peer.step()
        for scheduler in schedulers:
            scheduler.step()
    same_bits(ours, theirs)
    same_bits([opt.state[param]["step"] for param in ours], [torch.tensor(3.0), torch.tensor(4.0)])
    assert calls == ["post"] * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # which torch hides, else
@parametrize(DEFAULTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_training_step(case, backend):
    """Forward, backward and step in one function, whose graph breaks at the step and is not compiled each time."""
    ours, theirs = model(), model()
    opt, peer = case.make(ours.parameters()), case.make(theirs.parameters())
    inputs = torch.linspace(-1, 1, 20).view(5, 4)
    graphs = []

    def counting(graph, example_inputs):
        graphs.append(graph)
        return graph if backend == "eager" else torch._dynamo.lookup_backend(backend)(graph, example_inputs)

    def step(model, opt):
        opt.zero_grad()
        loss = model(inputs).square().sum()
        loss.backward()
        opt.step()
        return loss * 2

    compiled = torch.compile(step, backend=counting)
    for count in range(4):
        torch.testing.assert_close(compiled(ours, opt), step(theirs, peer))
        if count == 2:
            known = len(graphs)
    assert len(graphs) == known
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))
    assert opt.state[ours[0].weight]["step"] == 4


def test_a_graph_without_breaks_is_rejected():
    params, _ = twins(SHAPES)
    opt = DEFAULTS[0].make(params)
    give_grads(params, seed=0)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(opt.step, backend="eager", fullgraph=True)()
    assert not opt.state
    opt.step()


@pytest.mark.slow
def test_says_nothing():
    """No warning, no log."""
    code = """
import torch, flatstep.torch
param = torch.nn.Parameter(torch.ones(3))
param.grad = torch.ones(3)
opt = flatstep.torch.AMSGrad([param], lr=0.5)
step = torch.compile(opt.step, backend="eager")
step(), step()
print(param.tolist())
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout == "[0.0, 0.0, 0.0]\n"


def test_a_compiled_step_with_an_average_and_zeros():
    """It stays as it is, and so does the exchange of parameters with their averages."""
    ours, theirs = twins(SHAPES)
    opt, peer = (DEFAULTS[0].make(params, ema_decay=0.5, zero_grads=True) for params in (ours, theirs))

    def step_and_swap(opt, params):
        opt.step()
        opt.swap_ema()
        total = sum(param.detach().sum() for param in params)
        opt.swap_ema()
        return total

    compiled = torch.compile(step_and_swap, backend="eager")
    for count in range(3):
        give_grads(ours, theirs, seed=count)
        same_bits(compiled(opt, ours), step_and_swap(peer, theirs))
        same_bits([*ours, *opt.ema], [*theirs, *peer.ema])
        assert not any(param.grad.any() for param in ours)
