"""What a call from Python costs through nanobind and through pybind11. Run by ``python -m flatstep bench bindings``.

One entry point, shaped like a step's (``bindings/entry.h``), is built into a module by each binding, in a temporary
directory and as flatstep is: how long a call takes, how large the module is, how long it compiles.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

MODULES = ("by_nanobind", "by_pybind11")
NO_ARGUMENT, ONE_ARRAY, MANY_ARRAYS = CASES = ("no argument", "1 array", "100 arrays")
ARRAYS = 100
NUMBERS = (3, 1e-3, 1.0, 0.0, 0.9, 0.999, 1e-8)  # as many as a step has, or so
MOST_BUILDS = 3


@dataclass(frozen=True)
class Way:
    """A function of a module, by one of the ways in which bindings take arrays."""

    name: str
    module: str
    function: str

    def statement(self, case: str) -> str:
        if case == NO_ARGUMENT:
            return "nothing()"
        return f"{self.function}({'one' if case == ONE_ARRAY else 'many'}, numbers)"


WAYS = (
    Way("nanobind, ndarray", "by_nanobind", "step"),
    Way("nanobind, buffer protocol", "by_nanobind", "step_by_buffers"),
    Way("nanobind, NumPy's struct, as flatstep", "by_nanobind", "step_by_struct"),
    Way("pybind11, array_t", "by_pybind11", "step"),
)


@dataclass(frozen=True)
class Row:
    """One way. Nanoseconds of a call by case, seconds of a build, one entry a round; nanobind's ways share a module."""

    name: str
    nanoseconds: Mapping[str, Sequence[float]]
    module_bytes: int
    build_seconds: Sequence[float]  # all of it, the binding's own library with it
    file_seconds: Sequence[float]  # the one file that binds the entry point, and linking


class Module(NamedTuple):
    """A module that was built, and is loaded."""

    functions: ModuleType
    bytes: int
    build_seconds: Sequence[float]
    file_seconds: Sequence[float]


def run(rounds: int, output: Path | None) -> int:
    """Measures and shows; writes JSON where asked to."""
    require()
    console = Console()
    with console.status("compiling and timing"):
        rows = measure_bindings(source(), rounds)
    show_bindings(rows, console)
    if output is not None:
        output.write_text(json.dumps({"bindings": [asdict(row) for row in rows]}, indent=1) + "\n")
        console.print(f"wrote {output}")
    return 0


def require() -> None:
    """Ends the program, in one line, where something to build with is missing."""
    missing = [name for name in ("nanobind", "pybind11", "cmake", "ninja") if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"flatstep: bench bindings needs {', '.join(missing)} and a C++ compiler: "
            'pip install "flatstep[bench-bindings]"'
        )


def source() -> Path:
    """Its C++ files, which wheels do not hold: beside this file, or in the checkout in which the program runs."""
    places = [directory / "bindings" for directory in (Path(__file__).parent, Path.cwd() / "bench")]
    for place in places:
        if (place / "CMakeLists.txt").exists():
            return place
    raise SystemExit("flatstep: bench bindings needs its C++ files: run it in the root of a clone of flatstep")


def measure_bindings(source: Path, rounds: int) -> list[Row]:
    """Builds the modules in turns, a few times at most, and times their calls in turns."""
    modules = build_modules(source, min(rounds, MOST_BUILDS))
    calls = {case: time_calls(modules, case, rounds) for case in CASES}
    return [
        Row(
            way.name,
            {case: calls[case][way.name] for case in CASES},
            (module := modules[way.module]).bytes,
            module.build_seconds,
            module.file_seconds,
        )
        for way in WAYS
    ]


def build_modules(source: Path, rounds: int) -> dict[str, Module]:
    """The modules by name, built from the files in ``source`` in that many rounds."""
    with tempfile.TemporaryDirectory(prefix="flatstep-bindings-") as scratch:
        builds = {name: _Build(name, source, Path(scratch) / name) for name in MODULES}
        whole = _in_turns({name: build.whole for name, build in builds.items()}, rounds)
        one_file = _in_turns({name: build.one_file for name, build in builds.items()}, rounds)
        return {
            name: Module(build.load(), build.path().stat().st_size, whole[name], one_file[name])
            for name, build in builds.items()
        }


def time_calls(modules: Mapping[str, Module], case: str, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds of a call by the names of the ways. Python's own loop around it is in it."""
    many = [np.ones(8, np.float32) for _ in range(ARRAYS)]
    given = {"one": many[:1], "many": many, "numbers": NUMBERS}
    functions = {name: vars(module.functions) for name, module in modules.items()}
    timers = {way.name: timeit.Timer(way.statement(case), globals={**given, **functions[way.module]}) for way in WAYS}
    repeats = {name: timer.autorange()[0] // 20 + 1 for name, timer in timers.items()}  # some 10 ms; this warms up
    turns = {name: partial(timer.timeit, repeats[name]) for name, timer in timers.items()}
    seconds = _in_turns(turns, rounds)
    return {name: [second / repeats[name] * 1e9 for second in timed] for name, timed in seconds.items()}


def show_bindings(rows: Sequence[Row], console: Console) -> None:
    """Prints one row a binding, medians."""
    table = Table(title="One entry point by several bindings", title_justify="left")
    table.add_column("ns of a call")
    for column in (*CASES, "module", "clean build", "its file"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            *(f"{statistics.median(row.nanoseconds[case]):,.0f}" for case in CASES),
            f"{row.module_bytes / 1e3:,.0f} kB",
            f"{statistics.median(row.build_seconds):.1f} s",
            f"{statistics.median(row.file_seconds):.1f} s",
        )
    console.print(table)


class _Build:
    """A build directory of one binding."""

    def __init__(self, name: str, source: Path, directory: Path) -> None:
        import nanobind
        import pybind11

        self._name, self._directory = name, directory
        self._tool = [sys.executable, "-m", "cmake"]
        _succeed(
            [
                *self._tool,
                *("-S", str(source), "-B", str(directory), "-G", "Ninja", f"-DBINDING={name}"),
                *("-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={sys.executable}"),
                *(f"-Dnanobind_DIR={nanobind.cmake_dir()}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
                f"-DCMAKE_MAKE_PROGRAM={_ninja()}",
            ]
        )

    def whole(self) -> float:
        """Seconds that it takes to build all of it, on one processor."""
        return self._time("--clean-first")

    def one_file(self) -> float:
        """Seconds that it takes after a change of the file that binds."""
        for made in self._directory.rglob(f"{self._name}.cpp.o*"):
            made.unlink()
        return self._time()

    def load(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(self._name, self.path())
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def path(self) -> Path:
        (path,) = (path for path in self._directory.glob(f"{self._name}.*") if path.suffix in (".so", ".pyd"))
        return path

    def _time(self, *arguments: str) -> float:
        start = time.perf_counter()
        _succeed([*self._tool, "--build", str(self._directory), "--parallel", "1", *arguments])
        return time.perf_counter() - start


def _ninja() -> Path:
    import ninja

    return Path(ninja.BIN_DIR) / "ninja"


def _succeed(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _in_turns(timings: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in timings}
    for _ in range(rounds):
        for name, timing in timings.items():
            seconds[name].append(timing())
    return seconds
