"""flatstep.torch on a CUDA device: the bits of the CPU, one sweep a step, no waiting. Runs where there is one."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

import flatstep.torch
from torch_cases import CASES, DEFAULTS, GRADIENTS, give_grads, parametrize, same_bits, torch, twins

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [(130,), (), (3, 5, 7), (0, 4), (64,), (2100,), (300, 257), (8, 3, 5, 5)]
DEVICE = "cuda"
by_name = parametrize(CASES)
defaults = parametrize(DEFAULTS)


def pair(shapes, dtype=torch.float32, seed=0):
    """Equal parameters on the CPU and on the device."""
    here, there = twins(shapes, dtype, seed)
    return here, [torch.nn.Parameter(param.detach().to(DEVICE)) for param in there]


def train(case, here, there, steps=5, first=0, optimizers=None, **more):
    """Steps both with equal gradients; returns the optimizers."""
    opts = optimizers or (case.make(here, **more), case.make(there, **more))
    for count in range(first, first + steps):
        give_grads(here, seed=count)
        for param, other in zip(here, there, strict=True):
            other.grad = param.grad.to(DEVICE)
        for opt in opts:
            opt.step()
    return opts


def same(opts, here, there):
    """Parameters, state and counts, to the bit."""
    same_bits([param.cpu() for param in there], [param.detach() for param in here])
    for param, other in zip(here, there, strict=True):
        same_bits({k: slot.cpu() for k, slot in opts[1].state[other].items()}, dict(opts[0].state[param]))


@defaults
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_that_share_a_bucket(case, dtype):
    """As DistributedDataParallel lays them: after a tensor of odd length none begins where its parameter would."""
    lengths = [1, 4100, 5, 70_001]
    here, there = pair([(length,) for length in lengths], dtype)
    bucket = torch.empty(sum(lengths), dtype=dtype, device=DEVICE).split(lengths)
    opts = case.make(here), case.make(there)
    for count in range(2):
        give_grads(here, seed=count)
        for param, other, grad in zip(here, there, bucket, strict=True):
            other.grad = grad.copy_(param.grad)
        for opt in opts:
            opt.step()
    same(opts, here, there)


@by_name
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bits_of_the_cpu(case, dtype):
    here, there = pair(SHAPES, dtype)
    same(train(case, here, there), here, there)


@defaults
@pytest.mark.parametrize("tensors", [1, 1_000, 10_000])
def test_many_tensors(case, tensors):
    here, there = pair([(i % 70 + 1,) for i in range(tensors)])
    same(train(case, here, there, steps=2), here, there)


LAID_OUT = {
    "offset": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second": lambda x: torch.stack([x, x], -1)[..., 0],
}


@defaults
@pytest.mark.parametrize("of_param", LAID_OUT)
@pytest.mark.parametrize("of_grad", LAID_OUT)
def test_layouts(case, of_param, of_grad):
    """Heads, tails and strides: however parameters and gradients lie, the numbers are the same."""
    here, _ = twins([(33, 7, 5, 9), (4, 1030, 3, 3)])
    there = [torch.nn.Parameter(LAID_OUT[of_param](param.detach().to(DEVICE))) for param in here]
    opts = case.make(here), case.make(there)
    for count in range(3):
        give_grads(here, seed=count)
        for param, other in zip(here, there, strict=True):
            other.grad = LAID_OUT[of_grad](param.grad.to(DEVICE))
        for opt in opts:
            opt.step()
    same_bits([param.cpu() for param in there], [param.detach() for param in here])


@defaults
@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_that_take_another_path(case, kind, dtype):
    here, there = pair([(33,), (7, 129), (1,), (2100,)], dtype)
    opts = case.make(here), case.make(there)
    for count in range(3):
        give_grads(here, seed=count)
        for params in (here, there):
            grads = GRADIENTS[kind]([param.grad.to(other.device) for param, other in zip(here, params, strict=True)])
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
        for opt in opts:
            opt.step()
    same(opts, here, there)


@defaults
def test_denormals(case):
    """Numbers down to the smallest are neither flushed on the way in nor kept where the rule flushes them."""
    here, there = pair([(4096,)])
    tiny = torch.arange(-2048, 2048, dtype=torch.float32) * 2.0**-149
    opts = case.make(here, lr=1e-38), case.make(there, lr=1e-38)
    for param in (*here, *there):
        param.data.copy_(tiny)
        param.grad = tiny.flip(0).to(param.device)
    for opt in opts * 2:
        opt.step()
    same(opts, here, there)


@defaults
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_waits(case):
    """Neither a step, nor its gradients' new places, nor a loss's scale make the host wait for the device."""
    _, there = pair(SHAPES)
    opt = case.make(there, lr=torch.tensor(0.05, device=DEVICE), capturable=True)
    opt.grad_scale, opt.found_inf = (torch.tensor(value, device=DEVICE) for value in (8.0, 0.0))
    grads = [[torch.ones_like(param) for param in there] for _ in range(6)]
    opt.step()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for each in grads:
            for param, grad in zip(there, each, strict=True):
                param.grad = grad
            opt.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@defaults
def test_the_host_is_ahead(case):
    """A step returns while the device still does what it was given before."""
    _, there = pair(SHAPES)
    opt = case.make(there)
    for param in there:
        param.grad = torch.ones_like(param)
    opt.step()
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    torch.cuda._sleep(10**9)
    busy.record()
    for _ in range(3):
        for param in there:
            param.grad = param.grad.clone()
        opt.step()
    assert not busy.query()
    torch.cuda.synchronize()


@defaults
def test_grad_scaler(case):
    """One step in three overflows; scale and counts follow as on the CPU."""
    here, there = pair([(33,), (5, 4)])
    opts = case.make(here), case.make(there)
    scalers = [torch.amp.GradScaler(device, init_scale=64.0, growth_interval=2) for device in ("cpu", DEVICE)]
    for count in range(6):
        for params, opt, scaler in zip((here, there), opts, scalers, strict=True):
            opt.zero_grad()
            factor = float("inf") if count % 3 == 1 else 1.0 + count
            scaler.scale(sum((param * factor).sum() for param in params)).backward()
            scaler.step(opt)
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale()
    same(opts, here, there)


@defaults
def test_a_graph_follows_its_schedule(case):
    here, there = pair(SHAPES)
    rate = torch.tensor(0.05, dtype=torch.float64, device=DEVICE)
    opts = case.make(here), case.make(there, lr=rate, capturable=True)
    grads = [torch.zeros_like(param) for param in there]
    for param, grad in zip(there, grads, strict=True):
        param.grad = grad

    def give(count):
        give_grads(here, seed=count)
        for param, grad in zip(here, grads, strict=True):
            grad.copy_(param.grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        give(0)
        opts[1].step()
    torch.cuda.current_stream().wait_stream(side)
    opts[0].step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opts[1].step()
    for count in range(1, 8):
        give(count)
        rate.fill_(0.1 / count)
        opts[0].param_groups[0]["lr"] = 0.1 / count
        if count % 3 == 0:
            opts[1].step()
        else:
            graph.replay()
        opts[0].step()
    same(opts, here, there)


def test_a_graph_needs_capturable():
    _, there = pair([(5,)])
    opt = CASES[0].make(there)
    there[0].grad = torch.ones_like(there[0])
    opt.step()
    before = there[0].detach().clone()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        there[0].grad.mul_(2)  # torch warns of graphs with nothing in them
        with pytest.raises(RuntimeError, match="capturable=True"):
            opt.step()
    torch.cuda.synchronize()
    same_bits(there[0].cpu(), before.cpu())


@defaults
def test_two_streams_in_turn(case):
    """Each waits for the other, as torch's streams do; numbers change at each step."""
    here, there = pair(SHAPES)
    opts = case.make(here), case.make(there)
    streams = [torch.cuda.Stream() for _ in range(2)]
    for count in range(20):
        give_grads(here, seed=count)
        for opt in opts:
            opt.param_groups[0]["lr"] = 0.1 / (count + 1)
        opts[0].step()
        stream, other = streams[count % 2], streams[(count + 1) % 2]
        stream.wait_stream(other)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for param, peer in zip(here, there, strict=True):
                peer.grad = param.grad.to(DEVICE)
            opts[1].step()
    torch.cuda.synchronize()
    same(opts, here, there)


def captured(opt):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.step()
    return graph


def free_memory():
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def test_captured_again_and_again():
    """A graph's tables go with it: 100 graphs of 2,000 tensors would keep some 20 MB."""
    _, there = pair([(3,)] * 2000)
    opt = DEFAULTS[0].make(there, capturable=True)
    for param in there:
        param.grad = torch.ones_like(param)
    opt.step()
    for _ in range(3):
        graph = captured(opt)
    before = free_memory()
    for _ in range(100):
        graph = captured(opt)
        graph.replay()
    assert before - free_memory() < 8 * 2**20


@defaults
def test_a_graph_outlives_its_optimizer(case):
    here, there = pair(SHAPES)
    opts = [case.make(here), case.make(there, capturable=True)]
    give_grads(here, seed=0)
    for param, other in zip(here, there, strict=True):
        other.grad = param.grad.to(DEVICE)
    for opt in opts:
        opt.step()
    graph = captured(opts[1])
    state = opts[1].state
    opts[1] = None
    free_memory()
    for _ in range(2):
        graph.replay()
        opts[0].step()
    same((opts[0], SimpleNamespace(state=state)), here, there)


@defaults
def test_state_moves_between_devices(case):
    """Half the way here, half there, by a checkpoint, against the CPU all the way."""
    here, there = pair(SHAPES)
    other, _ = twins(SHAPES)
    opts = train(case, here, there, steps=3)
    moved = case.make(other)
    moved.load_state_dict(opts[1].state_dict())
    for param, own in zip(other, there, strict=True):
        param.data.copy_(own)
    back = case.make(there)
    back.load_state_dict(moved.state_dict())
    same(train(case, here, there, steps=3, first=3, optimizers=(opts[0], back)), here, there)


@defaults
def test_groups_on_several_devices(case):
    """The CPU, and every device that there is: one optimizer."""
    places = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    here, other = twins(SHAPES * len(places))
    there = [torch.nn.Parameter(p.detach().to(places[i % len(places)])) for i, p in enumerate(other)]
    opts = case.make(here), case.make(there)
    current = torch.cuda.current_device()
    for count in range(3):
        give_grads(here, seed=count)
        for param, moved in zip(here, there, strict=True):
            moved.grad = param.grad.to(moved.device)
        for opt in opts:
            opt.step()
    assert torch.cuda.current_device() == current
    same_bits([param.cpu() for param in there], [param.detach() for param in here])


def test_past_two_to_the_31():
    """One tensor of more elements than an int32 counts: its ends and its middle."""
    count = 2**31 + 5
    if torch.cuda.mem_get_info()[0] < 6 * 2 * count:
        pytest.skip("needs 26 GB of device memory")
    case = next(case for case in DEFAULTS if case.name == "Adam-default")
    param = torch.nn.Parameter(torch.zeros(count, dtype=torch.float16, device=DEVICE))
    parts = [slice(0, 100), slice(2**31 - 50, 2**31 + 5), slice(10**9, 10**9 + 100)]
    grad = torch.zeros_like(param)
    here, _ = twins([(part.stop - part.start,) for part in parts], torch.float16)
    give_grads(here, seed=0)
    with torch.no_grad():
        for own, part in zip(here, parts, strict=True):
            param[part], grad[part] = own.to(DEVICE), own.grad.to(DEVICE)
    param.grad = grad
    case.make([param]).step()
    case.make(here).step()
    for own, part in zip(here, parts, strict=True):
        same_bits(param[part].cpu(), own.detach())


@defaults
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_limits_have_the_bits_of_the_cpu(case, dtype):
    """A norm of many blocks, gradients that are clipped, and a step that is skipped."""
    here, there = pair([*SHAPES, (70_001,)], dtype)
    opts = train(case, here, there, steps=2, max_norm=1.0, skip_nonfinite=True)
    assert opts[0].grad_norm == opts[1].grad_norm
    for params in (here, there):
        params[0].grad[7] = torch.nan
    for opt in opts:
        opt.step()
    assert opts[0].skipped == opts[1].skipped == 1
    same(train(case, here, there, steps=1, first=2, optimizers=opts), here, there)


def test_a_limited_step_waits_for_nothing():
    """Nor does it in a graph, where it finds the norm of the gradients that are there."""
    _, there = pair(SHAPES)
    opt = CASES[0].make(there, capturable=True, max_norm=1.0, skip_nonfinite=True)
    for param in there:
        param.grad = torch.ones_like(param)
    opt.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        opt.step()
        flatstep.torch.clip_grad_norm_(there, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.step()
    for param in there:
        param.grad.fill_(2)
    graph.replay()
    assert opt.grad_norm == 2 * sum(param.numel() for param in there) ** 0.5
