"""LMDB's errors in our words: what happened to which folder, and the fix."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.online_store.errors import (
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
)
from infra.files import FULL

if TYPE_CHECKING:
    import lmdb


def told(error: lmdb.Error, folder: Path, readers: int) -> StoreError:
    """Return our error for one of LMDB's.

    Args:
        error: What LMDB raised.
        folder: The store.
        readers: Most readers it was opened for.
    """
    import lmdb

    kind: type[StoreError] = StoreError
    code = getattr(error, "code", 0)
    if code in {*FULL, errno.EFBIG}:
        kind, what = StoreFullError, f"no room left for the online store in {folder}"
        fix = "Free disk space, or snapshot and restore into another folder"
    elif isinstance(error, lmdb.ReadersFullError):
        kind, what = StoreBusyError, f"{readers} readers use {folder}"
        fix = "Stop some, or raise the option readers of the writer and start it anew"
    elif "already open" in str(error):
        kind, what = StoreBusyError, f"this process has {folder} open already"
        fix = "Share the one store that is open"
    elif isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        what = f"{folder} holds no sound online store ({error})"
        fix = "Move it away and restore a snapshot, or seed it again"
    elif isinstance(error, lmdb.NotFoundError):
        kind, what = StoreNotFoundError, f"the online store in {folder} has not been set up"
        fix = "Start the process that writes it first"
    elif code in {errno.EACCES, errno.EPERM, errno.EROFS}:
        what = f"{folder} may not be opened ({error})"
        fix = "Readers too need the right to write lock.mdb: run as the user of the writer"
    else:
        what, fix = f"{folder}: {error}", "Close it and open it again"
    return kind(what, fix)
