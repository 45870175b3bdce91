"""Three steps of an optimizer over tensors on a CUDA device, for a profiler or a sanitizer. Run by visit.sh.

few_steps.py OPTIMIZER DTYPE ELEMENTS..., for example: few_steps.py AMSGrad float32 1 1025
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

import flatstep.torch


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Three steps of an optimizer over tensors on a CUDA device.")
    parser.add_argument("optimizer", help="a class of flatstep.torch")
    parser.add_argument("dtype", help="of parameters and gradients, as torch names it")
    parser.add_argument("elements", type=int, nargs="+", help="of each tensor")
    parser.add_argument("--dry", action="store_true", help="try it out on the CPU")
    options = parser.parse_args(arguments)
    what = dict(dtype=getattr(torch, options.dtype), device="cpu" if options.dry else "cuda")
    params = [torch.nn.Parameter(torch.randn(count, **what)) for count in options.elements]
    optimizer = getattr(flatstep.torch, options.optimizer)(params)
    for _ in range(3):
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    if not options.dry:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
