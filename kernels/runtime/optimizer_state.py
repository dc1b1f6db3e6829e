"""The state of an optimizer by the names of parameters: whole, in whatever layout it was made.

So a run goes on in other processes, each with other parameters or with parts of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kernels.runtime.spread import Spread

OWN = ("params", "fused", "foreach")
"""What a group of parameters does not take over: how a step is computed here."""


class OptimizerState:
    """Saves and restores an optimizer."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, names: Mapping[int, str], spread: Spread
    ) -> None:
        """Know the parameters.

        Args:
            optimizer: The optimizer.
            names: Name of each of its parameters by `id`.
            spread: The model, which knows what lies elsewhere.
        """
        self._optimizer, self._names, self._spread = optimizer, names, spread

    def state_dict(self) -> dict[str, Any]:
        """Return moments by name, and groups with the names of their parameters."""
        packed = self._optimizer.state_dict()
        groups = [g | {"params": list(names)} for g, names in self._groups(packed)]
        held = {
            name: self._spread.as_spread(name, packed["state"].get(number, {}))
            for group, names in self._groups(packed)
            for number, name in zip(group["params"], names, strict=True)
        }
        every = [group for one in self._spread.everybody(groups) for group in one]
        return {"state": self._spread.collect(held), "groups": _joined(every)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        packed = self._optimizer.state_dict()
        moments: dict[int, Any] = {}
        groups = []
        for group, names in self._groups(packed):
            saved = next((g for g in state["groups"] if {*names} & {*g["params"]}), group)
            groups.append(saved | {key: group[key] for key in OWN if key in group})
            for number, name in zip(group["params"], names, strict=True):
                if held := state["state"].get(name):
                    moments[number] = self._spread.own_part(name, held)
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        # Files keep no strides, and fused kernels take those of the parameter for granted.
        for parameter, own in self._optimizer.state.items():
            for key, each in own.items():
                if isinstance(each, Tensor) and each.shape == parameter.shape:
                    own[key] = torch.empty_like(parameter, dtype=each.dtype).copy_(each)

    def _groups(self, packed: dict[str, Any]) -> list[tuple[dict[str, Any], list[str]]]:
        live = self._optimizer.param_groups
        return [
            (group, [self._names[id(p)] for p in own["params"]])
            for group, own in zip(packed["param_groups"], live, strict=True)
        ]


def _joined(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join groups of the same settings, each parameter once; in one order for all layouts."""
    found: list[dict[str, Any]] = []
    for group in groups:
        settings = {k: v for k, v in group.items() if k != "params"}
        same = [g for g in found if {k: v for k, v in g.items() if k != "params"} == settings]
        if same:
            same[0]["params"] += [n for n in group["params"] if n not in same[0]["params"]]
        else:
            found.append(group)
    for group in found:
        group["params"].sort()
    return sorted(found, key=lambda group: group["params"][:1])
