"""Sets of channels that can be taken out, and what a net costs without some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kernels.compression.pruning.channel_graph import ChannelGraph, Slot
from kernels.compression.pruning.surgery import Surgery

Mask = NDArray[np.bool_]
"""Per set: whether it is kept."""


@dataclass(frozen=True, slots=True)
class NetCost:
    """What a net costs.

    Attributes:
        parameters: Number of them.
        multiplications: Of weighted layers, for the example.
    """

    parameters: int
    multiplications: int

    def of(self, kind: Literal["parameters", "multiplications"]) -> int:
        """Return one of both."""
        return int(getattr(self, kind))


class ChannelSets:
    """All sets of a net that can be taken out.

    Attributes:
        graph: Where they come from.
        numbers: Number of each set in the graph, int64 [sets], ascending.
        family: Family of each set, int64 [sets]. A family is made by the same layers.
        families: Layers that make each family.
        places: Slot -> for each of its entries the set's index, -1 for channels that stay.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.graph = graph
        held = graph.atoms.held_sets()
        makers: dict[int, list[str]] = {}
        for slot in graph.slots.values():
            if slot.role == "makes":
                for number in torch.unique(graph.atoms.find(slot.ids)).tolist():
                    if number not in held:
                        makers.setdefault(number, []).append(slot.tensor)
        self.numbers = np.array(sorted(makers), dtype=np.int64)
        layers = [tuple(sorted(makers[number])) for number in self.numbers.tolist()]
        self.families = tuple(sorted(set(layers)))
        place = {family: i for i, family in enumerate(self.families)}
        self.family = np.array([place[each] for each in layers], dtype=np.int64)
        self.places = {key: self._indices(slot.ids) for key, slot in graph.slots.items()}
        tensors = (*model.named_parameters(), *model.named_buffers())
        self._shapes = {name: tuple(value.shape) for name, value in tensors}
        self._parameters = [name for name, _ in model.named_parameters()]

    def __len__(self) -> int:
        return len(self.numbers)

    def cost(self, kept: Mask) -> NetCost:
        """Return what the net costs with some of the sets."""
        counts = {key: int(_stays(places, kept).sum()) for key, places in self.places.items()}
        sizes = {
            name: int(np.prod([counts.get((name, dim), size) for dim, size in enumerate(shape)]))
            for name, shape in self._shapes.items()
        }
        products = sum(
            positions * sizes[f"{layer}.weight"]
            for layer, positions in self.graph.positions.items()
        )
        return NetCost(sum(sizes[name] for name in self._parameters), products)

    def surgery(self, kept: Mask) -> Surgery:
        """Return what takes the others out."""
        entries: dict[str, dict[int, tuple[int, ...]]] = {}
        for (tensor, dim), places in self.places.items():
            stays = _stays(places, kept)
            if not stays.all():
                indices = tuple(np.flatnonzero(stays).tolist())
                entries.setdefault(tensor, {})[dim] = indices
        sizes: dict[str, dict[str, int]] = {}
        for (layer, setting), ids in self.graph.sizes.items():
            stays = _stays(self._indices(ids), kept)
            if not stays.all():
                sizes.setdefault(layer, {})[setting] = int(stays.sum())
        shapes = {name: self._shapes[name] for name in entries}
        return Surgery(entries, sizes, shapes)

    def slots(self, *roles: str) -> list[tuple[Slot, NDArray[np.int64]]]:
        """Return the slots of some roles, with the set of each of their entries."""
        return [
            (slot, self.places[key]) for key, slot in self.graph.slots.items() if slot.role in roles
        ]

    def _indices(self, ids: torch.Tensor) -> NDArray[np.int64]:
        found = self.graph.atoms.find(ids).numpy()
        places = np.searchsorted(self.numbers, found)
        places[places == len(self.numbers)] = 0
        known = self.numbers[places] == found if len(self.numbers) else np.zeros(len(found), bool)
        return np.where(known, places, -1)


def _stays(places: NDArray[np.int64], kept: Mask) -> Mask:
    stays: Mask = places < 0
    if len(kept):
        stays |= kept[places]
    return stays
