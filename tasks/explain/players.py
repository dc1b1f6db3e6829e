"""Who shares the credit: features, or groups of features that come and go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import PlayersError


@dataclass(frozen=True, slots=True)
class Players:
    """A division of a model's features among players.

    Attributes:
        features: The F feature names in the model's order.
        names: The P player names.
        owner: Position of the player that holds each feature, length F.
    """

    features: tuple[str, ...]
    names: tuple[str, ...]
    owner: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse features without a player and players without features.

        Raises:
            PlayersError: Also on a name that occurs twice.
        """
        for kind, names in (("feature", self.features), ("player", self.names)):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise PlayersError(f"{kind} {twice[0]!r} occurs twice; names must tell them apart")
        if len(self.owner) != len(self.features) or set(self.owner) != set(range(len(self.names))):
            raise PlayersError(
                f"{len(self.owner)} owners for {len(self.features)} features and "
                f"{len(self.names)} players; each feature needs one player, each player a feature"
            )

    @classmethod
    def single(cls, features: Sequence[str]) -> Players:
        """Make every feature a player of its own.

        >>> Players.single(["a", "b"]).owner
        (0, 1)
        """
        return cls(tuple(features), tuple(features), tuple(range(len(features))))

    @classmethod
    def grouped(cls, features: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Players:
        """Make groups of features players; features of no group are players of their own.

        Args:
            features: All features in the model's order.
            groups: Player name -> its features: correlated ones, one-hot columns, a window.

        Raises:
            PlayersError: On a feature of two groups, or one that the model does not have.

        >>> Players.grouped(["a", "b", "c"], {"bc": ["b", "c"]}).names
        ('a', 'bc')
        """
        player: dict[str, str] = {}
        for group, members in groups.items():
            for feature in members:
                if feature not in features:
                    raise PlayersError(
                        f"group {group!r} names {feature!r}, which is no feature of the model"
                    )
                if feature in player:
                    raise PlayersError(
                        f"feature {feature!r} is in the groups {player[feature]!r} and {group!r}; "
                        "give it to one of them"
                    )
                player[feature] = group
        alone = [feature for feature in features if feature not in player and feature in groups]
        if alone:
            raise PlayersError(
                f"{alone[0]!r} is a group and a feature outside it; rename the group"
            )
        of_feature = [player.get(feature, feature) for feature in features]
        names = tuple(dict.fromkeys(of_feature))
        place = {name: position for position, name in enumerate(names)}
        return cls(tuple(features), names, tuple(place[name] for name in of_feature))

    def __len__(self) -> int:
        """Return P."""
        return len(self.names)

    def shown(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the value of each player's only feature ``[n, P]`` of rows; NaN for groups."""
        owner = np.array(self.owner)
        shown = np.full((len(rows), len(self)), np.nan)
        alone = np.flatnonzero(np.bincount(owner)[owner] == 1)
        shown[:, owner[alone]] = rows[:, alone]
        return shown

    def all_within(self, features: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which players ``[n, P]`` have all their flags set, of flags ``[n, F]``."""
        missing = np.zeros((len(features), len(self)), dtype=np.int64)
        np.add.at(missing.T, np.array(self.owner), (~features).T)
        complete: NDArray[np.bool_] = missing == 0
        return complete
