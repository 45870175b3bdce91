"""The front ends: whose arrays are stepped, who takes part, how the clock is read. A new one is a row here.

A row names the modules of peers/ that belong to it and what each must be able to import; ours come first. Used
by runner.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec

import flatstep

from . import device
from .contender import Contender, Peer, Task, reason
from .limit import as_jax, as_numpy, as_torch, limits
from .machine import free_memory
from .measure import Clock, Run, host_clock, prepared_clock, rested_clock
from .tail import TAIL, TAIL_WITHOUT_ZERO, TAILS
from .threads import SWEEPS, limits_by_threads
from .work import STEP, Work
from .workers import PASSIVE


@dataclass(frozen=True)
class FrontEnd:
    """Cases of one front end share a process, threads and clock."""

    name: str
    needs: Sequence[str]  # modules without which there is none
    convention: str  # of AMSGrad, that its users are used to
    modules: Sequence[tuple[str, Sequence[str]]]  # of peers/, and what else each needs
    limits: Callable[[Task], Iterator[Contender]]
    set_threads: Callable[[], None]
    work: Work = STEP
    clock: Clock = host_clock
    host_seconds: Callable[[Run], float] | None = None  # that one run keeps the host, where the clock is a device's
    free_memory: Callable[[], float] = free_memory  # bytes, where parameters and state are
    seconds_per_element: float = 3e-8  # that a contender takes, in as few rounds as there can be
    has_device: Callable[[], bool] = lambda: True  # asked where its modules can be imported
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process

    @property
    def missing(self) -> list[str]:
        """What it would take to run here; nothing where it does."""
        modules = [module for module in self.needs if find_spec(module) is None]
        return modules or ([] if self.has_device() else [f"a {self.name} device"])

    @property
    def is_here(self) -> bool:
        return not self.missing

    def peers(self) -> tuple[list[Peer], list[str]]:
        """Those that can be imported, ours first; and the names of the modules that cannot. Ours must be."""
        peers: list[Peer] = []
        absent: list[str] = []
        for index, (module, needs) in enumerate(self.modules):
            if missing := [need for need in needs if find_spec(need) is None]:
                absent += missing
                continue
            try:
                peers += _peers_of(module)
            except Exception as error:
                if index == 0:
                    raise
                absent.append(f"{module} ({reason(error)})")
        return peers, absent


@cache
def _found(module: str) -> list[Peer] | Exception:
    """A module that fails to be imported is tried once, not for each case."""
    try:
        return list(importlib.import_module(f".peers.{module}", __package__).PEERS)
    except Exception as error:
        return error


def _peers_of(module: str) -> list[Peer]:
    if isinstance(found := _found(module), Exception):
        raise found
    return found


def _torch_threads() -> None:
    import torch

    torch.set_num_threads(flatstep.get_num_threads())


FRONT_ENDS = {
    front_end.name: front_end
    for front_end in [
        FrontEnd(
            "numpy",
            needs=(),
            convention="optax",
            modules=[("numpy_ours", ()), ("numpy_by_hand", ())],
            limits=limits(as_numpy, on_openmp=False),
            set_threads=lambda: None,
            environment=PASSIVE,
        ),
        FrontEnd(
            "jax",
            needs=("jax", "optax"),
            convention="optax",
            modules=[("jax_ours", ()), ("optax_jit", ())],
            limits=limits(as_jax, on_openmp=False),
            set_threads=lambda: None,  # XLA has as many as there are processors
            environment=PASSIVE,
        ),
        FrontEnd(
            "torch",
            needs=("torch",),
            convention="torch",
            modules=[
                ("torch_ours", ()),
                ("torch_own", ()),
                ("deepspeed_cpu", ("deepspeed",)),
                ("torchao_8bit", ("torchao",)),
                ("bitsandbytes_cpu", ("bitsandbytes",)),
            ],
            limits=limits(as_torch, on_openmp=True),
            set_threads=_torch_threads,
        ),
        FrontEnd(
            "cuda",
            needs=("torch", "flatstep._cuda"),
            convention="torch",
            modules=[("cuda_torch", ()), ("cuda_apex", ("apex",))],
            limits=device.limits,
            set_threads=lambda: None,
            clock=device.clock,
            host_seconds=device.host_seconds,
            free_memory=device.free_memory,
            seconds_per_element=device.SECONDS_PER_ELEMENT,
            has_device=device.is_here,
        ),
        FrontEnd(
            TAILS.numpy,
            needs=(),
            convention="optax",
            modules=[("tail_numpy", ())],
            limits=limits(as_numpy, on_openmp=False, work=TAIL),
            set_threads=lambda: None,
            work=TAIL,
            clock=prepared_clock,
            environment=PASSIVE,
        ),
        FrontEnd(
            TAILS.jax,
            needs=("jax", "optax"),
            convention="optax",
            modules=[("tail_jax", ())],
            limits=limits(as_jax, on_openmp=False, work=TAIL_WITHOUT_ZERO),
            set_threads=lambda: None,
            work=TAIL_WITHOUT_ZERO,
            environment=PASSIVE,
        ),
        FrontEnd(
            TAILS.torch,
            needs=("torch",),
            convention="torch",
            modules=[("tail_torch", ())],
            limits=limits(as_torch, on_openmp=True, work=TAIL),
            set_threads=_torch_threads,
            work=TAIL,
            clock=prepared_clock,
        ),
        FrontEnd(
            SWEEPS.numpy,
            needs=(),
            convention="optax",
            modules=[("numpy_threads", ())],
            limits=limits_by_threads(as_numpy, on_openmp=False),
            set_threads=lambda: None,
            clock=rested_clock,
            environment=PASSIVE,
        ),
        *(
            FrontEnd(
                name,
                needs=("torch",),
                convention="torch",
                modules=[("torch_threads", ())],
                limits=limits_by_threads(as_torch, on_openmp=True),
                set_threads=_torch_threads,
                clock=rested_clock,
                environment=environment,
            )
            for name, environment in [(SWEEPS.torch, {}), (SWEEPS.torch_passive, PASSIVE)]
        ),
    ]
}
