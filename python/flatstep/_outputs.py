"""Files that commands write. Used by the command line and the examples."""

from __future__ import annotations

import os
from pathlib import Path


def check_writable(path: Path) -> None:
    """Raises the OSError that writing the file would, and leaves everything as it was."""
    existed = os.path.lexists(path)
    with open(path, "ab"):
        pass
    if not existed:
        path.unlink()
