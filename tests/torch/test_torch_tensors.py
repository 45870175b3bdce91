"""flatstep.torch on tensors of every kind: laid out anyhow, shared, of any dtype, subclassed, without numbers."""

from __future__ import annotations

import itertools

import pytest
from torch._subclasses import FakeTensorMode

import flatstep.torch as front
from torch_cases import (
    DEFAULT_PEERS,
    DEFAULTS,
    Snapshot,
    assert_close,
    give_grads,
    parametrize,
    same_bits,
    torch,
    torch_peer,
    twins,
)

Parameter = torch.nn.Parameter
defaults = parametrize(DEFAULTS)
SHAPE = (4, 6, 3, 5)
GAP = 7.25  # what lies between the elements


def permuted(values, *order):
    return values.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])


def within(values, *key):
    """The values at some places of a larger tensor."""
    shape = [length * 2 + 1 for length in values.shape]
    view = torch.full(shape, GAP, dtype=values.dtype)[key]
    return view.copy_(values)


LAYOUTS = {
    "contiguous": lambda values: values.clone(),
    "channels_last": lambda values: values.contiguous(memory_format=torch.channels_last),
    "transposed": lambda values: permuted(values, 1, 0, 2, 3),
    "any order": lambda values: permuted(values, 2, 0, 3, 1),
    "part": lambda values: torch.full((7, *SHAPE[1:]), GAP)[1:5].copy_(values),
    "sliced": lambda values: within(values, *[slice(0, 2 * length, 2) for length in SHAPE]),
    "column": lambda values: torch.full((*SHAPE, 2), GAP)[..., 1].copy_(values),
    "sliced and permuted": lambda values: within(
        permuted(values, 3, 1, 0, 2), *[slice(1, length + 1) for length in SHAPE]
    ),
}
GRADS = {
    **LAYOUTS,
    "expanded": lambda values: values[:, :1, :, :1].expand(SHAPE),
    "a number": lambda values: values[0, 0, 0, 0].expand(SHAPE),
    "negated": lambda values: torch.complex(values, -values).conj().imag,
    "negated, contiguous": lambda values: torch._neg_view(-values),
    "part of a pair": lambda values: torch.stack([values, values], -1)[..., 0],
}


@pytest.mark.parametrize("grad_layout", GRADS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, grad_layout):
    """The same bits as contiguous tensors; gaps are left alone; views of the parameter see the step."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(SHAPE, generator=generator)
    for case in DEFAULTS:
        placed = LAYOUTS[layout](values)
        param, plain, alias = Parameter(placed), Parameter(values.clone()), placed.view_as(placed)
        assert param.stride() == placed.stride()
        everything = torch.empty(0).set_(placed.untyped_storage())
        opt, peer, states = case.make([param]), case.make([plain]), []
        for _ in range(2):
            param.grad = GRADS[grad_layout](torch.randn(SHAPE, generator=generator))
            plain.grad = param.grad.resolve_neg().contiguous()
            gaps = everything == GAP
            opt.step()
            peer.step()
            assert (everything[gaps] == GAP).all()
            states.append(opt.state[param])
        assert states[0] is states[1]
        same_bits([param, alias, *opt.state[param].values()], [plain, plain, *peer.state[plain].values()], case.name)
        for key in opt.state_keys:
            assert opt.state[param][key].stride() == torch.zeros_like(param).stride()
    assert GRADS["negated"](values).is_neg()


@parametrize(DEFAULTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_that_share_a_bucket(case, dtype):
    """As DistributedDataParallel lays them: after a tensor of odd length none begins where its parameter would."""
    lengths = [1, 4100, 5, 2100]
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(length, generator=generator).to(dtype) for length in lengths]
    ours, theirs = ([Parameter(value.clone()) for value in values] for _ in range(2))
    grads = torch.empty(sum(lengths), dtype=dtype).split(lengths)
    assert [grad.data_ptr() % 16 != 0 for grad in grads] == [False, True, True, True]
    opt, peer = case.make(ours), case.make(theirs)
    for _ in range(2):
        for param, plain, grad in zip(ours, theirs, grads, strict=True):
            plain.grad = torch.randn(grad.shape, generator=generator).to(dtype)
            param.grad = grad.copy_(plain.grad)
        opt.step()
        peer.step()
    states = (
        [value for param in params for value in each.state[param].values()]
        for params, each in ((ours, opt), (theirs, peer))
    )
    same_bits([*ours, *next(states)], [*theirs, *next(states)])


# Several of these lie in one piece of memory.
def quarters(values):
    return [values[:2, :2], values[:2, 2:], values[2:, :2], values[2:, 2:]]


APART = {
    "columns": lambda values: [values[:, column] for column in range(4)],
    "even and odd": lambda values: [values.view(-1)[start::2] for start in range(2)],
    "rows and columns": lambda values: [values[0], values[1:, 0], values[1:, 1:]],
    "quarters": quarters,
}
TOGETHER = {
    "dense twice": lambda values: [values.view(-1)[:9], values.view(-1)[8:]],
    "the same": lambda values: [values, values.view(4, 4)],
    "sliced twice": lambda values: [values[::2], values[::2]],
    "row and column": lambda values: [values[0], values[:, 0]],
    "whole and part": lambda values: [values, values[1:, 1:]],
    "part and whole": lambda values: [values[1:, 1:], values],
    "quarters and middle": lambda values: [*quarters(values), values[1:3, 1:3]],
}


@defaults
@pytest.mark.parametrize("name", APART)
def test_parameters_that_interleave(case, name):
    """They share a piece of memory, but no element of it: the same bits as parameters of their own."""
    values = torch.arange(16.0).view(4, 4)
    params = [Parameter(view) for view in APART[name](values)]
    plain = [Parameter(view.clone()) for view in params]
    opt, peer = case.make(params), case.make(plain)
    for count in range(2):
        give_grads(params, plain, seed=count)
        opt.step()
        peer.step()
    same_bits(params, plain)


@defaults
@pytest.mark.parametrize("name", TOGETHER)
def test_parameters_that_overlap(case, name):
    """Rejected by name: torch's for-loop steps the common part once for each."""
    params = [Parameter(view) for view in TOGETHER[name](torch.arange(16.0).view(4, 4))]
    opt = case.make([{"params": [(f"of {index}", param)]} for index, param in enumerate(params)])
    give_grads(params, seed=0)
    before = Snapshot(opt)
    with pytest.raises(ValueError, match=r"param of \d shares memory with param of \d"):
        opt.step()
    before.check()
    params[0].grad = None
    if len(params) == 2:
        opt.step()


def test_an_expanded_parameter_is_rejected():
    param = Parameter(torch.ones(1).expand(4))
    param.grad = torch.ones(4)
    with pytest.raises(ValueError, match="param w has elements that share memory"):
        front.Adam([("w", param)]).step()


@parametrize(DEFAULT_PEERS)
def test_a_gradient_may_be_its_parameter(case):
    """As torch's for-loop does it; in gaps too."""
    for layout in (lambda values: values.clone(), lambda values: torch.stack([values] * 2)[:, 0]):
        ours, theirs = (layout(torch.arange(1.0, 9)).requires_grad_() for _ in range(2))
        opt, peer = case.make([ours]), torch_peer(case, [theirs])
        for _ in range(3):
            ours.grad, theirs.grad = ours.detach(), theirs.detach()
            opt.step()
            peer.step()
        assert_close(ours, theirs)


@defaults
def test_a_gradient_that_another_parameter_overwrites_is_rejected(case):
    memory = torch.arange(12.0)
    params = [Parameter(memory[:6]), Parameter(torch.ones(6))]
    params[0].grad, params[1].grad = torch.ones(6), memory[3:9]
    opt = case.make(params)
    before = Snapshot(opt)
    with pytest.raises(ValueError, match="grad of 1 of group 0 shares memory with param 0 of group 0"):
        opt.step()
    before.check()


@parametrize(DEFAULT_PEERS)
@pytest.mark.parametrize("layout", ["contiguous", "sliced"])
def test_a_parameter_that_stands_twice(case, layout):
    """torch warns, and then steps it twice."""
    ours, theirs = (LAYOUTS[layout](torch.ones(SHAPE)).requires_grad_() for _ in range(2))
    (other,), (another,) = twins([(3,)])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt, peer = case.make([ours, other, ours]), torch_peer(case, [theirs, another, theirs])
    for count in range(3):
        give_grads([ours, other], [theirs, another], seed=count)
        opt.step()
        peer.step()
    assert_close([ours, other], [theirs, another])
    assert opt.state[ours]["step"] == peer.state[theirs]["step"] == 6
    assert opt.state[other]["step"] == 3


@parametrize(DEFAULT_PEERS)
def test_a_parameter_that_stands_in_two_groups(case):
    """Put there by a script; stepped once for each, with the numbers of each."""
    (ours, other), (theirs, another) = twins([(3,), (4,)])
    opt = case.make([{"params": [ours]}, {"params": [other], "lr": 0.5}])
    peer = torch_peer(case, [{"params": [theirs]}, {"params": [another], "lr": 0.5}])
    opt.param_groups[1]["params"] = [other, ours]
    peer.param_groups[1]["params"] = [another, theirs]
    for count in range(2):
        give_grads([ours, other], [theirs, another], seed=count)
        opt.step()
        peer.step()
    assert_close([ours, other], [theirs, another])
    assert opt.state[ours]["step"] == 4


@parametrize(DEFAULT_PEERS)
def test_tied_parameters(case):
    """A module names them twice and lists them once."""

    def model():
        torch.manual_seed(0)
        tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
        tied[2].weight = tied[0].weight
        return tied

    ours, theirs = model(), model()
    opt, peer = case.make(ours.parameters()), torch_peer(case, theirs.parameters())
    for _ in range(3):
        for each, stepping in ((ours, opt), (theirs, peer)):
            each(torch.ones(2, 3)).square().sum().backward()
            stepping.step()
            stepping.zero_grad()
    assert_close(list(ours.parameters()), list(theirs.parameters()))
    assert opt.state[ours[0].weight]["step"] == 3


# Differences from torch's loop in narrow formats are the business of test_torch_numbers.
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]


@parametrize(DEFAULT_PEERS)
def test_dtypes_in_one_group(case):
    """States have the dtypes and layouts that torch gives them; each parameter has the bits it would have alone."""
    (ours, theirs), (alone, _) = ([[], []] for _ in range(2))
    for dtype in DTYPES:
        (param,), (other,) = twins([(5, 3)], dtype)
        ours.append(param)
        theirs.append(other)
        alone.append(Parameter(param.detach().clone()))
    opt, peer, opts = case.make(ours), torch_peer(case, theirs), [case.make([param]) for param in alone]
    for count in range(2):
        give_grads(ours, theirs, alone, seed=count)
        for each in (opt, peer, *opts):
            each.step()
    same_bits(ours, alone)
    for param, other in zip(ours, theirs, strict=True):
        assert {key: (value.dtype, value.stride()) for key, value in opt.state[param].items()} == {
            key: (value.dtype, value.stride()) for key, value in peer.state[other].items()
        }


@defaults
@pytest.mark.parametrize("conjugated", [False, True])
def test_complex_parameters(case, conjugated):
    """Pairs of real ones, as in torch's for-loop, conjugated gradients included."""
    (param, sliced), _ = twins([(5,), (4, 2)], torch.complex64)
    sliced = sliced.detach()[:, 1].requires_grad_()
    pairs = [Parameter(torch.view_as_real(each.detach().clone())) for each in (param, sliced)]
    opt, peer = case.make([param, sliced]), case.make(pairs)
    for count in range(3):
        give_grads([param, sliced], seed=count)
        for each, pair in zip((param, sliced), pairs, strict=True):
            each.grad = each.grad.conj() if conjugated else each.grad
            pair.grad = torch.view_as_real(each.grad.resolve_conj())
        opt.step()
        peer.step()
    same_bits([torch.view_as_real(param.detach()), torch.view_as_real(sliced.detach())], pairs)
    assert all(opt.state[param][key].dtype == torch.complex64 for key in opt.state_keys)


# Equal to the values, but other numbers lie in their memory.
MEANINGS = {
    "negated": lambda values: torch._neg_view(-values),
    "imaginary part": lambda values: torch.complex(values, -values).conj().imag,
    "conjugated": lambda values: values.conj().clone().conj(),
    "negated complex": lambda values: torch._neg_view(-values),
    "negated conjugate": lambda values: torch._neg_view(-values.conj().clone()).conj(),
}
COMPLEX = ("conjugated", "negated complex", "negated conjugate")


def exchanged(opt, param, key, meaning):
    """Puts an equal tensor that means other numbers than it holds in the place of one, which it returns."""
    owner = {"param": param, "grad": param.grad}.get(key)
    odd = meaning((opt.state[param][key] if owner is None else owner).detach())
    if key == "param":
        param.data = odd
        return param
    if key == "grad":
        param.grad = odd
    else:
        opt.state[param][key] = odd
    return odd


@defaults
@pytest.mark.parametrize("shape", [(5,), (), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", MEANINGS)
def test_what_a_tensor_means_is_asked_in_each_step(case, kind, shape):
    """Of parameters, gradients, state and counts: the same bits as plain tensors, in the same tensors."""
    dtype = torch.complex64 if kind in COMPLEX else torch.float32
    for key in ("param", "grad", "step", *case.make(twins([shape], dtype)[0]).state_keys):
        if key == "step" and kind in COMPLEX:
            continue
        (param,), (plain,) = twins([shape], dtype)
        opt, peer = case.make([param]), case.make([plain])
        for count in range(4):
            give_grads([param], [plain], seed=count)
            odd = exchanged(opt, param, key, MEANINGS[kind]) if count == 2 else None
            opt.step()
            peer.step()
            if odd is not None:
                assert odd.is_neg() or odd.is_conj()
                assert odd is param or odd is param.grad or odd is opt.state[param][key]
        same_bits(param, plain, key)
        same_bits(opt.state[param], peer.state[plain], key)


@pytest.mark.parametrize("kind", [*MEANINGS][:2])
def test_negated_parameters_and_gradients_step_as_in_torch(kind):
    case = DEFAULT_PEERS[0]
    ours, theirs = (Parameter(MEANINGS[kind](torch.arange(4.0))) for _ in range(2))
    opt, peer = case.make([ours]), torch_peer(case, [theirs])
    for count in range(3):
        for param in (ours, theirs):
            param.grad = MEANINGS[kind](torch.arange(4.0) + count)
        opt.step()
        peer.step()
    assert_close(ours, theirs)


def abstract(kind, make):
    """What ``make`` makes of tensors without numbers."""
    with FakeTensorMode() if kind == "fake" else torch.device("meta"):
        return make()


@pytest.mark.parametrize("kind", ["fake", "meta"])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_tensors_without_numbers(name, kind):
    """State is made, and updates are counted, as in torch: planners of memory step such models."""

    def stepped(library):
        model = torch.nn.Linear(4, 3)
        opt = getattr(library, name)(model.parameters(), lr=1e-3)
        for _ in range(2):
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            opt.step()
        return [opt.state[param] for param in model.parameters()]

    ours, theirs = (abstract(kind, lambda library=library: stepped(library)) for library in (front, torch.optim))
    for own, other in zip(ours, theirs, strict=True):
        assert [*own] == [*other]
        for key, value in own.items():
            assert type(value) is type(other[key])
            assert [value.shape, value.dtype, value.device] == [other[key].shape, other[key].dtype, other[key].device]
        assert kind == "fake" or own["step"] == other["step"] == 2


def test_tensors_without_numbers_beside_others():
    """The others are stepped."""
    params, plain = twins([(3,), (4,)])
    params.insert(1, Parameter(torch.zeros(5, device="meta")))
    opt, peer = front.Adam(params), front.Adam(plain)
    for count in range(2):
        give_grads([params[0], params[2]], plain, seed=count)
        params[1].grad = torch.zeros(5, device="meta")
        opt.step()
        peer.step()
    same_bits([params[0], params[2]], plain)
    assert opt.state[params[1]]["exp_avg"].is_meta and opt.state[params[1]]["step"] == 2


def test_mu_dtype():
    """Where the first moment is stored; the others stay."""
    (param,), (other,) = twins([(64,)], torch.bfloat16)
    opt = front.AMSGrad([{"params": param}, {"params": other, "mu_dtype": None}], mu_dtype=torch.float32)
    give_grads([param], [other], seed=0)
    opt.step()
    assert [opt.state[param][key].dtype for key in opt.state_keys] == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert opt.state[other]["exp_avg"].dtype == torch.bfloat16


@defaults
def test_parameters_move(case):
    """Into other memory, another layout, other dtypes before the first step: looked at anew in each step."""
    ours, theirs = twins([(4, 6), (3,)])
    opt, peer = case.make(ours), case.make(theirs)
    moves = [
        lambda param: param.data.clone(),
        lambda param: param.data.t().contiguous().t(),
        lambda param: torch.stack([param.data] * 2, -1)[..., 0],
    ]
    for count, move in enumerate(itertools.chain([None], moves)):
        for param in ours if move else ():
            before = param.data
            param.data = move(param) if param.dim() > 1 or move is moves[0] else param.data
            del before
        give_grads(ours, theirs, seed=count)
        opt.step()
        peer.step()
    same_bits(ours, theirs)


def test_a_module_moves_to_another_dtype():
    """Before the first step freely; after it, the state no longer fits, unless the narrow one may have it."""
    for dtype, steps, fits in [
        (torch.float64, 0, True),
        (torch.float64, 1, False),
        (torch.bfloat16, 1, True),
    ]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        opt = front.Adam(model.parameters(), lr=0.1)
        for _ in range(steps):
            give_grads(list(model.parameters()), seed=0)
            opt.step()
        model.to(dtype)
        give_grads(list(model.parameters()), seed=1)
        if fits:
            before = model.weight.detach().clone()
            opt.step()
            # The second step may be shorter than half of bfloat16's spacing.
            assert (model.weight != before).any() and model.weight.dtype == dtype
        else:
            with pytest.raises(TypeError, match="param 0 of group 0 has dtype float64, .* no kernel"):
                opt.step()


@defaults
def test_copies_on_write_are_not_written_through(case):
    """torch._lazy_clone shares memory until somebody writes."""
    (param,), (plain,) = twins([(9,)])
    opt, peer = case.make([param]), case.make([plain])
    for count in range(3):
        give_grads([param], [plain], seed=count)
        shared = [param.detach(), *opt.state.get(param, {}).values()]
        clones = [torch._lazy_clone(tensor) for tensor in shared]
        values = [tensor.clone() for tensor in shared]
        if count == 2:  # now the optimizer has the clones, and the originals must stay
            param.data, clones[0] = clones[0], param.data
            for at, key in enumerate(opt.state[param], 1):
                opt.state[param][key], clones[at] = clones[at], opt.state[param][key]
        opt.step()
        peer.step()
        same_bits(clones, values)
    same_bits(param, plain)


class Own(Parameter):
    """Of a user's own, in Python alone."""


class Logged(torch.Tensor):
    """One that wants to see every operation."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


class Wrapper(torch.Tensor):
    """One whose numbers are elsewhere."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        inner = [arg.inner if isinstance(arg, Wrapper) else arg for arg in args]
        return cls(func(*inner, **kwargs or {}))


@defaults
@pytest.mark.parametrize("subclass", [Own, Logged])
def test_subclasses_in_python(case, subclass):
    (plain,), (other,) = twins([(5,)])
    param = other.detach().as_subclass(subclass).requires_grad_()
    opt, peer = case.make([param]), case.make([plain])
    for count in range(2):
        give_grads([plain], seed=count)
        param.grad = plain.grad.clone().as_subclass(subclass)
        opt.step()
        peer.step()
    same_bits(param.as_subclass(torch.Tensor), plain)


ELSEWHERE = {
    "wrapper": (lambda: Wrapper(torch.ones(3)), TypeError, "w is a Wrapper"),
    "sparse": (lambda: torch.ones(3).to_sparse(), RuntimeError, "w is sparse"),
    "sparse rows": (lambda: torch.ones(3, 3).to_sparse_csr(), TypeError, "w has layout torch.sparse_csr"),
    "float8": (lambda: torch.ones(3).to(torch.float8_e4m3fn), TypeError, "w has dtype torch.float8_e4m3fn"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@defaults
@pytest.mark.parametrize("name", ELSEWHERE)
def test_tensors_that_cannot_be_stepped_are_rejected_by_name(case, name):
    make, error, message = ELSEWHERE[name]
    param = make().requires_grad_()
    param.grad = make()
    opt = case.make([("w", param)])
    with pytest.raises(error, match=message):
        opt.step()
    assert not opt.state


def test_tensors_of_functional_transforms_are_rejected():
    def step(value):
        param = value * 1
        param.grad = torch.ones_like(param)
        front.Adam([("w", param)]).step()
        return param

    with pytest.raises(TypeError, match="grad of w has no memory"), torch.no_grad():
        torch.vmap(step)(torch.ones(2, 3))


@defaults
@pytest.mark.parametrize("layout", ["contiguous", "sliced"])
def test_inference_mode(case, layout):
    """Tensors made in it, steps in it and outside: autograd does not follow them, which stops nobody here."""
    with torch.inference_mode():
        param = LAYOUTS[layout](torch.ones(SHAPE))
    plain = Parameter(torch.ones(SHAPE))
    opt, peer = case.make([param]), case.make([plain])
    for count in range(3):
        give_grads([plain], seed=count)
        param.grad = plain.grad
        with torch.inference_mode(count != 1):
            opt.step()
            peer.step()
    same_bits([param, *opt.state[param].values()], [plain, *peer.state[plain].values()])
    assert not any(value.is_inference() for value in peer.state[plain].values())
