"""How this claasbot is called from a shell: words that work as they are printed. Runs nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def own_command(arguments: str) -> str:
    """`claasbot chat` where the name is found on the PATH and means us, else by the path of our executable."""
    ours = Path(sys.executable).with_name("claasbot")
    if not ours.is_file():
        return f"{shlex.quote(_short(Path(sys.executable)))} -m claasbot {arguments}"
    found = shutil.which("claasbot")
    is_found = found is not None and Path(found).samefile(ours)
    return f"{'claasbot' if is_found else shlex.quote(_short(ours))} {arguments}"


def _short(path: Path) -> str:
    """Relative to where we are, when that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
