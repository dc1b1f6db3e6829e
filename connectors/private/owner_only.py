"""Files of secrets: made for their owner alone, and refused when anybody else can read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from infra.errors import ConfigurationError


def create_owner_only(path: Path) -> BinaryIO:
    """Make a new file of mode 0600 and open it for writing.

    Raises:
        FileExistsError: When there is one.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def write_owner_only(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600.

    Raises:
        FileExistsError: When there is one.
    """
    with create_owner_only(path) as file:
        file.write(content)


def check_owner_only(path: Path) -> None:
    """Refuse a file that group or others have any right to.

    Raises:
        ConfigurationError: When they have.
        OSError: When there is no such file.
    """
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(
            f"others may read {path}", f"Take it back (chmod 600 {path}), or make a new one"
        )
