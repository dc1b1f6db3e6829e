"""Requests and answers of the protocol: a JSON document, and raw tensors behind it where asked.

Binary tensors follow the document in the order in which it names them; the header
``Inference-Header-Content-Length`` says where the document ends. Server and client use the same
functions, each for its half.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from connectors.model_server.datatypes import datatype_of
from connectors.model_server.tensors import (
    Array,
    TensorError,
    checked_shape,
    from_bytes,
    from_json,
    to_bytes,
    to_json,
)

HEADER_LENGTH = "inference-header-content-length"
JSON, BINARY = "application/json", "application/octet-stream"
MOST_TENSORS = 256
MOST_ID = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may hold.

    Attributes:
        elements: Largest number of elements of all its tensors together.
        nulls: Whether null stands for NaN, as in answers.
    """

    elements: int = 2**26
    nulls: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message taken apart.

    Attributes:
        document: Its JSON object.
        tensors: Its tensors by name, in their order.
    """

    document: dict[str, Any]
    tensors: dict[str, Array]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        id: Its name of the request, empty if it gave none.
        inputs: Tensors by name.
        outputs: Names of the outputs it wants; empty: all.
        binary: Outputs it wants as raw bytes, None for all.
    """

    id: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    binary: frozenset[str] | None


def unpack(body: bytes, header_length: str, key: str, limits: Limits) -> Message:
    """Take a message apart.

    Args:
        body: Its bytes.
        header_length: Value of `HEADER_LENGTH`; empty without binary tensors.
        key: ``inputs`` or ``outputs``.
        limits: What it may hold.

    Raises:
        TensorError: It is no such message.
    """
    size = len(body)
    if header_length:
        if not header_length.isdecimal() or not header_length.isascii():
            raise TensorError(f"{HEADER_LENGTH} is no number")
        size = int(header_length[:20])
        if size > len(body):
            raise TensorError(f"{HEADER_LENGTH} is {size}, but the body has {len(body)} bytes")
    view = memoryview(body)
    try:
        document = orjson.loads(view[:size])
    except orjson.JSONDecodeError as error:
        raise TensorError(f"the body is no JSON ({error})") from None
    if not isinstance(document, dict):
        raise TensorError("the body must be a JSON object")
    listed = document.get(key)
    if not isinstance(listed, list) or not listed or len(listed) > MOST_TENSORS:
        raise TensorError(f"{key} must be a list of 1 to {MOST_TENSORS} tensors")
    return Message(document, _tensors(listed, key, view[size:], limits))


def pack(
    document: Mapping[str, Any],
    key: str,
    tensors: Mapping[str, Array],
    binary: Collection[str] | None = (),
) -> tuple[bytes, str]:
    """Return the bytes of a message and the value of `HEADER_LENGTH`, empty without raw tensors.

    Args:
        document: Further members of the document.
        key: ``inputs`` or ``outputs``.
        tensors: By name, in their order.
        binary: Names of those that follow as raw bytes, None for all.
    """
    listed: list[dict[str, Any]] = []
    raws: list[bytes] = []
    for name, array in tensors.items():
        entry: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array),
            "shape": list(array.shape),
        }
        if binary is None or name in binary:
            raws.append(to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            entry["data"] = to_json(array)
        listed.append(entry)
    head = orjson.dumps({**document, key: listed}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *raws)), str(len(head))) if raws else (head, "")


def parse_request(body: bytes, header_length: str, limits: Limits) -> InferRequest:
    """Return what a client asks for.

    Raises:
        TensorError: It is no request of the protocol.
    """
    message = unpack(body, header_length, "inputs", limits)
    document = message.document
    request_id = document.get("id", "")
    if not isinstance(request_id, str) or len(request_id) > MOST_ID:
        raise TensorError(f"id must be a text of at most {MOST_ID} characters")
    all_binary = _parameters(document, "the request").get("binary_data_output") is True
    names: list[str] = []
    binary: set[str] = set()
    wanted = document.get("outputs", [])
    if not isinstance(wanted, list) or len(wanted) > MOST_TENSORS:
        raise TensorError(f"outputs must be a list of at most {MOST_TENSORS} outputs")
    for entry in wanted:
        name = _name(entry, "outputs")
        if name in names:
            raise TensorError(f"outputs: {name!r} is asked for twice")
        names.append(name)
        if _parameters(entry, name).get("binary_data", all_binary) is True:
            binary.add(name)
    chosen = None if all_binary and not names else frozenset(binary)
    return InferRequest(request_id, message.tensors, tuple(names), chosen)


def _tensors(listed: list[Any], key: str, raw: memoryview, limits: Limits) -> dict[str, Array]:
    found: dict[str, Array] = {}
    left, at = limits.elements, 0
    for entry in listed:
        name = _name(entry, key)
        if name in found:
            raise TensorError(f"{key}: {name!r} is there twice")
        datatype, shape = entry.get("datatype"), entry.get("shape")
        checked = checked_shape(name, datatype, shape, left)
        size = _parameters(entry, name).get("binary_data_size")
        if size is None:
            found[name] = from_json(name, entry.get("data"), datatype, checked, nulls=limits.nulls)
        else:
            if type(size) is not int or not 0 <= size <= len(raw) - at:
                raise TensorError(
                    f"{name}: binary_data_size is {str(size)[:40]}, "
                    f"but {len(raw) - at} bytes are there"
                )
            if "data" in entry:
                raise TensorError(f"{name}: has data and binary_data_size; give one of them")
            found[name] = from_bytes(name, raw[at : at + size], datatype, checked)
            at += size
        left -= found[name].size
    if at != len(raw):
        raise TensorError(f"{len(raw) - at} bytes of the body belong to no tensor")
    return found


def _name(entry: object, key: str) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name or len(name) > MOST_ID:
        raise TensorError(f"{key}: every entry is an object with a name")
    return name


def _parameters(entry: dict[str, Any], what: str) -> dict[str, Any]:
    found = entry.get("parameters") or {}
    if not isinstance(found, dict):
        raise TensorError(f"{what}: parameters must be an object")
    return found
