"""Which part of a graph is made int8: from its first filter to its last.

Before the first weights stand preparations of the input, behind the last filter heads, sorts and
thresholds. Both cost little, and what is rounded there goes straight into the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
BESIDE = ("Add", "Relu", "Clip", "MaxPool", "Resize", "Concat")
"""Made int8 between weighted nodes, so that values stay int8 on their way."""


def middle(
    graph: onnx.GraphProto, skipped: int = 0, *, whole: bool = False
) -> list[onnx.NodeProto]:
    """Return the nodes to quantise, in the order of the graph.

    Weighted ones count from the first on to the last filter: a convolution over more than one place
    if there are any, else any product by weights that are a matrix at least. Others count where
    they lie between two of these.

    Args:
        graph: Sorted, as ONNX demands.
        skipped: Weighted nodes behind each input that stay float, too: with few channels they cost
            little, and what is rounded there goes through all that follow.
        whole: Heads behind the last filter count, too: where they hold much of the weights.
    """
    nodes = list(graph.node)
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    weighted = [n for n in nodes if n.op_type in WEIGHTED and not _by_vector(n, shapes)]
    filters = [n for n in weighted if _places(n, shapes) > 1 and not whole] or weighted
    leads = _leading(nodes, filters)
    filtering = {id(node) for node in filters}
    depth = _depths(nodes, weighted)
    chosen = [
        node
        for node in weighted
        if (leads.intersection(node.output) or id(node) in filtering) and depth[id(node)] > skipped
    ]
    behind = _following(nodes, chosen)
    before = _leading(nodes, chosen)
    kept = {id(n) for n in chosen}
    return [
        node
        for node in nodes
        if id(node) in kept
        or (
            node.op_type in BESIDE
            and behind.intersection(node.output)
            and before.intersection(node.output)
        )
    ]


def _by_vector(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    return node.op_type == "MatMul" and len(shapes.get(node.input[1], (1, 1))) < 2


def _places(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Return how many places of a map a weighted node takes in at once."""
    shape = shapes.get(node.input[1], ())
    return max(shape[2:], default=1) if node.op_type == "Conv" else 1


def _depths(nodes: Sequence[onnx.NodeProto], weighted: Sequence[onnx.NodeProto]) -> dict[int, int]:
    """Return how many weighted nodes lie on the longest way to each node, itself among them."""
    counted = {id(node) for node in weighted}
    depth: dict[int, int] = {}
    reached: dict[str, int] = {}
    for node in nodes:
        longest = max((reached.get(name, 0) for name in node.input), default=0)
        depth[id(node)] = longest + (id(node) in counted)
        reached |= dict.fromkeys(node.output, depth[id(node)])
    return depth


def _leading(nodes: Sequence[onnx.NodeProto], to: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the values from which one of these nodes is reached."""
    found: set[str] = set()
    wanted = {id(node) for node in to}
    for node in reversed(nodes):
        if id(node) in wanted or found.intersection(node.output):
            found.update(node.input)
    return found


def _following(nodes: Sequence[onnx.NodeProto], of: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the values that one of these nodes leads to."""
    found: set[str] = set()
    wanted = {id(node) for node in of}
    for node in nodes:
        if id(node) in wanted or found.intersection(node.input):
            found.update(node.output)
    return found
