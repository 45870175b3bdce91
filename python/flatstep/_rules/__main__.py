"""Writes the public classes and functions from the declarations: ``python -m flatstep._rules [REPOSITORY]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import write


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m flatstep._rules", description=__doc__)
    parser.add_argument("root", nargs="?", default=Path(), type=Path, help="the repository; else the current directory")
    for path, text in write.files(parser.parse_args().root).items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
