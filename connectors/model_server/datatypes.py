"""Datatypes of the protocol, of NumPy and of ONNX Runtime side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

BYTES = "BYTES"
"""Strings: UTF-8 text, NumPy ``object`` arrays of ``str``."""

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype(object),
}
"""Name in the protocol -> NumPy dtype, little-endian as on the wire."""

_OF_ORT = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": BYTES,
}
_OF_DTYPE = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of_ort(kind: str) -> str:
    """Return the protocol's name of ONNX Runtime's, such as ``tensor(float)``; empty: none."""
    return _OF_ORT.get(kind.removeprefix("tensor(").removesuffix(")"), "")


def datatype_of(array: np.ndarray[Any, Any]) -> str:
    """Return the protocol's name of an array's dtype.

    Raises:
        TypeError: The protocol has none for it.
    """
    if array.dtype.kind in "OUST":
        return BYTES
    name = _OF_DTYPE.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(
            f"arrays of {array.dtype} have no datatype in the protocol; "
            f"it knows {', '.join(DTYPES)}"
        )
    return name
