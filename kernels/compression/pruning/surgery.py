"""Takes entries out of the parameters of a net; what was taken out is a plan that JSON holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.compression.pruning.errors import PruningError


@dataclass(frozen=True, slots=True)
class Surgery:
    """What of each tensor is kept, and the new sizes of layers.

    With it, a net as it was built becomes one that takes the pruned weights: `apply`, then
    ``load_state_dict``.

    Attributes:
        kept: Parameter or buffer -> dimension -> indices that are kept, ascending.
        sizes: Layer -> setting -> number of channels.
        shapes: Parameter or buffer -> shape before.
    """

    kept: Mapping[str, Mapping[int, tuple[int, ...]]]
    sizes: Mapping[str, Mapping[str, int]]
    shapes: Mapping[str, tuple[int, ...]]

    def apply(self, model: nn.Module) -> None:
        """Make a net smaller, in place.

        Raises:
            PruningError: When it has no such tensor, or one of another size; nothing is changed.
        """
        new = {name: self.cut(name, _found(model, name)) for name in self.kept}
        for name, tensor in new.items():
            owner, leaf = _owner(model, name)
            old = getattr(owner, leaf)
            if isinstance(old, nn.Parameter):
                setattr(owner, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))
            else:
                setattr(owner, leaf, tensor)
        for layer, settings in self.sizes.items():
            module = model.get_submodule(layer)
            for setting, count in settings.items():
                # The sizes of a layer norm are a tuple.
                old = getattr(module, setting)
                setattr(module, setting, (count,) if isinstance(old, tuple) else count)

    def to_json(self) -> dict[str, Any]:
        """Return a value that JSON holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Surgery:
        """Return the plan of what JSON held, where numbers of dimensions are strings.

        Raises:
            PruningError: When it is no such plan.
        """
        try:
            kept = {
                str(name): {int(dim): tuple(map(int, indices)) for dim, indices in dims.items()}
                for name, dims in given["kept"].items()
            }
            sizes = {
                str(layer): {str(name): int(count) for name, count in settings.items()}
                for layer, settings in given["sizes"].items()
            }
            shapes = {name: tuple(map(int, given["shapes"][name])) for name in kept}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PruningError(f"not a plan of kept channels: {error!r}") from error
        return cls(kept, sizes, shapes)

    def cut(self, name: str, tensor: Tensor) -> Tensor:
        """Return what of a parameter or buffer is kept; gradients flow to what it is cut from.

        Raises:
            PruningError: When its shape is not that of before.
        """
        if name in self.kept and tuple(tensor.shape) != self.shapes[name]:
            raise PruningError(
                f"{name} is {tuple(tensor.shape)}, the plan was made for {self.shapes[name]}; "
                "give the net as it was before it was pruned"
            )
        for dim, indices in self.kept.get(name, {}).items():
            tensor = tensor.index_select(dim, torch.tensor(indices, device=tensor.device))
        return tensor


def _found(model: nn.Module, name: str) -> Tensor:
    try:
        owner, leaf = _owner(model, name)
        tensor: Tensor = getattr(owner, leaf).detach()
    except AttributeError as error:
        raise PruningError(f"{type(model).__name__} has no {name}; prune the net anew") from error
    return tensor


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
