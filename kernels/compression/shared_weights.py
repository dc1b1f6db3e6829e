"""Weights with two owners: what is done to one of them would be done to the other, too."""

from __future__ import annotations

from torch import nn


def shared_weights(model: nn.Module) -> tuple[str, str] | None:
    """Return the names of one tensor that two layers hold, or one layer under two names; or None.

    >>> layer = nn.Linear(2, 2)
    >>> shared_weights(nn.Sequential(layer, layer))
    ('0.weight', '1.weight')
    """
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if (first := seen.setdefault(id(parameter), name)) != name:
            return first, name
    return None
