"""Runs code, or the command line of flatstep, in a fresh interpreter. For all tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from repository import HELPERS

PNG = b"\x89PNG\r\n\x1a\n"  # how a picture's file begins

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts threads in /proc")


def run(code: str, **environment: str) -> list[str]:
    """What a fresh interpreter prints, word by word; it has two minutes. The helper modules are on its path."""
    path = os.pathsep.join(filter(None, [str(HELPERS), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def command_line(*arguments: str, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m flatstep`` on a terminal of 80 columns, as if the module ``without`` were not installed."""
    # None in sys.modules is how Python itself marks a module that must not be imported.
    hide = f"sys.modules[{without!r}] = None; " if without else ""
    code = f"import sys; {hide}from flatstep.__main__ import main; sys.exit(main(sys.argv[1:]))"
    start = ["-c", code] if without else ["-m", "flatstep"]
    clean = {name: value for name, value in os.environ.items() if name != "FLATSTEP_TARGET"}
    return subprocess.run(
        [sys.executable, *start, *arguments],
        env={**clean, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )


def one_line(text: str) -> str:
    assert "Traceback" not in text
    (line,) = text.splitlines()
    return line
