"""A model cut into segments at its narrow places, whatever modules it is made of.

The graph of its operations (``torch.fx``) is cut where a single tensor passes from what lies before
to what lies after, such as between the residual blocks of a ResNet, so that each segment's input is
all that has to be kept of it.
"""

from __future__ import annotations

import warnings

from torch import nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.passes.split_module import split_module


class UntraceableError(ValueError):
    """A model whose operations depend on its inputs; it has no fixed graph."""


def segments_of(model: nn.Module) -> GraphModule:
    """Return the model as about sqrt(n) segments that follow each other, n its narrow places.

    The segments use the model's own modules and parameters.

    Raises:
        UntraceableError: When the model has no fixed graph, or no narrow place.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = symbolic_trace(model)
    except Exception as error:
        raise UntraceableError(
            f"the model has no fixed graph ({error}); take memory.recompute='full'"
        ) from error
    nodes = [n for n in graph.graph.nodes if n.op not in {"placeholder", "get_attr", "output"}]
    places = narrow_places(nodes)
    if not places:
        raise UntraceableError("the model has no narrow place; take memory.recompute='full'")
    count = max(2, round((len(places) + 1) ** 0.5))
    wanted = [len(nodes) * k / count for k in range(1, count)]
    cuts = sorted({min(places, key=lambda place: abs(place - w)) for w in wanted})
    number = {n: sum(i >= cut for cut in cuts) for i, n in enumerate(nodes)}
    # Not typed strictly enough: it accepts any module and returns a module of graphs.
    return split_module(graph, model, lambda n: number.get(n, 0))


def narrow_places(nodes: list[Node]) -> list[int]:
    """Return every i so that of all before ``nodes[i]`` only one tensor is used from there on.

    It must not be changed in place there, for it will be needed again as it was; and no input of
    the model may be used that late.
    """
    position = {node: i for i, node in enumerate(nodes)}
    uses = [[position.get(user, len(nodes)) for user in node.users] for node in nodes]
    last_input = max(
        i for i, n in enumerate(nodes) for a in n.all_input_nodes if a.op == "placeholder"
    )
    found = []
    for i in range(last_input + 1, len(nodes)):
        passing = [k for k in range(i) if max(uses[k], default=k) >= i]
        if len(passing) == 1:
            later = [u for u in nodes[passing[0]].users if position.get(u, -1) >= i]
            if not any(_is_in_place(user) for user in later):
                found.append(i)
    return found


def _is_in_place(node: Node) -> bool:
    if node.op == "call_module":
        module = node.graph.owning_module
        called = module.get_submodule(str(node.target)) if module is not None else None
        return bool(getattr(called, "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))
