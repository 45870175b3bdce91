"""What it takes until a program can step: to import flatstep and its front ends, and to the end of the first step.

Each timing is a fresh interpreter's, from its start to its exit, beside one that imports only what flatstep stands on.
Used by command.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from .measure import Spread, spread


@dataclass(frozen=True)
class Program:
    """Lines of Python, and the title of the program that does the same without flatstep."""

    title: str
    lines: str
    without: str | None = None
    needs: tuple[str, ...] = ()


_NUMPY_STEP = "import numpy as np; p = np.ones(1000, np.float32); g = np.ones(1000, np.float32)"
_TORCH_STEP = "import torch; p = torch.nn.Parameter(torch.ones(1000)); p.grad = torch.ones(1000)"
_JAX_STEP = "import jax, jax.numpy as jnp; p = jnp.ones(1000); g = jnp.ones(1000)"

PROGRAMS = (
    Program("Python", "pass"),
    Program("import numpy", "import numpy", "Python"),
    Program("import flatstep", "import flatstep", "import numpy"),
    Program("first step", f"{_NUMPY_STEP}; import flatstep; flatstep.AMSGrad(p, 1e-3).step(g)", "import numpy"),
    Program("import torch", "import torch", "Python", ("torch",)),
    Program("import flatstep.torch", "import flatstep.torch", "import torch", ("torch",)),
    Program(
        "first step, torch.optim.Adam",
        f"{_TORCH_STEP}; torch.optim.Adam([p], amsgrad=True, fused=True).step()",
        "import torch",
        ("torch",),
    ),
    Program(
        "first step, flatstep.torch",
        f"{_TORCH_STEP}; import flatstep.torch as f; f.AMSGrad([p]).step()",
        "import torch",
        ("torch",),
    ),
    Program("import jax", "import jax", "Python", ("jax",)),
    Program("import flatstep.jax", "import flatstep.jax", "import jax", ("jax", "optax")),
    Program(
        "first step, optax",
        f"{_JAX_STEP}; import optax; o = optax.amsgrad(1e-3);"
        " step = lambda p, s, g: (lambda u, s: (optax.apply_updates(p, u), s))(*o.update(g, s, p));"
        " jax.block_until_ready(jax.jit(step)(p, o.init(p), g))",
        "import jax",
        ("jax", "optax"),
    ),
    Program(
        "first step, flatstep.jax",
        f"{_JAX_STEP}; import flatstep.jax as f; o = f.amsgrad(1e-3);"
        " jax.block_until_ready(jax.jit(o.step)(p, o.init(p), g))",
        "import jax",
        ("jax", "optax"),
    ),
)


@dataclass(frozen=True)
class StartUp:
    """One program. Seconds of a run, and what they are beyond those of the program without, one entry a round."""

    title: str
    seconds: Sequence[float]
    without: str | None
    beyond: Sequence[float]


def measure_startup(
    rounds: int, progress: Callable[[], None] = lambda: None, programs: Sequence[Program] = PROGRAMS
) -> list[StartUp]:
    """Runs what can be imported here in turns, after one round to warm up; ``progress`` is called after each."""
    programs = [program for program in programs if all(find_spec(name) for name in program.needs)]
    seconds: dict[str, list[float]] = {program.title: [] for program in programs}
    for round_ in range(rounds + 1):
        for program in programs:
            lasted = _run(program.lines)
            if round_ > 0:
                seconds[program.title].append(lasted)
        progress()
    return [
        StartUp(
            program.title,
            own := seconds[program.title],
            program.without,
            [with_ - without for with_, without in zip(own, seconds[program.without], strict=True)]
            if program.without
            else own,
        )
        for program in programs
    ]


def as_json(rows: Sequence[StartUp]) -> dict[str, dict[str, Spread]]:
    """By program."""
    return {row.title: {"seconds": spread(row.seconds), "beyond": spread(row.beyond)} for row in rows}


def show_startup(found: Mapping[str, Mapping[str, Sequence[float]]], console: Console) -> None:
    """Prints one row a program, medians, of what as_json gives."""
    without = {program.title: program.without for program in PROGRAMS}
    table = Table(title="A fresh interpreter, from its start to its exit", title_justify="left")
    table.add_column("program")
    table.add_column("time", justify="right")
    table.add_column("beyond", justify="right")
    table.add_column("")
    for title, row in found.items():
        seconds, beyond = Spread(*row["seconds"]), Spread(*row["beyond"])
        cells = (f"{beyond.median * 1e3:,.0f} ms", f"that of {without[title]}") if without.get(title) else ("", "")
        table.add_row(title, f"{seconds.median * 1e3:,.0f} ms", *cells)
    console.print(table)


def _run(lines: str) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    lasted = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{lines!r} failed:\n{done.stderr[-2000:]}")
    return lasted
