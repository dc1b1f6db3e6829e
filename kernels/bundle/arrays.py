"""Named arrays of a bundle, as plain ``.npz`` files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.folder import MAX_FILE_BYTES, BundleError


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays without pickle; equal arrays give equal bytes."""
    if any(a.dtype.hasobject for a in arrays.values()):
        raise BundleError(f"{path.name}: arrays of Python objects cannot be stored without pickle")
    np.savez(path, **{name: arrays[name] for name in sorted(arrays)})


def load_arrays(content: bytes, name: str) -> dict[str, NDArray[np.generic]]:
    """Read named arrays; refuses pickles and archives that unpack beyond the size limit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise BundleError(f"{name} unpacks to {unpacked} bytes, more than {MAX_FILE_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{name} holds no plain arrays: {error}") from error
