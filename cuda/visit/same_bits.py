"""Whether a CUDA device gives the bits of the CPU: steps of every optimizer, and conversions. Run by visit.sh.

    same_bits.py [--dry]

Prints one line a check; the exit status is 1 if one fails. ``--dry`` tries the script out on the CPU.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

import flatstep
import flatstep.torch

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SIZES = [1, 63, 1025, 70001]
MANY_BLOCKS = 5_000_000  # of a norm: more than its kernels add up in one group
STEPS = 3
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
CHUNK = 2**26  # of the 2^32 numbers that float32 has
OF_THE_CPU = 61  # every 61st number is converted by the CPU too: all of them would take too long


def optimizers() -> list[type[torch.optim.Optimizer]]:
    """Those of flatstep.torch that need parameters alone."""
    public = [getattr(flatstep.torch, name) for name in flatstep.torch.__all__]
    classes = [one for one in public if isinstance(one, type) and issubclass(one, torch.optim.Optimizer)]
    return [one for one in classes if needed(one) == ["params"]]


def needed(function: Callable[..., object]) -> list[str]:
    """The arguments without a default."""
    taken = inspect.signature(function).parameters.values()
    return [argument.name for argument in taken if argument.default is argument.empty]


def differing(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many numbers of two tensors differ in their bits."""
    bits = [tensor.detach().cpu().view(INTEGERS[tensor.element_size()]) for tensor in (one, other)]
    return int((bits[0] != bits[1]).sum())


def steps_differ(optimizer: Callable[..., torch.optim.Optimizer], dtype: torch.dtype, device: str) -> int:
    """Numbers of parameters and state that differ after the same steps on the CPU and on the device."""
    torch.manual_seed(0)
    here = [torch.nn.Parameter(torch.randn(size).to(dtype)) for size in SIZES]
    there = [torch.nn.Parameter(param.detach().to(device, copy=True)) for param in here]
    opts = optimizer(here), optimizer(there)
    for _ in range(STEPS):
        for param, other in zip(here, there, strict=True):
            param.grad = torch.randn(param.shape).to(dtype)
            other.grad = param.grad.to(device, copy=True)
        for opt in opts:
            opt.step()
    count = 0
    for param, other in zip(here, there, strict=True):
        count += differing(param, other)
        count += sum(differing(slot, opts[1].state[other][key]) for key, slot in opts[0].state[param].items())
    return count


def limits_differ(dtype: torch.dtype, device: str) -> int:
    """The same of steps whose gradients are clipped, one of which is skipped; and norms that differ."""
    limited = partial(flatstep.torch.AMSGrad, max_norm=1.0, skip_nonfinite=True)
    count = steps_differ(limited, dtype, device)
    torch.manual_seed(1)
    here = [torch.nn.Parameter(torch.randn(size).to(dtype)) for size in [*SIZES, MANY_BLOCKS]]
    there = [torch.nn.Parameter(param.detach().to(device, copy=True)) for param in here]
    opts = limited(here), limited(there)
    for factor in (1.0, float("inf"), 1.0):
        for param, other in zip(here, there, strict=True):
            param.grad = torch.randn(param.shape).to(dtype) * factor
            other.grad = param.grad.to(device, copy=True)
        for opt in opts:
            opt.step()
        count += opts[0].grad_norm != opts[1].grad_norm and opts[0].grad_norm == opts[0].grad_norm
    for norm_type in (2.0, float("inf")):
        totals = [flatstep.torch.clip_grad_norm_(params, 1e30, norm_type).cpu() for params in (here, there)]
        count += differing(*totals)
    return count + (opts[0].skipped != opts[1].skipped) + sum(map(differing, here, there))


def tails_differ(dtype: torch.dtype, device: str) -> int:
    """Numbers that differ after steps of NumPy's front end that average parameters and zero gradients."""
    torch.manual_seed(2)
    here = [torch.randn(size).to(dtype) for size in SIZES]
    there = [param.to(device, copy=True) for param in here]
    more = dict(ema_decay=0.9, zero_grads=True, max_norm=1.0)
    opts = [flatstep.AMSGrad(params, 1e-2, **more) for params in (here, there)]
    count = 0
    for _ in range(STEPS):
        grads = [torch.randn(param.shape).to(dtype) for param in here]
        others = [grad.to(device, copy=True) for grad in grads]
        for opt, own in zip(opts, (grads, others), strict=True):
            opt.step(own if device != "cpu" and own is others else [grad.numpy() for grad in own])
        count += sum(int(grad.any()) for grad in (*grads, *others))
    averages = [[torch.as_tensor(average) for average in opt.ema] for opt in opts]
    return count + sum(map(differing, here, there)) + sum(map(differing, *averages))


def chunks(device: str, is_dry: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All float32 numbers but NaNs, part by part, and their bits as int64. A dry run has a few of them."""
    size, count = (2**16, 2) if is_dry else (CHUNK, 2**32 // CHUNK)
    for k in range(count):
        bits = torch.arange(k * size, (k + 1) * size, dtype=torch.int64, device=device)
        numbers = (bits - (bits >> 31 << 32)).to(torch.int32).view(torch.float32)
        is_number = ~numbers.isnan()
        yield numbers[is_number], bits[is_number]


def bfloat16_differ(device: str, is_dry: bool) -> int:
    """Conversions of float32 to bfloat16 that are not rounded to nearest even, as flatstep's format defines it."""
    count = 0
    for numbers, bits in chunks(device, is_dry):
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        count += int(((numbers.bfloat16().view(torch.int16).long() & 0xFFFF) != rounded).sum())
    return count


def float16_differ(device: str, is_dry: bool) -> int:
    """Conversions of float32 to float16 that differ from the CPU's."""
    count = 0
    for k, (numbers, _) in enumerate(chunks(device, is_dry)):
        few = numbers[k % OF_THE_CPU :: OF_THE_CPU]
        count += differing(few.half(), few.cpu().half())
    return count


def show_versions(device: str) -> None:
    where = "the CPU, a dry run" if device == "cpu" else torch.cuda.get_device_name()
    print("torch", torch.__version__, "CUDA", torch.version.cuda, "on", where, flush=True)
    try:
        from flatstep import _cuda
    except ImportError as error:
        print("no cuda target:", error, flush=True)
        return
    devices = [] if device == "cpu" else _cuda.devices()
    print("architectures", _cuda.architectures, "devices", devices, "XLA", hasattr(_cuda, "xla_handler"), flush=True)


def check(name: str, count_differing: Callable[[], int]) -> bool:
    """Prints how a check ends; whether it passed. A failure must not keep the next checks from running."""
    try:
        count = count_differing()
    except Exception as error:
        print(name, "FAILED", type(error).__name__, str(error)[:300], flush=True)
        return False
    print(name, f"{count} DIFFER" if count else "same bits", flush=True)
    return count == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Whether a CUDA device gives the bits of the CPU.")
    parser.add_argument("--dry", action="store_true", help="try it out on the CPU")
    is_dry = parser.parse_args(arguments).dry
    device = "cpu" if is_dry else "cuda"
    show_versions(device)
    passed = [
        check(f"{optimizer.__name__} {dtype}", partial(steps_differ, optimizer, dtype, device))
        for optimizer in optimizers()
        for dtype in DTYPES
    ]
    passed += [check(f"limits {dtype}", partial(limits_differ, dtype, device)) for dtype in DTYPES]
    tailed = [dtype for dtype in DTYPES if dtype != torch.bfloat16]  # which NumPy has not
    passed += [check(f"averages and zeros {dtype}", partial(tails_differ, dtype, device)) for dtype in tailed]
    conversion = "by the device's instruction, float32 to"
    passed.append(check(f"{conversion} bfloat16", partial(bfloat16_differ, device, is_dry)))
    passed.append(check(f"{conversion} float16", partial(float16_differ, device, is_dry)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
