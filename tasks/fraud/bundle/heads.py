"""Scoring heads of a bundle: ONNX graphs run by ONNX Runtime on one thread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.folder import BundleError

SIGNALS = "signals"
"""Output of a composed head that shows what the network tells the trees."""

INPUT_NAMES = ("features", "mail", "mask", "embeddings")
CHUNK = 256
"""Rows that a graph gets at once: what it keeps in between then fits the processor's cache."""

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class OnnxHead:
    """One head.

    Attributes:
        name: Head name, for messages.
        inputs: Input name -> shape (symbolic sizes are -1), in the order of the graph.
        outputs: Output names; the last one is the score.
    """

    def __init__(self, name: str, content: bytes) -> None:
        """Build a session from verified bytes; weights outside the file are refused."""
        import onnxruntime

        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        check_graph(name, content)
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # ONNX Runtime raises its own unrelated classes, one per error code.
            raise BundleError(f"head {name!r} cannot be run: {error}") from error
        self.inputs = {
            i.name: tuple(s if isinstance(s, int) else -1 for s in i.shape)
            for i in self._session.get_inputs()
        }
        self._dtypes = {i.name: _DTYPES.get(i.type) for i in self._session.get_inputs()}
        unknown = sorted(set(self.inputs) - set(INPUT_NAMES))
        if unknown:
            raise BundleError(f"head {name!r} wants input {unknown[0]!r}, not one of {INPUT_NAMES}")
        self.outputs = tuple(o.name for o in self._session.get_outputs())

    def score(self, feed: Mapping[str, NDArray[Any] | None]) -> NDArray[np.float64]:
        """Return probabilities float64 ``[n]``.

        Args:
            feed: Arrays by input name; those the graph does not take are ignored.

        Raises:
            BundleError: When an input is missing or has another shape.
        """
        output = self.run(feed, self.outputs[-1]).astype(np.float64)
        return output.reshape(len(output), math.prod(output.shape[1:]))[:, -1]

    def run(self, feed: Mapping[str, NDArray[Any] | None], output: str) -> NDArray[Any]:
        """Return one named output [n, ...]; arguments as ``score``."""
        if output not in self.outputs:
            raise BundleError(f"head {self.name!r} has no output {output!r}")
        arrays: dict[str, NDArray[Any]] = {}
        for name, shape in self.inputs.items():
            value = feed.get(name)
            if value is None:
                raise BundleError(f"head {self.name!r} needs input {name!r}")
            if value.ndim != len(shape) or any(
                want not in (-1, got) for want, got in zip(shape[1:], value.shape[1:], strict=True)
            ):
                raise BundleError(
                    f"head {self.name!r}: input {name!r} has shape {value.shape}, wanted {shape}"
                )
            arrays[name] = np.ascontiguousarray(value, dtype=self._dtypes[name])
        rows = len(next(iter(arrays.values())))
        if any(len(array) != rows for array in arrays.values()):
            lengths = {name: len(array) for name, array in arrays.items()}
            raise BundleError(f"head {self.name!r}: inputs differ in length: {lengths}")
        parts = [
            self._session.run([output], {k: v[at : at + CHUNK] for k, v in arrays.items()})[0]
            for at in range(0, max(rows, 1), CHUNK)
        ]
        return np.concatenate(parts) if len(parts) > 1 else np.asarray(parts[0])


def check_graph(name: str, content: bytes) -> None:
    """Refuse graphs with weights outside the file or operators outside the standard sets.

    Raises:
        BundleError: With the reason.
    """
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception as error:
        # protobuf raises DecodeError, which is no ValueError and lives in a private module.
        raise BundleError(f"head {name!r} is no ONNX graph: {error}") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleError(f"head {name!r} keeps weights outside its file; export it whole")
    strange = {o.domain for o in model.opset_import} - {"", "ai.onnx", "ai.onnx.ml"}
    if strange:
        raise BundleError(f"head {name!r} uses non-standard operators of {sorted(strange)}")


def compose(first: bytes, second: bytes, *, features: str = "features") -> bytes:
    """Join a network and the trees that read its output into one file.

    ``first`` maps its inputs (which include ``features`` [n, F]) to one output [n, H]; ``second``
    maps one input [n, F + H] to a score. The result takes the inputs of ``first`` and gives the
    network's output as ``signals`` before the score, so that explanations can see it.

    Args:
        first: ONNX graph of the network.
        second: ONNX graph of the trees; its input is ``concat(features, output of first)``.
        features: Name of the input of ``first`` that is handed on.
    """
    import onnx
    from onnx import TensorProto, helper
    from onnx import compose as onnx_compose

    one, two = onnx.load_from_string(first), onnx.load_from_string(second)
    opsets = _common_opsets([one, two])
    one, two = (_with_opset(model, opsets) for model in (one, two))
    one = onnx_compose.add_prefix(one, "net_", rename_inputs=False)
    two = onnx_compose.add_prefix(two, "head_")
    hidden, wide = one.graph.output[0].name, two.graph.input[0].name
    as_float = helper.make_node("Cast", [hidden], [SIGNALS], to=TensorProto.FLOAT)
    join = helper.make_node("Concat", [features, SIGNALS], [wide], axis=1)
    seen = helper.make_tensor_value_info(SIGNALS, TensorProto.FLOAT, ["rows", _width(one, two)])
    graph = helper.make_graph(
        [*one.graph.node, as_float, join, *two.graph.node],
        "network_and_head",
        list(one.graph.input),
        [seen, *two.graph.output],
        [*one.graph.initializer, *two.graph.initializer],
    )
    merged = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in sorted(opsets.items())],
        ir_version=max(one.ir_version, two.ir_version),
        producer_name="penstock",
    )
    onnx.checker.check_model(merged)
    content: bytes = merged.SerializeToString()
    return content


def split(content: bytes) -> tuple[bytes, bytes]:
    """Part what ``compose`` joined.

    Args:
        content: ONNX graph with an output ``signals``.

    Returns:
        The network (its inputs -> ``signals``), and what follows it, which reads ``features``
        [n, F + H] and gives the score.

    Raises:
        BundleError: When the graph has no such output or was joined in another way.
    """
    import onnx

    model = onnx.load_from_string(content)
    joins = [n for n in model.graph.node if n.op_type == "Concat" and SIGNALS in n.input]
    if SIGNALS not in {o.name for o in model.graph.output} or len(joins) != 1:
        raise BundleError(
            f"a head on mail or embeddings without one output {SIGNALS!r} that joins the features "
            "cannot be parted into network and trees; train and publish again"
        )
    network = _cut(model, list(model.graph.input), SIGNALS)
    wide = onnx.helper.make_tensor_value_info(
        INPUT_NAMES[0], onnx.TensorProto.FLOAT, ["rows", "width"]
    )
    for node in model.graph.node:
        node.input[:] = [wide.name if name == joins[0].output[0] else name for name in node.input]
    return network, _cut(model, [wide], model.graph.output[-1].name, without=joins[0])


def _cut(model: Any, inputs: list[Any], output: str, without: Any = None) -> bytes:
    """Return the part of a graph that one output needs."""
    from onnx import helper

    needed = {output}
    nodes: list[Any] = []
    for node in reversed(model.graph.node):  # nodes stand after those they read from
        if node is not without and needed & set(node.output):
            needed |= set(node.input)
            nodes.insert(0, node)
    graph = helper.make_graph(
        nodes,
        "part",
        [i for i in inputs if i.name in needed],
        [o for o in model.graph.output if o.name == output],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    content: bytes = part.SerializeToString()
    return content


def _width(one: Any, two: Any) -> int:
    """Return H: what the second graph reads beyond the features of the first."""
    sizes = [model.graph.input[0].type.tensor_type.shape.dim[1].dim_value for model in (one, two)]
    return int(sizes[1] - sizes[0])


def _common_opsets(models: list[Any]) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for model in models:
        for entry in model.opset_import:
            opsets[entry.domain] = max(opsets.get(entry.domain, 0), entry.version)
    return opsets


def _with_opset(model: Any, opsets: Mapping[str, int]) -> Any:
    """Lift the standard operators of a graph to a common version."""
    from onnx import version_converter

    current = {o.domain: o.version for o in model.opset_import}
    target = opsets.get("", 0)
    if current.get("", target) != target:
        model = version_converter.convert_version(model, target)
    return model
