"""A torch module as one self-contained ONNX file: checked, folded, without traces of the machine.

What `torch.onnx.export` leaves open is pinned here: operator set, names, dynamic sizes, weights
inside the file, standard operators only. Two faults of the exporter are mended: it writes the
source folder of every operator into the file, and it writes antialiased resizing with
``exclude_outside = 0``, which ONNX Runtime then computes otherwise than torch does (up to 15 of 255
levels at the borders of each filter).
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from onnx import shape_inference
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET = 20
"""The newest that all of ONNX Runtime 1.17 to 1.32 know, with antialiased ``Resize`` (18)."""
IR_VERSION = 9
"""File format of that operator set."""
DOMAINS = frozenset({"", "ai.onnx"})
MAX_BYTES = 2**31 - 1
"""A protobuf message cannot be larger; larger weights would have to lie outside of the file."""


class ExportError(ValueError):
    """A module that does not become a self-contained ONNX file; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """What the file's outside looks like.

    Attributes:
        inputs: Names of the inputs, in the order of the module's arguments.
        outputs: Names of the outputs, in their order.
        dynamic: Input -> its dimensions of free size -> (name, least, largest).
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        names = (*self.inputs, *self.outputs)
        if not self.inputs or not self.outputs or len(set(names)) != len(names):
            raise ValueError(f"inputs and outputs need names that all differ, got {names}")
        if unknown := sorted(set(self.dynamic) - set(self.inputs)):
            raise ValueError(f"dynamic sizes of {unknown}, which are no inputs: {self.inputs}")


def export_onnx(module: nn.Module, example: Sequence[Tensor], config: ExportConfig) -> bytes:
    """Return the module as an ONNX file.

    Args:
        module: In evaluation mode; returns a tensor or a tuple of tensors.
        example: One tensor per input; a dynamic dimension must be larger than 1 in it.
        config: Names and dynamic sizes.

    Raises:
        ExportError: When the module is in training mode, uses what ONNX cannot express, or the file
            would not be self-contained.
    """
    if any(each.training for each in module.modules()):
        raise ExportError("the module is in training mode; call .eval() before the export")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own use of what torch deprecates
            program = torch.onnx.export(
                folded(module, example),
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                optimize=True,
                verbose=False,
                external_data=False,
                input_names=list(config.inputs),
                output_names=list(config.outputs),
                dynamic_shapes=dynamic_sizes(config) if config.dynamic else None,
            )
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()
        raise ExportError(
            f"{type(module).__name__} does not become ONNX: {reason[0] if reason else error}; "
            "use operators of fixed dimensions (amax(dim=...), no loops over values)"
        ) from error
    if program is None:
        raise ExportError("the exporter returned nothing; update torch")
    model = program.model_proto
    model.ir_version = IR_VERSION
    _strip(model)
    _mend_antialias(model.graph)
    _mend_top(model.graph)
    return checked(model)


def dynamic_sizes(config: ExportConfig) -> tuple[dict[int, Any], ...]:
    """Return the free sizes of each input as torch's exporters want them."""
    return tuple(
        {
            axis: torch.export.Dim(name, min=least, max=largest)
            for axis, (name, least, largest) in config.dynamic.get(one, {}).items()
        }
        for one in config.inputs
    )


def checked(model: onnx.ModelProto, domains: frozenset[str] = DOMAINS) -> bytes:
    """Return the model's bytes, with inferred shapes, after every check that needs no run.

    Args:
        model: What `shape_inference` can follow.
        domains: Whose operators may be in it.

    Raises:
        ExportError: When the checker finds faults, weights lie outside of the file, an operator is
            no standard one, or batch norms were not folded.
    """
    try:
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX checker refuses the file: {error}") from error
    nodes = list(model.graph.node)
    if strange := sorted({f"{n.domain}.{n.op_type}" for n in nodes} - _standard(nodes, domains)):
        raise ExportError(f"not standard ONNX: {', '.join(strange)}")
    if left := [n.input[0] for n in nodes if n.op_type == "BatchNormalization"]:
        raise ExportError(f"batch norms behind {left} do not follow a convolution of their own")
    outside = onnx.TensorProto.EXTERNAL
    if any(tensor.data_location == outside for tensor in model.graph.initializer):
        raise ExportError("weights lie outside of the file; export them inside")
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(f"the file would be larger than {MAX_BYTES:,} bytes")
    return bytes(model.SerializeToString())


def with_metadata(model: bytes, entries: Mapping[str, str]) -> bytes:
    """Return the model with these entries among its metadata; old ones of the same name go."""
    proto = onnx.load_model_from_string(model)
    kept = {p.key: p.value for p in proto.metadata_props} | dict(entries)
    del proto.metadata_props[:]
    for key in sorted(kept):
        proto.metadata_props.add(key=key, value=kept[key])
    return bytes(proto.SerializeToString(deterministic=True))


def with_scalars(model: bytes, values: Mapping[str, np.float32]) -> bytes:
    """Return the model with other values of these named float32 constants.

    Raises:
        ExportError: When the model has no such constant of one number.
    """
    proto = onnx.load_model_from_string(model)
    held = {t.name: t for t in proto.graph.initializer}
    for name, value in values.items():
        one = held.get(name)
        if one is None or one.dims or one.data_type != onnx.TensorProto.FLOAT:
            raise ExportError(f"the file has no float32 constant {name!r} of one number")
        one.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    return bytes(proto.SerializeToString(deterministic=True))


def _standard(nodes: Sequence[Any], domains: frozenset[str]) -> set[str]:
    return {f"{n.domain}.{n.op_type}" for n in nodes if n.domain in domains}


def folded(module: nn.Module, example: Sequence[Tensor]) -> nn.Module:
    """Return a copy whose batch norms are in the weights of the convolutions before them.

    The exporter folds most by itself, but leaves some where sizes are dynamic. Which convolution a
    norm follows is seen by running the example: it is the one whose very output the norm is given.
    """
    copied = copy.deepcopy(module)
    made_by: dict[int, nn.Conv2d] = {}
    kept: list[Tensor] = []  # else another output may get the same address
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(conv: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(conv, nn.Conv2d):
            made_by[id(output)] = conv
            kept.append(output)

    def pair(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(norm, nn.BatchNorm2d) and id(inputs[0]) in made_by:
            pairs.append((made_by[id(inputs[0])], norm))

    hooks = [one.register_forward_hook(note) for one in copied.modules()]
    hooks += [one.register_forward_pre_hook(pair) for one in copied.modules()]
    try:
        with torch.no_grad():
            copied(*example)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = list(dict.fromkeys(pairs))  # a net may run twice, on two sizes of an image
    times = Counter(id(conv) for conv, _ in pairs)
    for conv, norm in pairs:
        if times[id(conv)] == 1:
            fused = fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight, fused.bias
            norm.forward = _unchanged  # type: ignore[method-assign,assignment]
    return copied


def _unchanged(values: Tensor) -> Tensor:
    return values


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter tells of the source: stack traces with folders, module names."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    del model.metadata_props[:]
    del graph.metadata_props[:]
    for group in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for each in group:
            each.doc_string = ""
            del each.metadata_props[:]
    del model.functions[:]


def _mend_top(graph: onnx.GraphProto) -> None:
    """Let ``topk(min(count, length))`` ask for the length itself, also where count is a share.

    The exporter works the length out from other maps' sizes by a relation that holds for the
    example alone (a map of 23 columns is 2 * 12 - 1), and so picks too few for other images.
    """
    constants = {t.name: t for t in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in [n for n in graph.node if n.op_type == "TopK" and n.input[1] not in constants]:
        least = made_by[node.input[1]]
        while least.op_type in {"Reshape", "Unsqueeze", "Cast"}:
            least = made_by[least.input[0]]
        asked = _asked(least, made_by, constants) if least.op_type == "Min" else None
        if asked is None:
            raise ExportError(
                "topk of a computed number; give min(count, length) or "
                "min((length + n - 1) // n, length) of its axis"
            )
        place = next(i for i, one in enumerate(graph.node) if one is node or one == node)
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        added = _top_count(graph, node, axis, asked)
        node.input[1] = added[-1].output[0]
        for one in reversed(added):
            graph.node.insert(place, one)


def _asked(
    least: onnx.NodeProto,
    made_by: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> tuple[int, ...] | None:
    """Return a constant count alone, or what is added to a length and what divides the sum."""

    def number(name: str) -> int | None:
        held = constants.get(name)
        return None if held is None else int(onnx.numpy_helper.to_array(held))

    counts = [count for name in least.input if (count := number(name)) is not None]
    if counts:
        return (counts[0],) if len(counts) == 1 else None
    found = []
    for part in (made_by.get(name) for name in least.input):
        if part is None or part.op_type != "Div":
            continue
        summed, divisor = made_by.get(part.input[0]), number(part.input[1])
        if summed is None or summed.op_type != "Add" or divisor is None:
            continue
        # Rounded up: else it is another number than a share of the length.
        found += [(n, divisor) for name in summed.input if (n := number(name)) == divisor - 1]
    return found[0] if len(found) == 1 else None


def _top_count(
    graph: onnx.GraphProto, top: onnx.NodeProto, axis: int, asked: tuple[int, ...]
) -> list[onnx.NodeProto]:
    """Return nodes whose last gives the number of values that ``top`` shall take, [1]."""
    made: list[onnx.NodeProto] = []
    prefix = f"{top.output[0]}_"

    def constant(name: str, value: int) -> str:
        tensor = onnx.numpy_helper.from_array(np.array([value]), prefix + name)
        graph.initializer.append(tensor)
        return prefix + name

    def node(kind: str, inputs: list[str], name: str) -> str:
        named = prefix + name
        made.append(onnx.helper.make_node(kind, inputs, [named], name=named))
        return named

    shape = node("Shape", [top.input[0]], "shape")
    length = node("Gather", [shape, constant("axis", axis)], "length")
    if len(asked) == 1:
        count = constant("asked", asked[0])
    else:
        added, divisor = asked
        summed = node("Add", [length, constant("added", added)], "sum")
        count = node("Div", [summed, constant("divisor", divisor)], "part")
    node("Min", [count, length], "count")
    return made


def _mend_antialias(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        named = {a.name: a for a in node.attribute}
        if node.op_type == "Resize" and "antialias" in named and named["antialias"].i:
            if "exclude_outside" in named:
                node.attribute.remove(named["exclude_outside"])
            node.attribute.append(onnx.helper.make_attribute("exclude_outside", 1))
