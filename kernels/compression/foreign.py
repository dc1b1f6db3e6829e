"""ONNX files of others: TensorFlow's, PyTorch's of any age, scikit-learn's and LightGBM's.

What comes out is what the rest of this folder works on: one file of standard operators and those
for trees and linear models (``ai.onnx.ml``), weights inside and in float32, constants folded,
shapes known, an operator set that int8 can be written in. What stands in the way is told in one
error before anything is run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from kernels.compression.export import DOMAINS, MAX_BYTES, OPSET, ExportConfig, ExportError, checked
from kernels.compression.sessions import open_session

ML = "ai.onnx.ml"
KNOWN = DOMAINS | {ML}
LEAST_OPSET = 7
"""What ONNX Runtime promises to run from on."""
_TARGETS = (OPSET, 17, 13)
"""Tried in this order; per-channel QuantizeLinear came with 13."""
_LARGEST = 2**16
_TYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32}
_OWN_FORMATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32,
                TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL}  # fmt: skip


class ForeignError(ExportError):
    """A stranger's file that cannot be taken; says what blocks and what to do."""


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A stranger's file, made ready.

    Attributes:
        model: The file to go on with.
        original: What was given, weights inside: what it must answer like.
        config: Names and free sizes of the inputs.
        dtypes: Input -> dtype of its arrays in ``model``.
        shapes: Input -> shape, 0 where a size is free.
        opset: Operator set that it came with.
        changes: What was changed, in words.
    """

    model: bytes
    original: bytes
    config: ExportConfig
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    opset: int
    changes: tuple[str, ...]

    def reference(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return what the given file answers, with the types of ``model`` in and out."""
        session = open_session(self.original, threads=1, arena=False)
        kinds = {one.name: _TYPES.get(one.type) for one in session.get_inputs()}
        names = list(self.config.outputs)

        def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
            fed = {n: np.asarray(one, kinds.get(n) or one.dtype) for n, one in inputs.items()}
            found = dict(zip(names, session.run(names, fed), strict=True))
            return {n: x.astype(np.float32) if x.dtype.kind == "f" else x for n, x in found.items()}

        return run


def drawn_inputs(
    shapes: Mapping[str, Sequence[int]],
    dtypes: Mapping[str, str],
    count: int,
    *,
    batch: int = 2,
    seed: int = 0,
) -> list[dict[str, NDArray[Any]]]:
    """Return inputs drawn at random, sizes of 0 at ``batch``: for a first look, not a proof."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        one: dict[str, NDArray[Any]] = {}
        for name, shape in shapes.items():
            sizes, dtype = [size or batch for size in shape], np.dtype(dtypes[name])
            highest = 256 if dtype == np.uint8 else 2
            drawn = rng.normal(size=sizes) if dtype.kind == "f" else rng.integers(0, highest, sizes)
            one[name] = drawn.astype(dtype)
        made.append(one)
    return made


def read_foreign(path: Path, *, shapes: Mapping[str, Sequence[int]] | None = None) -> ForeignModel:
    """Return a stranger's file, made ready for quantising, parity and serving.

    Args:
        path: Of the file; weights in other files must lie in its folder or below.
        shapes: Input -> shape (0: free) where the file does not say.

    Raises:
        ForeignError: Names what blocks.
    """
    proto = _read(path)
    changes: list[str] = []
    if _embed(proto, path.parent):
        changes.append("weights brought into the file")
    original = bytes(proto.SerializeToString())
    if proto.functions:
        import onnx.inliner

        proto = onnx.inliner.inline_local_functions(proto)
        changes.append("functions of its own written out")
    _require_known(proto, path)
    opset = _opset(proto, path)
    if _weights_no_inputs(proto.graph):
        changes.append("weights taken out of the inputs")
    proto.ir_version = max(proto.ir_version, 8)  # before 4 weights had to be inputs
    _give_shapes(proto.graph, shapes or {}, path)
    if _narrow(proto.graph):
        changes.append("float64 became float32")
    proto, reached = _upgraded(proto, opset, path)
    if reached != opset:
        changes.append(f"operator set {opset} became {reached}")
    proto = _folded(proto, path)
    domains = KNOWN if any(n.domain == ML for n in proto.graph.node) else DOMAINS
    try:
        model = checked(proto, domains)
    except ExportError as error:
        raise ForeignError(f"{path}: {error}") from error
    return _described(path, model, original, opset, tuple(changes))


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ForeignError(f"{path}: there is no such file")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        raise ForeignError(f"{path}: {path.stat().st_size:,} bytes, 1 to {MAX_BYTES:,} are read")
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # of protobuf, which has several
        raise ForeignError(f"{path}: is no whole ONNX file; copy or export it anew") from error
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise ForeignError(f"{path}: is no whole ONNX file: operators, outputs or version missing")
    return proto


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for one in node.attribute:
            for inner in (one.g, *one.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    for one in _graphs(graph):
        yield from one.initializer
        for node in one.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _embed(proto: onnx.ModelProto, folder: Path) -> bool:
    """Bring weights of other files in, if they lie in the folder; return whether there are any."""
    outside = [t for t in _tensors(proto.graph) if t.data_location == TensorProto.EXTERNAL]
    room = MAX_BYTES - proto.ByteSize()
    for tensor in outside:
        told = {entry.key: entry.value for entry in tensor.external_data}
        place = PurePosixPath(told.get("location", ""))
        file = folder / place
        base = folder.resolve()
        if place.is_absolute() or ".." in place.parts or not file.resolve().is_relative_to(base):
            raise ForeignError(
                f"weights {tensor.name!r} lie at {str(place)!r}, outside of the model's folder; "
                "put them beside it"
            )
        if not file.is_file():
            raise ForeignError(f"weights {tensor.name!r}: {file} is missing; copy it along")
        try:
            begin = int(told.get("offset", 0))
            length = int(told.get("length", file.stat().st_size - begin))
        except ValueError as error:
            raise ForeignError(f"weights {tensor.name!r}: their place is no number") from error
        room -= length
        if begin < 0 or length < 0 or begin + length > file.stat().st_size or room < 0:
            raise ForeignError(
                f"weights {tensor.name!r}: {length:,} bytes at {begin:,} are not in {file.name}, "
                f"or all are more than {MAX_BYTES:,}"
            )
        with file.open("rb") as stream:
            stream.seek(begin)
            tensor.raw_data = stream.read(length)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return bool(outside)


def _require_known(proto: onnx.ModelProto, path: Path) -> None:
    nodes = [node for graph in _graphs(proto.graph) for node in graph.node]
    if strange := sorted({f"{n.domain}.{n.op_type}" for n in nodes if n.domain not in KNOWN}):
        raise ForeignError(
            f"{path}: operators of other domains: {', '.join(strange)}; export without them"
        )
    maps = [n.op_type for n in nodes if n.op_type == "ZipMap"]
    others = [o.name for o in proto.graph.output if o.type.WhichOneof("value") != "tensor_type"]
    if maps or others:
        raise ForeignError(
            f"{path}: outputs {others or maps} are no tensors; of scikit-learn export with "
            "options={'zipmap': False}"
        )
    for one in (*proto.graph.input, *proto.graph.output):
        kind = one.type.tensor_type.elem_type
        if kind not in _OWN_FORMATS | {0}:
            told = TensorProto.DataType.Name(kind)
            raise ForeignError(f"{path}: {one.name!r} is of type {told}, which is not taken")
    for tensor in _tensors(proto.graph):
        _require_sizes(tensor, path)


def _require_sizes(tensor: TensorProto, path: Path) -> None:
    """Weights whose bytes are not those of their shape read past their end in some runtimes."""
    try:
        held = numpy_helper.to_array(tensor)
        if list(held.shape) != list(tensor.dims):
            raise ValueError("another shape")  # noqa: TRY301 - told below with the name
    except Exception as error:
        raise ForeignError(
            f"{path}: weights {tensor.name!r} do not have the size of their shape "
            f"{list(tensor.dims)}; copy or export it anew"
        ) from error


def _opset(proto: onnx.ModelProto, path: Path) -> int:
    versions = [one.version for one in proto.opset_import if one.domain in DOMAINS]
    opset = max(versions, default=OPSET)  # trees alone need none
    if opset < LEAST_OPSET:
        raise ForeignError(
            f"{path}: operator set {opset} is too old, {LEAST_OPSET} or newer is taken; export it "
            "with a newer program"
        )
    if opset > onnx.defs.onnx_opset_version():
        raise ForeignError(
            f"{path}: operator set {opset} is newer than what is known here "
            f"({onnx.defs.onnx_opset_version()}); export with opset {OPSET}"
        )
    return opset


def _weights_no_inputs(graph: onnx.GraphProto) -> bool:
    """Old files list weights among the inputs, where a caller may replace them: fold nothing."""
    held = {tensor.name for tensor in graph.initializer}
    kept = [one for one in graph.input if one.name not in held]
    changed = len(kept) != len(graph.input)
    if changed:
        del graph.input[:]
        graph.input.extend(kept)
    return changed


def _give_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]], path: Path) -> None:
    names = [one.name for one in graph.input]
    if unknown := sorted(set(shapes) - set(names)):
        raise ForeignError(f"{path}: has no input {unknown}; its inputs are {names}")
    for one in graph.input:
        kind = one.type.tensor_type
        if one.name in shapes:
            del kind.shape.dim[:]
            kind.shape.SetInParent()
            for size in shapes[one.name]:
                kind.shape.dim.add(dim_value=size) if size else kind.shape.dim.add()
        if not kind.HasField("shape"):
            raise ForeignError(
                f"{path}: input {one.name!r} has no shape; give it, 0 for a free size: "
                f"{one.name}=0x3x224x224"
            )
        for axis, dim in enumerate(kind.shape.dim):
            if not dim.dim_param and dim.dim_value < 1:
                dim.dim_param = f"{one.name}_{axis}"


def _narrow(graph: onnx.GraphProto) -> bool:
    """Make all of float64 float32; return whether there was any."""
    double, single = TensorProto.DOUBLE, TensorProto.FLOAT
    changed = False
    for tensor in _tensors(graph):
        if tensor.data_type == double:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            changed = True
    for one in _graphs(graph):
        for value in (*one.input, *one.output, *one.value_info):
            if value.type.tensor_type.elem_type == double:
                value.type.tensor_type.elem_type = single
                changed = True
        for attribute in (a for node in one.node for a in node.attribute):
            if attribute.name in {"to", "dtype"} and attribute.i == double:
                attribute.i = single
                changed = True
    return changed


def _upgraded(proto: onnx.ModelProto, opset: int, path: Path) -> tuple[onnx.ModelProto, int]:
    """Bring the standard operators to a newer set, the newest that works."""
    import onnx.version_converter

    if opset >= OPSET:
        return proto, opset
    reason: Exception | None = None
    for target in [one for one in _TARGETS if one > opset]:
        try:
            made = onnx.version_converter.convert_version(proto, target)
            onnx.checker.check_model(made)
        except Exception as error:  # noqa: BLE001 - it raises RuntimeError and its own
            reason = error
            continue
        return made, target
    if opset >= min(_TARGETS):
        return proto, opset
    told = (str(reason).strip().splitlines() or [""])[0][:200]
    raise ForeignError(
        f"{path}: operator set {opset} cannot be brought to {min(_TARGETS)} or newer ({told}); "
        "export it with a newer program"
    )


def _folded(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Let ONNX Runtime fold constants and norms; it stays with standard operators at that level."""
    import onnxruntime

    del proto.graph.value_info[:]  # of the old set, or wrong: inferred anew below
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no base class of its errors
            told = str(error).strip().splitlines()[0][:300]
            raise ForeignError(f"{path}: ONNX Runtime does not take it: {told}") from error
        made = onnx.load_model(options.optimized_model_filepath)
    used = {node.domain or "" for graph in _graphs(made.graph) for node in graph.node}
    kept = [one for one in made.opset_import if one.domain in used | {""}]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    made.doc_string = made.graph.doc_string = ""
    try:
        return shape_inference.infer_shapes(made, data_prop=True)
    except shape_inference.InferenceError as error:
        raise ForeignError(f"{path}: its shapes contradict each other: {error}") from error


def _described(
    path: Path, model: bytes, original: bytes, opset: int, changes: tuple[str, ...]
) -> ForeignModel:
    graph = onnx.load_model_from_string(model).graph
    dynamic: dict[str, dict[int, tuple[str, int, int]]] = {}
    shapes, dtypes = {}, {}
    for one in graph.input:
        kind = one.type.tensor_type
        dtypes[one.name] = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))
        shapes[one.name] = tuple(int(dim.dim_value) for dim in kind.shape.dim)
        for axis, dim in enumerate(kind.shape.dim):
            if not dim.dim_value:
                dynamic.setdefault(one.name, {})[axis] = (dim.dim_param, 1, _LARGEST)
    if not shapes:
        raise ForeignError(f"{path}: takes no input: all of it was constant")
    config = ExportConfig(
        inputs=tuple(shapes), outputs=tuple(o.name for o in graph.output), dynamic=dynamic
    )
    return ForeignModel(model, original, config, dtypes, shapes, opset, changes)
