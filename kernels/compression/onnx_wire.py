"""What an ONNX file says of itself, read with the standard library alone.

A machine on the line has ONNX Runtime but not the ``onnx`` package, and ONNX Runtime follows what a
file says: weights in other files, operators of vendors. So a stranger's file is looked through
before it is loaded. Only what is needed of protobuf is read: varints, fixed numbers, lengths.
Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

STANDARD = frozenset({"", "ai.onnx"})
MOST_NODES = 20_000
DEEPEST = 8
"""Subgraphs within subgraphs."""

_MODEL = {"ir_version": 1, "graph": 7, "opset": 8, "metadata": 14, "functions": 25}
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


class OnnxWireError(ValueError):
    """Bytes that are no whole ONNX file, or one that needs more than itself; says which."""


@dataclass(frozen=True, slots=True)
class OnnxOutline:
    """What a file says of itself.

    Attributes:
        ir_version: Version of the file format.
        opset: Version of the standard operators.
        metadata: Its entries.
        nodes: Number of operators, those of subgraphs included.
    """

    ir_version: int
    opset: int
    metadata: dict[str, str]
    nodes: int


def read_outline(model: bytes, domains: frozenset[str] = STANDARD) -> OnnxOutline:
    """Return what a self-contained file of standard operators says of itself.

    Args:
        model: Content of the file.
        domains: Whose operators it may need.

    Raises:
        OnnxWireError: When it is truncated or not ONNX, keeps weights in other files, or needs
            operators that are not standard.
    """
    view = memoryview(model)
    ir_version, opset, graphs, metadata = 0, 0, [], {}
    for number, value in _fields(view):
        if number == _MODEL["ir_version"] and isinstance(value, int):
            ir_version = value
        elif number == _MODEL["graph"]:
            graphs.append(_message(value))
        elif number == _MODEL["opset"]:
            domain, version = _opset(_message(value))
            if domain not in domains:
                raise OnnxWireError(f"needs operators of {domain!r}, only standard ones are run")
            opset = max(opset, version) if domain in STANDARD else opset
        elif number == _MODEL["metadata"]:
            key, text = _strings(_message(value), 1, 2)
            metadata[key] = text
        elif number == _MODEL["functions"]:
            raise OnnxWireError("defines functions of its own, only standard operators are run")
    if not ir_version or not opset or len(graphs) != 1:
        raise OnnxWireError("is no whole ONNX file: version, operator set or graph are missing")
    return OnnxOutline(ir_version, opset, metadata, _walk(graphs[0], 0, domains))


def _walk(graph: memoryview, depth: int, domains: frozenset[str]) -> int:
    """Count the nodes of a graph, refusing what reaches outside of the file."""
    if depth > DEEPEST:
        raise OnnxWireError(f"nests graphs deeper than {DEEPEST}")
    nodes = 0
    for number, value in _fields(graph):
        if number == _INITIALIZER:
            _inside(_message(value))
        elif number == _SPARSE:
            for inner, part in _fields(_message(value)):
                if inner in {1, 2}:
                    _inside(_message(part))
        elif number == _NODE:
            nodes += 1
            for inner, part in _fields(_message(value)):
                if inner == _NODE_DOMAIN and _text(part) not in domains:
                    raise OnnxWireError(f"needs an operator of {_text(part)!r}")
                if inner == _ATTRIBUTE:
                    nodes += _attribute(_message(part), depth, domains)
        if nodes > MOST_NODES:
            raise OnnxWireError(f"holds more than {MOST_NODES:,} operators")
    return nodes


def _attribute(attribute: memoryview, depth: int, domains: frozenset[str]) -> int:
    nodes = 0
    for number, value in _fields(attribute):
        if number in {_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS}:
            _inside(_message(value))
        elif number in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}:
            nodes += _walk(_message(value), depth + 1, domains)
    return nodes


def _inside(tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value):
            raise OnnxWireError("keeps weights in another file; export them inside")


def _opset(entry: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(entry):
        if number == 1:
            domain = _text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _strings(entry: memoryview, *numbers: int) -> list[str]:
    found = {number: _text(value) for number, value in _fields(entry) if number in numbers}
    return [found.get(number, "") for number in numbers]


def _text(value: memoryview | int) -> str:
    try:
        return bytes(_message(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OnnxWireError("is no ONNX file: a text in it is no UTF-8") from error


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise OnnxWireError("is no ONNX file: a number where a message belongs")
    return value


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, varint or bytes) of one message."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(view, at)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise OnnxWireError("is no ONNX file")
        if size > len(view) - at:
            raise OnnxWireError("is no whole ONNX file: it ends early; copy it anew")
        yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise OnnxWireError("is no whole ONNX file: it ends early; copy it anew")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise OnnxWireError("is no ONNX file")
