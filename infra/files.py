"""Small files written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

MIB = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    """Free space where a folder is, or will be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def require_room(folder: Path, mib: int) -> None:
    """Refuse to start work that a nearly full disk would break off.

    Raises:
        OSError: with ``ENOSPC``, when fewer MiB than ``mib`` are free.
    """
    if free_bytes(folder) < mib * MIB:
        raise OSError(errno.ENOSPC, f"fewer than {mib} MiB are free", str(folder))


def is_disk_full(error: BaseException, home: Path) -> bool:
    """Whether a failure goes back to a full disk, which many libraries tell in words of their own.

    Args:
        error: the failure, with its causes.
        home: folder of all state; whatever failed while nothing was left there, failed by that.
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if "disk is full" in text or "no space left" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return free_bytes(home) < MIB


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace ``path`` by ``text`` so that a reader never sees half of it.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
