"""The most important times of flatstep on a CUDA device, the most important first. Run by visit.sh.

    timings.py FILE SECONDS [--dry]

Each result is a JSON object: printed, and appended as a line to FILE as soon as it is known. A case for which there is
no time is named as skipped. The exit status is 1 if a case fails. ``--dry`` tries the script out on the CPU, with small
tensors.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flatstep.bench.device import clock, host_seconds
from flatstep.bench.measure import Run, host_clock
from flatstep.bench.shapes import Lengths, gpt2_small, small

import flatstep
import flatstep.torch as ours

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
Row = dict[str, Any]

LEAST = 6.0  # seconds that a case may take: with less time left, none begins
WARM_UPS = 5
ROUNDS = 15
IN_A_ROW = 100


class Place:
    """Where tensors are, and how the time of a step there is taken: a CUDA device, or the CPU in a dry run."""

    def __init__(self, is_dry: bool) -> None:
        self.is_dry = is_dry
        self.device = "cpu" if is_dry else "cuda"
        self.huge = 2**16 if is_dry else 2**28  # elements

    def seconds(self, run: Run) -> float:
        """Of one run on the device, with nothing in its cache."""
        return host_clock(run, 1) if self.is_dry else clock(run, ROUNDS)

    def host_seconds(self, run: Run) -> float:
        """For which one run keeps the host, while the device has nothing else to do."""
        return host_clock(run, 1) if self.is_dry else host_seconds(run)

    def row_seconds(self, run: Run) -> float:
        """Of one run out of many in a row, to the end of the last: the host's time or the device's, the longer one."""
        if self.is_dry:
            return host_clock(run, 2)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(IN_A_ROW):
            run()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / IN_A_ROW

    def name(self) -> str:
        return "none" if self.is_dry else torch.cuda.get_device_name()

    def free_memory(self) -> None:
        """Gives back what the last case had."""
        gc.collect()
        if not self.is_dry:
            torch.cuda.empty_cache()


class Report:
    """Writes a row as soon as it is known, and knows how much time is left."""

    def __init__(self, path: Path, seconds: float, place: Place) -> None:
        self._start, self._seconds = time.perf_counter(), seconds
        self._path, self._place = path, place
        self.failures = 0

    def write(self, **row: Any) -> None:
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        text = json.dumps({**rounded, "at": round(self._spent(), 1)})
        print(text, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def case(self, name: str, measure: Callable[[], Row]) -> None:
        """Measures a case, if there is time for it. Its failure must not keep the next cases from running."""
        if self._seconds - self._spent() < LEAST:
            self.write(skipped=name)
            return
        try:
            self.write(case=name, **measure())
        except Exception as error:
            self.failures += 1
            self.write(case=name, failed=f"{type(error).__name__}: {error}"[:300])
        self._place.free_memory()

    def _spent(self) -> float:
        return time.perf_counter() - self._start


# --- one tensor: the share of the bandwidth that a copy has -----------------------------------------------------------


class Case(NamedTuple):
    """A step over one tensor."""

    name: str
    make: Make
    dtype: torch.dtype = torch.float32
    part: int = 1  # the tensor has this part of the most elements: 2 is a half
    is_zero: bool = False  # the gradient
    off: tuple[str, ...] = ()  # of param, grad, state: those that begin one element after a multiple of 16 bytes


def torch_adam(params: list[torch.nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, **options)


FUSED = partial(torch_adam, fused=True)
FUSED_AMSGRAD = partial(torch_adam, fused=True, amsgrad=True)
FOREACH_AMSGRAD = partial(torch_adam, foreach=True, amsgrad=True)

FIRST = [
    Case("flatstep AMSGrad f32", ours.AMSGrad),
    Case("torch fused amsgrad f32", FUSED_AMSGRAD),
    Case("flatstep OptimisticAdam f32", ours.OptimisticAdam),
    Case("flatstep Adam f32", ours.Adam),
    Case("torch fused Adam f32", FUSED),
    Case("flatstep AMSGrad bf16", ours.AMSGrad, torch.bfloat16),
    Case("torch fused amsgrad bf16", FUSED_AMSGRAD, torch.bfloat16),
    Case("flatstep OptimisticAdam bf16", ours.OptimisticAdam, torch.bfloat16),
    Case("flatstep Adam bf16", ours.Adam, torch.bfloat16),
    Case("flatstep AMSGrad f16", ours.AMSGrad, torch.float16),
]
# The slow paths of division and square root; what does not lie on multiples of 16 bytes; other formats and sizes.
OTHERS = [
    Case("flatstep AMSGrad f32, gradient all 0", ours.AMSGrad, is_zero=True),
    Case("flatstep AMSGrad bf16, gradient all 0", ours.AMSGrad, torch.bfloat16, is_zero=True),
    # As in the buckets of DistributedDataParallel.
    Case("flatstep AMSGrad f32, gradient one element off", ours.AMSGrad, off=("grad",)),
    Case("flatstep AMSGrad bf16, gradient one element off", ours.AMSGrad, torch.bfloat16, off=("grad",)),
    Case("flatstep AMSGrad f32, all one element off", ours.AMSGrad, off=("param", "grad", "state")),
    Case("flatstep AMSGrad f32, all but the state one element off", ours.AMSGrad, off=("param", "grad")),
    Case("flatstep AMSGrad f32, mu bf16", partial(ours.AMSGrad, mu_dtype=torch.bfloat16)),
    Case("flatstep AMSGrad f64", ours.AMSGrad, torch.float64, part=2),
    Case("flatstep AMSGrad f32, 16M", ours.AMSGrad, part=16),
    Case("torch fused amsgrad f32, 16M", FUSED_AMSGRAD, part=16),
    Case("flatstep AMSGrad f32, 1M", ours.AMSGrad, part=256),
    Case("torch fused amsgrad f32, 1M", FUSED_AMSGRAD, part=256),
]


def one_off(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that begins one element after a multiple of 16 bytes."""
    return torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)[1:].copy_(tensor)


def slots(optimizer: torch.optim.Optimizer, param: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    """The part of the state that a step goes over: not the count of steps."""
    return {key: slot for key, slot in optimizer.state[param].items() if slot.shape == param.shape}


def prepared(case: Case, place: Place) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    """A parameter with its gradient, and its optimizer after a first step, which makes the state."""
    numbers = torch.empty(place.huge // case.part, dtype=case.dtype, device=place.device).uniform_(1, 2)
    grad = torch.zeros_like(numbers) if case.is_zero else torch.empty_like(numbers).normal_()
    param = torch.nn.Parameter(one_off(numbers) if "param" in case.off else numbers)
    param.grad = one_off(grad) if "grad" in case.off else grad
    optimizer = case.make([param])
    optimizer.step()
    if "state" in case.off:
        optimizer.state[param].update({key: one_off(slot) for key, slot in slots(optimizer, param).items()})
    return param, optimizer


def bandwidth(case: Case, place: Place, limit: float) -> Row:
    """Of a step over one tensor, and its share of the limit."""
    param, optimizer = prepared(case, place)
    run = warmed_up(optimizer)
    seconds = place.seconds(run)
    moved = 3 * param.nbytes + 2 * sum(slot.nbytes for slot in slots(optimizer, param).values())
    return dict(ms=seconds * 1e3, GBs=moved / seconds / 1e9, share=moved / seconds / limit)


def copy_bandwidth(place: Place) -> float:
    """Bytes that a copy from device memory to device memory reads and writes in a second."""
    count = 2**20 if place.is_dry else 2**31
    source, to = (torch.ones(count, dtype=torch.int8, device=place.device) for _ in range(2))

    def run() -> None:
        to.copy_(source)

    run()
    return 2 * count / place.seconds(run)


def warmed_up(optimizer: torch.optim.Optimizer) -> Run:
    """The step of an optimizer, after some that are not timed."""

    def run() -> None:
        optimizer.step()

    for _ in range(WARM_UPS):
        run()
    return run


# --- many tensors: the host's time and the device's, and launches -----------------------------------------------------


def parameters(shapes: Sequence[Lengths], place: Place) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.empty(shape, device=place.device).uniform_(1, 2)) for shape in shapes]
    for param in params:
        param.grad = torch.empty_like(param).normal_()
    return params


def many(shapes: Sequence[Lengths], make: Make, place: Place) -> Row:
    """Times of a step over many tensors."""
    return times(warmed_up(make(parameters(shapes, place))), place)


def times(run: Run, place: Place) -> Row:
    row: Row = dict(
        host_us=place.host_seconds(run) * 1e6,
        row_us=place.row_seconds(run) * 1e6,
        device_us=place.seconds(run) * 1e6,
    )
    return row if place.is_dry else {**row, **launches(run)}


def launches(run: Run) -> Row:
    """How many kernels a run launches, and the time of the first ones in microseconds."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    kernels = [event for event in seen.events() if event.device_type.name == "CUDA"]
    first = [[short(event.name), round(event.time_range.elapsed_us(), 1)] for event in kernels[:4]]
    return dict(launches=len(kernels), kernels_us=first)


def short(name: str) -> str:
    """A kernel's name without its namespaces."""
    return re.sub(r"\w+::|^void ", "", name)[:70]


def replayed(shapes: Sequence[Lengths], place: Place) -> Row:
    """Times of a step in a CUDA graph."""
    params = parameters(shapes, place)
    optimizer = ours.AMSGrad(params, lr=torch.tensor(1e-3, device=place.device), capturable=True)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return times(graph.replay, place)


def measure_many(report: Report, place: Place) -> None:
    both: dict[str, Make] = {"flatstep AMSGrad": ours.AMSGrad, "torch fused amsgrad": FUSED_AMSGRAD}
    three: dict[str, Make] = {**both, "torch foreach amsgrad": FOREACH_AMSGRAD}
    rows = [
        ("1,000 small", small(30 if place.is_dry else 1_000), three),
        ("one of 8", [(8,)], three),
        ("GPT-2 small, 148", [(64, 64)] * 4 if place.is_dry else gpt2_small(), three),
        ("10,000 small", small(60 if place.is_dry else 10_000), both),
    ]
    for name, shapes, makers in rows:
        for peer, make in makers.items():
            report.case(f"{peer}, {name}", partial(many, shapes, make, place))
    if not place.is_dry:
        report.case("flatstep AMSGrad, 1,000 small, a graph replayed", partial(replayed, small(1_000), place))


# --- the norm, clipping, averages and zeros around a step -------------------------------------------------------------


def clipped_step(make: Make, more: int, place: Place, limit: float) -> Row:
    """A step that finds the norm of its gradient: the bytes of the gradient are read once more."""
    param = torch.nn.Parameter(torch.empty(place.huge, device=place.device).uniform_(1, 2))
    param.grad = torch.empty_like(param).normal_()
    optimizer = make([param])
    seconds = place.seconds(warmed_up(optimizer))
    moved = (3 + more) * param.nbytes + 2 * sum(slot.nbytes for slot in slots(optimizer, param).values())
    return dict(ms=seconds * 1e3, GBs=moved / seconds / 1e9, share=moved / seconds / limit)


def tail(place: Place, limit: float) -> Row:
    """AMSGrad with clipping, an average of the parameter and a zeroed gradient: 52 bytes an element."""
    param = torch.empty(place.huge // 2, device=place.device).uniform_(1, 2)
    grad = torch.empty_like(param).normal_()
    optimizer = flatstep.AMSGrad([param], 1e-3, max_norm=1.0, ema_decay=0.999, zero_grads=True)
    grads = [grad.numpy() if place.is_dry else grad]
    seconds = place.seconds(repeated(lambda: optimizer.step(grads, grad_scale=0.5)))
    moved = 52 * param.numel()
    return dict(ms=seconds * 1e3, GBs=moved / seconds / 1e9, share=moved / seconds / limit)


def torch_tail(place: Place) -> Row:
    """The same by torch's fused pieces."""
    param = torch.nn.Parameter(torch.empty(place.huge // 2, device=place.device).uniform_(1, 2))
    param.grad = torch.empty_like(param).normal_()
    optimizer, average = FUSED_AMSGRAD([param]), [param.detach().clone()]

    def run() -> None:
        torch.nn.utils.clip_grad_norm_([param], 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, [param.detach()], 1e-3)
        torch._foreach_zero_([param.grad])

    return dict(ms=place.seconds(repeated(run)) * 1e3)


def repeated(run: Run) -> Run:
    """The same after some runs that are not timed."""
    for _ in range(WARM_UPS):
        run()
    return run


def clipping(clip: Callable[..., Any], shapes: Sequence[Lengths], place: Place) -> Row:
    """Times of clip_grad_norm_ alone."""
    params = parameters(shapes, place)
    return times(repeated(lambda: clip(params, 1.0)), place)


def measure_around(report: Report, place: Place, limit: float) -> None:
    clipped = partial(ours.AMSGrad, max_norm=1.0)
    report.case("flatstep AMSGrad f32, clipped", partial(clipped_step, clipped, 1, place, limit))
    report.case("flatstep AMSGrad f32, tail", partial(tail, place, limit))
    report.case("torch fused amsgrad f32, tail", partial(torch_tail, place))
    shapes = {"1,000 small": small(30 if place.is_dry else 1_000), "one": [(place.huge // 16,)]}
    for name, own in shapes.items():
        report.case(f"flatstep AMSGrad, clipped, {name}", partial(many, own, clipped, place))
        report.case(f"flatstep clip_grad_norm_, {name}", partial(clipping, ours.clip_grad_norm_, own, place))
        report.case(f"torch clip_grad_norm_, {name}", partial(clipping, torch.nn.utils.clip_grad_norm_, own, place))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The most important times of flatstep on a CUDA device.")
    parser.add_argument("file", type=Path, help="to which rows are appended")
    parser.add_argument("seconds", type=float, help="that it may take")
    parser.add_argument("--dry", action="store_true", help="try it out on the CPU")
    options = parser.parse_args(arguments)
    place = Place(options.dry)
    report = Report(options.file, options.seconds, place)
    report.write(
        torch=torch.__version__,
        cuda=torch.version.cuda,
        device=place.name(),
        flatstep=flatstep.__version__,
        targets=flatstep.targets(),
        exchange_api=hasattr(torch.Tensor, "__dlpack_c_exchange_api__"),
    )
    limit = copy_bandwidth(place)
    report.write(limit="copy", GBs=limit / 1e9)
    for case in FIRST:
        report.case(case.name, partial(bandwidth, case, place, limit))
    measure_many(report, place)
    measure_around(report, place, limit)
    for case in OTHERS:
        report.case(case.name, partial(bandwidth, case, place, limit))
    report.write(done=True)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
