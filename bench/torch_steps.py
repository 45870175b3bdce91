"""What flatstep.torch is timed against: torch's own AMSGrad, fused, foreach and for-loop. Used by command.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from flatstep import _core
from flatstep.torch import AMSGrad

from .cases import Contender
from .report import OURS
from .shapes import many

SLOTS = 3
LOOPS = {"fused": dict(fused=True), "foreach": dict(foreach=True), "for-loop": dict(foreach=False, fused=False)}


def gpt2_small() -> list[tuple[int, ...]]:
    """The shapes of GPT-2 small's 148 parameters: 124 million numbers."""
    width = 768
    block: list[tuple[int, ...]] = [(width,)] * 2  # a layer norm, as follows twice
    block += [(width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width,)] * 2
    block += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


CASES: dict[str, Callable[[], list[tuple[int, ...]]]] = {
    "one tensor": lambda: [(2**26,)],
    "GPT-2 small, 148 tensors": gpt2_small,
    "1,000 tensors of 64 to 4,096": many,
    "one tensor of 8": lambda: [(8,)],
}


def torch_contenders(shapes: list[tuple[int, ...]]) -> Iterator[Contender]:
    """Ours, torch's, and the limit: the same bytes moved as one tensor, on torch's threads too."""
    _core.set_num_threads(torch.get_num_threads())
    elements = sum(int(np.prod(shape)) for shape in shapes)
    streams = [np.ones(elements, np.float32) for _ in range(2 + SLOTS)]
    for prefetch in (False, True):
        name = f"limit{', prefetched' if prefetch else ''}"
        yield Contender(name, SLOTS, _limit(streams, prefetch), is_limit=True)
    yield Contender(OURS, SLOTS, _step(AMSGrad(_params(shapes), lr=1e-3)))
    for name, how in LOOPS.items():
        opt = torch.optim.Adam(_params(shapes), lr=1e-3, amsgrad=True, **how)  # type: ignore[arg-type]
        yield Contender(f"torch.optim.Adam, {name}", SLOTS, _step(opt))


def _params(shapes: list[tuple[int, ...]]) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def _limit(streams: list[np.ndarray[Any, Any]], prefetch: bool) -> Callable[[], None]:
    return lambda: _core.move_streams(streams, prefetch, _core.has_openmp())


def _step(opt: torch.optim.Optimizer) -> Callable[[], None]:
    return lambda: (opt.step(), None)[1]
