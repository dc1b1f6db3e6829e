"""An empty environment with one of the small wheels and what it needs, as on another machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.lite.build import CHECKOUT, PROJECT, build_wheel

LIMIT = 2 * 2**30
"""Bytes of address space that a box of 2 GB leaves to it at most."""
LIMITED = (
    "import os, resource, sys; "
    f"resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT})); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class UnreachableError(RuntimeError):
    """Neither uv's cache nor the registry has the packages."""


def make_environment(folder: Path, project: str = PROJECT) -> Path:
    """Return the ``bin`` folder of a new environment with the wheel, built now.

    Raises:
        UnreachableError: When its packages are neither cached nor to be fetched.
    """
    uv = Path(sys.executable).with_name("uv")
    wheel = folder / build_wheel(str(folder), project=project)
    made = folder / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, made], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", made / "bin" / "python"]
    command += ["--constraint", CHECKOUT / "constraints.txt", wheel]
    for more in (["--offline"], []):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return made / "bin"
    raise UnreachableError(done.stderr.strip()[-500:])


def limited(command: list[str]) -> list[str]:
    """Return a command that runs a program of the environment within `LIMIT`.

    Args:
        command: Its first word is the whole path of a program.
    """
    return [str(Path(command[0]).with_name("python")), "-S", "-E", "-c", LIMITED, *command]


def bare() -> dict[str, str]:
    """Return an environment without what would lead into this checkout."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8"}
