"""Batch norms folded into the layer before them, for inference.

In evaluation a batch norm is a factor and a summand for every channel, which the weights of the
convolution or linear layer before it can hold (Jacob et al., "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 2018, section 3.2).
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

logger = logging.getLogger(__name__)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class FoldingError(ValueError):
    """A model cannot be folded; the message says why."""


class _Dimensions(fx.Interpreter):
    """Runs a graph and notes how many dimensions each result has."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.found: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.found[n] = result.ndim
        return result


def folded(model: nn.Module, example: Tensor | tuple[Tensor, ...] | None = None) -> fx.GraphModule:
    """Return a copy of a model for inference, without the batch norms that can be folded.

    Activations (ReLU) of results that nobody else reads are computed in place. The model itself
    stays as it is.

    A batch norm works on dimension 1. Of a linear layer's results those are the channels if they
    are [N, C], and not if they are [N, L, C], also where L and C are equal: without an example
    norms after linear layers stay. Convolutions are then taken to get batches.

    Args:
        model: In evaluation mode.
        example: Its input, a tuple of several: as many dimensions as the copy will get. The model
            computes it once.

    Raises:
        FoldingError: When the model trains, or has no fixed graph.
    """
    if model.training:
        raise FoldingError("batch norms of a model that trains follow the batch; call model.eval()")
    try:
        traced = fx.symbolic_trace(copy.deepcopy(model))
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise FoldingError(
            f"the model has no fixed graph ({error}); fold the parts that have one"
        ) from error
    modules = dict(traced.named_modules())
    dimensions = _dimensions(traced, example)
    count = 0
    for node in list(traced.graph.nodes):
        before = _layer_before(node, modules, dimensions)
        if before is None:
            continue
        norm = modules[node.target]
        layer = modules[before.target]
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        merged = fuse(layer, norm)
        parent, _, name = str(before.target).rpartition(".")
        setattr(modules[parent] if parent else traced, name, merged)
        modules[str(before.target)] = merged
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        count += 1
    in_place = _in_place(traced, modules)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    traced.eval()
    logger.info("folded %d batch norms, %d activations in place", count, in_place)
    return traced


def _dimensions(
    traced: fx.GraphModule, example: Tensor | tuple[Tensor, ...] | None
) -> dict[fx.Node, int]:
    """Return how many dimensions results have, as far as an example tells."""
    if example is None:
        return {}
    run = _Dimensions(traced)
    with torch.no_grad():
        run.run(*(example if isinstance(example, tuple) else (example,)))
    return run.found


def _layer_before(
    node: fx.Node, modules: dict[str, nn.Module], dimensions: dict[fx.Node, int]
) -> fx.Node | None:
    """Return the layer that a batch norm can be folded into, None where it cannot."""
    if node.op != "call_module" or not isinstance(modules[str(node.target)], NORMS):
        return None
    norm = modules[str(node.target)]
    before = node.args[0] if node.args else None
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return None
    layer = modules[str(before.target)]
    is_changed = not (_is_plain(layer) and _is_plain(norm))
    keeps_nothing = getattr(norm, "running_mean", None) is None
    if is_changed or keeps_nothing or _is_used_elsewhere(before, node.graph):
        return None
    if isinstance(layer, nn.Linear):
        # Of [N, L, C] it normalises L.
        return before if dimensions.get(before) == 2 else None
    if not isinstance(layer, CONVOLUTIONS):
        return None
    # Of one sample, [C, L], it normalises L, too.
    batched = layer.weight.ndim
    fits = layer.out_channels == norm.num_features
    return before if fits and dimensions.get(before, batched) == batched else None


def _is_used_elsewhere(layer: fx.Node, graph: fx.Graph) -> bool:
    """Whether a layer is called twice, or its weights are read by themselves."""
    place = str(layer.target)
    reads = [
        n
        for n in graph.nodes
        if n.op in {"call_module", "get_attr"}
        and (str(n.target) == place or str(n.target).startswith(f"{place}."))
    ]
    return len(reads) > 1


def _is_plain(module: nn.Module) -> bool:
    """Whether a module does what its class does: no hooks, weights that are no others' product."""
    hooks = module._forward_hooks or module._forward_pre_hooks  # noqa: SLF001 - no public way
    return not hooks and not torch.nn.utils.parametrize.is_parametrized(module)


def _in_place(traced: fx.GraphModule, modules: dict[str, nn.Module]) -> int:
    """Let activations overwrite the result of a layer that nobody else reads."""
    count = 0
    layers = (*CONVOLUTIONS, nn.Linear)
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) != 1:
            continue
        if before.op != "call_module" or not isinstance(modules[str(before.target)], layers):
            continue
        is_module = node.op == "call_module" and isinstance(modules[str(node.target)], nn.ReLU)
        if is_module or (
            node.op == "call_function" and node.target in {functional.relu, torch.relu}
        ):
            node.op, node.target = "call_function", torch.relu_
            node.args, node.kwargs = (before,), {}
            count += 1
    return count
