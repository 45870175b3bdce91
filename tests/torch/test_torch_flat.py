"""flatstep.torch.flatten_parameters: the bits of the module as it was, whoever sets gradients to None meanwhile."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

import flatstep.torch as front
from flatstep.torch import flatten_parameters
from torch_cases import DEFAULTS, Snapshot, parametrize, same_bits, torch

defaults = parametrize(DEFAULTS)


class Net(torch.nn.Module):
    """With a 0-d, an empty, a tied and a channels-last parameter, and one that only some losses use."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.linear = torch.nn.Linear(3, 3)
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.empty = torch.nn.Parameter(torch.zeros(0, 3))
        self.tied = self.linear.weight
        self.seldom = torch.nn.Parameter(torch.ones(4))
        self.to(dtype)

    def forward(self, inputs, seldom=True):
        output = self.scale * self.linear(self.first(inputs).flatten(2).mean(2)) @ self.tied
        return output.square().sum() + (self.seldom.square().sum() if seldom else 0) + self.empty.sum()


def inputs(seed, dtype=torch.float32):
    return torch.randn(2, 2, 5, 5, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def flattened(case, dtype=torch.float32):
    net, plain = Net(dtype), Net(dtype)
    flat = flatten_parameters(net)
    return net, flat, case.make([flat]), plain, case.make(plain.parameters())


# What a training loop may do about gradients between steps; each takes the flattened module and its optimizer.
BETWEEN = {
    "one fill": lambda net, opt: opt.zero_grad(set_to_none=False),
    "optimizer": lambda net, opt: opt.zero_grad(),
    "module": lambda net, opt: net.zero_grad(),
    "module's fill": lambda net, opt: net.zero_grad(set_to_none=False),
    "both": lambda net, opt: (net.zero_grad(), opt.zero_grad()),
    "flat": lambda net, opt: setattr(opt.param_groups[0]["params"][0], "grad", None),
    "accumulate": lambda net, opt: None,
}


@pytest.mark.slow
@defaults
@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_as_the_module_as_it_was(case, name, dtype):
    net, _, opt, plain, peer = flattened(case, dtype)
    for count in range(4):
        BETWEEN[name](net, opt)
        if name != "accumulate":
            peer.zero_grad()
        for _ in range(2):
            for model in (net, plain):
                model(inputs(count, dtype)).backward()
        opt.step()
        peer.step()
        same_bits(list(net.parameters()), list(plain.parameters()), f"step {count}")
        for param, other in zip(net.parameters(), plain.parameters(), strict=True):
            same_bits(param.grad, other.grad)
    assert [state["step"].item() for state in opt.state.values()] == [4]


def test_parameters_stay():
    """The objects, names, layouts, gradients and ties of the module; its memory is the flat Parameter's."""
    net, plain = Net(), Net()
    for model in (net, plain):
        model(inputs(0), seldom=False).backward()
    before = dict(net.named_parameters(remove_duplicate=False))
    flat = flatten_parameters(net)
    assert isinstance(flat, torch.nn.Parameter) and flat.is_leaf and flat.requires_grad
    assert flat.shape == (sum(param.numel() for param in net.parameters()),)
    for name, param in net.named_parameters(remove_duplicate=False):
        assert param is before[name] and type(param) is torch.nn.Parameter
        other = plain.get_parameter(name)
        assert param.stride() == other.stride()
        same_bits(param, other)
        same_bits(param.grad, torch.zeros_like(other) if other.grad is None else other.grad)
    with torch.no_grad():
        flat.fill_(2.0)
        flat.grad.fill_(3.0)
    assert all((param == 2).all() and (param.grad == 3).all() for param in net.parameters())
    net.load_state_dict(plain.state_dict())
    same_bits(net.linear.weight, plain.linear.weight)
    assert (flat == 2).sum() == 0


def test_autograd_accumulates_into_the_flat_gradient():
    """In place, from the first backward on and after a fill; nothing is copied."""
    net = Net()
    flat = flatten_parameters(net)
    opt, grad, views = front.Adam([flat]), flat.grad, [param.grad for param in net.parameters()]
    for _ in range(2):
        net(inputs(0)).backward()
        assert flat.grad is grad and grad.any()
        assert all(param.grad is view for param, view in zip(net.parameters(), views, strict=True))
        opt.zero_grad(set_to_none=False)
        assert flat.grad is grad and not grad.any()


def test_none_means_none():
    """After zero_grad() and no backward nothing is stepped, whoever called it; after a fill, zeros are."""
    for name, steps in [("optimizer", False), ("module", False), ("one fill", True)]:
        net = Net()
        flat = flatten_parameters(net)
        opt = front.AdamW([flat])
        net(inputs(0)).backward()
        opt.step()
        BETWEEN[name](net, opt)
        assert (flat.grad is None) is not steps
        before = Snapshot(opt)
        opt.step()
        if not steps:
            before.check()
        assert opt.state[flat]["step"] == 1 + steps


def test_a_gradient_that_is_missing_counts_as_zero():
    """Stale numbers of an earlier backward do not come back."""
    net = Net()
    flat = flatten_parameters(net)
    opt = front.Adam([flat])
    net(inputs(0)).backward()
    net.zero_grad()
    net(inputs(1), seldom=False).backward()
    assert net.seldom.grad is None
    assert flat.grad.any() and not net.seldom.grad.any()
    net.linear.bias.grad = torch.full((3,), 5.0)
    assert (flat.grad == 5).sum() == 3
    net.linear.bias.grad = None
    assert (flat.grad == 5).sum() == 0
    opt.step()


def test_setting_the_flat_gradient():
    """It becomes the gradient of all; what does not fit is rejected."""
    net = Net()
    flat = flatten_parameters(net)
    values = torch.arange(float(flat.numel()))
    for grad in (values, values.repeat_interleave(2)[::2], values.requires_grad_()):
        flat.grad = grad
        same_bits(flat.grad, values)
        parts = [param.grad.as_strided((param.numel(),), (1,)) for param in net.parameters()]
        same_bits(torch.cat(parts), values)
    for bad in (values[1:], values.double(), values.to("meta")):
        with pytest.raises(ValueError, match="like the flat parameter"):
            flat.grad = bad
    same_bits(flat.grad, values)


def test_a_loss_of_the_flat_parameter_itself():
    """A penalty on all weights, say: its gradient joins the parameters'."""
    for clear in (lambda flat: None, lambda flat: setattr(flat, "grad", None)):
        net, plain = Net(), Net()
        flat = flatten_parameters(net)
        clear(flat)
        (net(inputs(0)) + flat.square().sum()).backward()
        (plain(inputs(0)) + sum(param.square().sum() for param in plain.parameters())).backward()
        assert flat.grad.any()
        for param, other in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(param.grad, other.grad)
        flat.grad = None
        assert flat.grad is None


def test_whoever_reads_the_gradient_finds_it():
    """clip_grad_norm_ and GradScaler, after a zero_grad() that left the parameters with gradients of their own."""
    net, flat, opt, plain, peer = flattened(DEFAULTS[0])
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for count in range(3):
        opt.zero_grad()
        peer.zero_grad()
        scaler.scale(net(inputs(count))).backward()
        plain(inputs(count)).backward()
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_([flat], 0.25)
        norms = [torch.nn.utils.get_total_norm([param.grad for param in model.parameters()]) for model in (net, plain)]
        for param in plain.parameters():
            param.grad *= 0.25 / (norms[1] + 1e-6)
        torch.testing.assert_close(norms[0], torch.tensor(0.25), rtol=1e-4, atol=0)
        scaler.step(opt)
        scaler.update()
        peer.step()
        torch.testing.assert_close(list(net.parameters()), list(plain.parameters()), rtol=1e-4, atol=1e-5)
    opt.zero_grad()
    scaler.scale(net(inputs(0)) * float("inf")).backward()
    before = Snapshot(opt)
    scaler.step(opt)
    before.check()


def test_torchs_own_optimizers_may_step_it():
    net, plain = Net(), Net()
    flat = flatten_parameters(net)
    opt, peer = torch.optim.Adam([flat], lr=0.1), torch.optim.Adam(plain.parameters(), lr=0.1)
    for count in range(3):
        for model, each in ((net, opt), (plain, peer)):
            each.zero_grad()
            model(inputs(count)).backward()
            each.step()
    torch.testing.assert_close(list(net.parameters()), list(plain.parameters()))


def through_pickle(both):
    return pickle.loads(pickle.dumps(both))


def through_torch_save(both):
    buffer = io.BytesIO()
    torch.save(both, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("way", [copy.deepcopy, through_pickle, through_torch_save])
@pytest.mark.parametrize("module_first", [True, False])
def test_copies_of_module_and_optimizer_belong_together(way, module_first):
    net, flat, opt, *_ = flattened(DEFAULTS[0])
    net(inputs(0)).backward()
    opt.step()
    copied = way((net, opt) if module_first else (opt, net))
    other_net, other = copied if module_first else copied[::-1]
    assert other.param_groups[0]["params"][0] is not flat
    same_bits(list(other_net.parameters()), list(net.parameters()))
    before = Snapshot(opt)
    for model, each in ((other_net, other), (net, opt)):
        each.zero_grad()
        model(inputs(1)).backward()
        each.step()
        if each is other:
            before.check()
    same_bits(list(other_net.parameters()), list(net.parameters()))


MOVES = {
    "data": lambda net: setattr(net.linear.weight, "data", net.linear.weight.data.clone()),
    "dtype": lambda net: net.double(),
    "layout": lambda net: net.first.to(memory_format=torch.contiguous_format),
    "flattened again": flatten_parameters,
}


@pytest.mark.parametrize("name", MOVES)
def test_a_parameter_that_left_the_buffer_is_noticed(name):
    """The step would go by the module."""
    net = Net()
    flat = flatten_parameters(net)
    opt = front.Adam([flat])
    net(inputs(0)).backward()
    opt.step()
    MOVES[name](net)
    before = Snapshot(opt)
    for use in (opt.step, opt.zero_grad):
        with pytest.raises(RuntimeError, match=r"parameter \S+ no longer lies in its flat buffer"):
            use()
    before.check()
    again = flatten_parameters(net)
    front.Adam([again]).step()


def test_a_buffer_that_left_its_parameters_is_noticed():
    flat = flatten_parameters(Net())
    flat.data = flat.data.clone()
    with pytest.raises(RuntimeError, match="no longer lies in its flat buffer"):
        front.Adam([flat]).step()


def test_a_module_may_move_into_shared_memory():
    net = Net()
    flat = flatten_parameters(net)
    opt = front.Adam([flat])
    net.share_memory()
    net(inputs(0)).backward()
    before = net.linear.weight.detach().clone()
    opt.step()
    assert net.linear.weight.is_shared() and (net.linear.weight != before).all()


class Own(torch.nn.Parameter):
    pass


def flattened_before(net):
    net.seldom = flatten_parameters(Net())


REJECTED = {
    "dtype": (lambda net: net.first.double(), ValueError, "first.weight is torch.float64"),
    "frozen": (lambda net: net.scale.requires_grad_(False), ValueError, "scale requires no gradient"),
    "subclass": (lambda net: setattr(net, "seldom", Own(torch.ones(2))), TypeError, "seldom is a Own"),
    "flat within": (flattened_before, TypeError, "seldom is a FlatParameter"),
    "shared": (
        lambda net: setattr(net, "seldom", torch.nn.Parameter(net.first.bias.detach()[1:])),
        ValueError,
        "first.bias shares memory with seldom",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_flattened(name):
    """Rejected before anything has moved."""
    change, error, message = REJECTED[name]
    net = Net()
    change(net)
    before = [(param, param.data_ptr(), param.grad) for param in net.parameters()]
    with pytest.raises(error, match=message):
        flatten_parameters(net)
    assert [(id(param), param.data_ptr(), param.grad) for param in net.parameters()] == [
        (id(param), address, grad) for param, address, grad in before
    ]


def test_a_module_without_parameters_is_rejected():
    with pytest.raises(ValueError, match="no parameters"):
        flatten_parameters(torch.nn.ReLU())


def test_parts_of_a_module():
    """Flattened apart, stepped together with what is not flat."""
    net, plain = Net(), Net()
    flats = [flatten_parameters(net.first), flatten_parameters(net.linear)]
    opt = front.AMSGrad([{"params": flats}, {"params": [net.scale, net.seldom, net.empty]}])
    peer = front.AMSGrad(plain.parameters())
    for count in range(3):
        for model, each in ((net, opt), (plain, peer)):
            each.zero_grad()
            model(inputs(count)).backward()
            each.step()
    same_bits(list(net.parameters()), list(plain.parameters()))
