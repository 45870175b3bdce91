"""The command line, ``python -m flatstep``: reads the arguments and calls the module that does the work.

Each command's module is imported when it runs, so that ``info`` needs no extra and starts at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import __version__, _core, info


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flatstep", description="Fused optimizer steps.")
    parser.add_argument("--version", action="version", version=f"flatstep {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    about = "train on handwritten digits, solve a counterexample and a min-max game, draw all"
    demo = commands.add_parser("demo", help=about, description=_sentence(about))
    demo.add_argument("--output", type=Path, default=Path("flatstep-demo.png"), help="PNG to write (%(default)s)")
    demo.add_argument("--epochs", type=_positive, default=60, help="passes over the digits (%(default)s)")
    demo.set_defaults(run=_demo)

    _add_bench(commands)

    about = "tell what this build can do on this machine, for a bug report"
    commands.add_parser("info", help=about, description=_sentence(about)).set_defaults(run=_info)
    return parser


def _add_bench(commands: Any) -> None:
    about = "time the optimizers beside their peers and beside what moving their bytes costs"
    bench = commands.add_parser("bench", help=about, description=_sentence(about))
    bench.add_argument("--quick", action="store_true", help="fewer and smaller cases: less than a minute")
    words = "only these front ends, rules, dtypes or extras: numpy, torch, jax, amsgrad, float32, startup, ..."
    bench.add_argument("--only", nargs="+", default=[], metavar="WORD", help=words)
    bench.add_argument("--size", type=_size, nargs="+", default=[], help="elements, instead of 1e3 to 1e8")
    bench.add_argument("--rounds", type=_positive, help="timings of each, at most (15; quick: 5)")
    bench.add_argument("--minutes", type=_minutes, help="time to measure for, about (8; quick: 0.5)")
    bench.add_argument("--output", type=Path, metavar="FOLDER", help="where to write results.json and pictures")
    bench.set_defaults(run=_bench, reject=bench.error)
    actions = bench.add_subparsers(metavar="[action]")
    compare = actions.add_parser("compare", help="show what moved between two runs by more than the spread")
    compare.add_argument("before", type=Path, help="a run's results.json, or its folder")
    compare.add_argument("after", type=Path, help="another's")
    compare.set_defaults(run=_bench_read, action="compare")
    plot = actions.add_parser("plot", help="draw a run's pictures again")
    plot.add_argument("results", type=Path, help="a run's results.json, or its folder")
    plot.set_defaults(run=_bench_read, action="plot")
    show = actions.add_parser("show", help="show a run's tables again")
    show.add_argument("results", type=Path, help="a run's results.json, or its folder")
    show.set_defaults(run=_bench_read, action="show")
    bindings = actions.add_parser("bindings", help="show what a call costs through nanobind and through pybind11")
    about = "timings of each (%(default)s)"  # names of their own, so that they do not reset those of bench
    bindings.add_argument("--rounds", dest="calls", metavar="ROUNDS", type=_positive, default=15, help=about)
    bindings.add_argument("--output", dest="json", metavar="FILE", type=Path, help="JSON to write")
    bindings.set_defaults(run=_bench_bindings, action="bindings")
    model = actions.add_parser("model", help="show the bytes that a step moves, by rule and layout")
    model.set_defaults(run=_bench_read, action="model")


def _sentence(about: str) -> str:
    return f"{about[:1].upper()}{about[1:]}."


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _size(text: str) -> int:
    """A number of elements: 67108864, or 1e6."""
    try:
        elements = int(float(text))
    except (ValueError, OverflowError):
        elements = 0
    if not 1 <= elements <= 2**40:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of elements")
    return elements


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def _demo(arguments: argparse.Namespace) -> int:
    _require_extra("demo", {"matplotlib": "matplotlib", "rich": "rich", "scikit-learn": "sklearn"})
    _require_target()
    from . import demo

    output: Path = arguments.output
    try:
        demo.check_writable(output)
        return demo.run(output, arguments.epochs)
    except OSError as error:
        raise SystemExit(f"flatstep: cannot write {output}: {error.strerror}") from None


def _bench(arguments: argparse.Namespace) -> int:
    _require_extra("bench", {"matplotlib": "matplotlib", "rich": "rich"})
    _require_target()
    from .bench import command

    try:
        command.choose(arguments.quick, arguments.only, arguments.size)
    except ValueError as error:
        raise SystemExit(f"flatstep: {error}") from None
    try:
        return command.bench(
            arguments.quick,
            arguments.only,
            arguments.size,
            arguments.rounds,
            arguments.minutes,
            arguments.output,
        )
    except command.CannotWrite as error:
        raise SystemExit(f"flatstep: {error}") from None


def _bench_read(arguments: argparse.Namespace) -> int:
    _reject_options(arguments)
    _require_extra("bench", {"matplotlib": "matplotlib", "rich": "rich"})
    from .bench import command

    try:
        if arguments.action == "compare":
            return command.compare(arguments.before, arguments.after)
        if arguments.action == "model":
            return command.model()
        return command.plot(arguments.results) if arguments.action == "plot" else command.show(arguments.results)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise SystemExit(f"flatstep: {error}") from None


def _bench_bindings(arguments: argparse.Namespace) -> int:
    _reject_options(arguments)
    _require_extra("bench bindings", {"rich": "rich", "matplotlib": "matplotlib"}, extra="bench-bindings")
    from ._outputs import check_writable
    from .bench import command

    output: Path | None = arguments.json
    if output is not None:
        try:
            check_writable(output)
        except OSError as error:
            raise SystemExit(f"flatstep: cannot write {output}: {error.strerror}") from None
    try:
        return command.bindings(arguments.calls, output)
    except RuntimeError as error:
        raise SystemExit(f"flatstep: {_why_not_built(str(error))}") from None


def _why_not_built(message: str) -> str:
    """One line of what CMake says."""
    if "CMAKE_CXX_COMPILER" in message:
        return "bench bindings needs a C++ compiler, and CMake finds none: install one, or name it in CXX"
    wrong = [line for line in message.splitlines() if "error" in line.lower()]
    return f"bench bindings could not be built: {(wrong or message.splitlines())[0].strip()}"


def _reject_options(arguments: argparse.Namespace) -> None:
    """Options of a run say nothing to an action."""
    given = [name for name in ("quick", "only", "size", "rounds", "minutes", "output") if getattr(arguments, name)]
    if given:
        names = ", ".join(f"--{name}" for name in given)
        arguments.reject(f"{arguments.action} takes no {names} before it")


def _info(arguments: argparse.Namespace) -> int:
    return info.run()


def _require_extra(command: str, modules: dict[str, str], extra: str | None = None) -> None:
    """Ends the program, in one line, where the command's extra is not installed: by default that of its own name.

    ``modules``: what each distribution provides.
    """
    missing = [distribution for distribution, module in modules.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(f'flatstep: {command} needs {", ".join(missing)}: pip install "flatstep[{extra or command}]"')


def _require_target() -> None:
    """Ends the program, in one line, where FLATSTEP_TARGET forces what cannot run here."""
    try:
        _core.chosen_target()
    except RuntimeError as error:
        raise SystemExit(f"flatstep: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
