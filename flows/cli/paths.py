"""Paths as a person at this terminal would type them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def nearby(path: str) -> str:
    """The path relative to the working folder where it lies in it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def own_command() -> str:
    """What to type for ``penstock``; its path where nothing activated the environment."""
    if shutil.which("penstock"):
        return "penstock"
    return nearby(str(Path(sys.executable).with_name("penstock")))
