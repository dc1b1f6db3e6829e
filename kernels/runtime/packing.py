"""States as plain files: nested values in JSON, the tensors in them in the safetensors format.

No pickle: reading a file cannot run anything. The writer is our own, because it hashes while it
writes and never holds Python's lock for long, so that a run goes on meanwhile; what it writes is
read by the safetensors library.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 16 * 2**20
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TENSOR, _ITEMS = "$tensor", "$items"


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Part a nested value into what JSON holds and the tensors of it.

    A tensor that occurs several times (tied weights) is kept once.

    Args:
        value: Dicts, lists, tuples, numbers, texts, None and tensors.

    Returns:
        The value with a name in place of each tensor, and the tensors by name.

    Raises:
        TypeError: For anything else, with its place.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}

    def walk(each: Any, path: str) -> Any:
        if isinstance(each, Tensor):
            # Views of one storage differ in place or shape; empty tensors all lie at 0.
            key = (each.data_ptr() or id(each), each.shape, each.stride(), each.dtype)
            name = names.setdefault(key, path.removeprefix("."))
            tensors[name] = each.detach()
            return {_TENSOR: name}
        if isinstance(each, Mapping):
            if all(isinstance(k, str) for k in each):
                return {k: walk(v, f"{path}.{k}") for k, v in each.items()}
            return {_ITEMS: [[k, walk(v, f"{path}.{k}")] for k, v in each.items()]}
        if isinstance(each, list | tuple):
            return [walk(v, f"{path}.{n}") for n, v in enumerate(each)]
        if each is None or isinstance(each, bool | int | float | str):
            return each
        raise TypeError(
            f"{path.removeprefix('.') or 'the state'} is a {type(each).__name__}; a state holds "
            "tensors, numbers, texts, lists and dicts of them"
        )

    return walk(value, ""), tensors


def unpack(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put the tensors back; tuples have become lists.

    Raises:
        KeyError: When a tensor is not there.
    """
    if isinstance(plain, dict):
        if _TENSOR in plain:
            return tensors[plain[_TENSOR]]
        if _ITEMS in plain:
            return {k: unpack(v, tensors) for k, v in plain[_ITEMS]}
        return {k: unpack(v, tensors) for k, v in plain.items()}
    if isinstance(plain, list):
        return [unpack(v, tensors) for v in plain]
    return plain


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write CPU tensors as a safetensors file and flush it to the disk.

    Returns:
        Its ``bytes`` and ``sha256``.
    """
    return write_flushed(path, _safetensors(tensors))


def write_flushed(path: Path, chunks: Iterator[bytes | memoryview]) -> dict[str, Any]:
    """Write chunks to a file and flush it to the disk.

    Returns:
        Its ``bytes`` and ``sha256``.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def digest_of(path: Path) -> dict[str, Any]:
    """Return ``bytes`` and ``sha256`` of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file: length and text of the header, then every tensor's bytes."""
    header: dict[str, Any] = {}
    offset = 0
    # Wide formats first, so that every tensor lies at a multiple of its element's size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, tensor in ordered:
        view = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]
