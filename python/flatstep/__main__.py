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

    about = "train on handwritten digits, play a min-max game, draw both"
    demo = commands.add_parser("demo", help=about, description=about.capitalize() + ".")
    demo.add_argument("--output", type=Path, default=Path("flatstep-demo.png"), help="PNG to write (%(default)s)")
    demo.add_argument("--epochs", type=_positive, default=60, help="passes over the digits (%(default)s)")
    demo.set_defaults(run=_demo)

    about = "train a small GAN on a ring of Gaussians in PyTorch, draw what it learned"
    gan = commands.add_parser("gan", help=about, description=about.capitalize() + ".")
    gan.add_argument("--output", type=Path, default=Path("flatstep-gan.png"), help="PNG to write (%(default)s)")
    gan.add_argument("--steps", type=_positive, default=3000, help="steps of both networks (%(default)s)")
    gan.set_defaults(run=_gan)

    about = "time the optimizers beside what moving their bytes costs"
    bench = commands.add_parser("bench", help=about, description=about.capitalize() + ".")
    bench.add_argument("--size", type=_size, nargs="+", default=[10**4, 10**6, 2**26], help="elements (%(default)s)")
    bench.add_argument("--rounds", type=_positive, default=15, help="timings of each (%(default)s)")
    bench.add_argument("--json", type=Path, help="file to write the timings to")
    bench.add_argument("--beside-numpy", action="store_true", help="also time steps between matrix products")
    bench.add_argument("--torch", action="store_true", help="time flatstep.torch beside torch's own, and nothing else")
    bench.add_argument("--jax", action="store_true", help="time flatstep.jax beside optax, and nothing else")
    bench.set_defaults(run=_bench)

    about = "tell what this build can do on this machine, for a bug report"
    commands.add_parser("info", help=about, description=about.capitalize() + ".").set_defaults(run=_info)
    return parser


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


def _gan(arguments: argparse.Namespace) -> int:
    _require_extra("demo,torch", {"matplotlib": "matplotlib", "rich": "rich", "torch": "torch"})
    _require_target()
    from . import gan
    from .outputs import check_writable

    output: Path = arguments.output
    try:
        check_writable(output)
        return gan.run(output, arguments.steps)
    except OSError as error:
        raise SystemExit(f"flatstep: cannot write {output}: {error.strerror}") from None


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.torch:
        _require_extra("bench,torch", {"rich": "rich", "torch": "torch"})
    if arguments.jax:
        _require_extra("bench,jax", {"rich": "rich", "jax": "jax", "optax": "optax"})
    _require_extra("bench", {"rich": "rich"})
    _require_target()
    from .bench import command

    try:
        if arguments.torch:
            return command.run_torch(arguments.rounds, arguments.json)
        if arguments.jax:
            return command.run_jax(arguments.rounds, arguments.json)
        return command.run(arguments.size, arguments.rounds, arguments.json, arguments.beside_numpy)
    except OSError as error:
        raise SystemExit(f"flatstep: cannot write {arguments.json}: {error.strerror}") from None


def _info(arguments: argparse.Namespace) -> int:
    return info.run()


def _require_extra(extra: str, modules: dict[str, str]) -> None:
    """Ends the program, in one line, where an extra is not installed; ``modules``: what each distribution provides."""
    missing = [distribution for distribution, module in modules.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(f'flatstep: {extra} needs {", ".join(missing)}: pip install "flatstep[{extra}]"')


def _require_target() -> None:
    """Ends the program, in one line, where FLATSTEP_TARGET forces what cannot run here."""
    try:
        _core.chosen_target()
    except RuntimeError as error:
        raise SystemExit(f"flatstep: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
