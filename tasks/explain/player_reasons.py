"""Reasons of any model: the players that raised a score, in plain words or those of a catalogue."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tasks.explain.catalogue.binding import BoundCatalogue, bind
from tasks.explain.catalogue.model import MOST_REASONS, Catalogue
from tasks.explain.errors import PlayersError
from tasks.explain.groups import FeatureGroups, FeatureMeaning, sum_members
from tasks.explain.languages import Language
from tasks.explain.players import Players
from tasks.explain.reasons import Reason
from tasks.explain.record import ExplanationSet
from tasks.explain.ties import order_of, ties_of
from tasks.explain.wording import FeatureWords, Wording

SHARE = 0.05
"""Share of the strongest reason below which a player is none."""


class PlayerWords:
    """A catalogue for one model: its player ``place`` is the group ``transaction/place``.

    Players of one code are one reason. A reason of one feature is said with its value, by the
    entry's words for analysts or the catalogue's phrase; one of several by its words for customers.

    Attributes:
        players: The players.
        bound: The catalogue, bound to them; a letter is written with it.
    """

    def __init__(self, players: Players, catalogue: Catalogue, language: Language = "en") -> None:
        """Bind the catalogue.

        Raises:
            CatalogueError: When it does not fit the players, see ``bind``.
        """
        self.players, self._language = players, language
        self.bound: BoundCatalogue = bind(catalogue, player_groups(players))

    @cached_property
    def of_code(self) -> tuple[tuple[int, ...], ...]:
        """Players of each code of the catalogue."""
        owner = self.players.owner
        return tuple(
            tuple(dict.fromkeys(owner[member] for member in members))
            for members in self.bound.groups.members
        )

    @cached_property
    def _words(self) -> tuple[FeatureWords | None, ...]:
        bound, style = self.bound, Wording(language=self._language)
        return tuple(
            FeatureWords(
                bound.groups.meanings[members[0]],
                style,
                bound.catalogue,
                entry.analyst if entry is not None else None,
            )
            if len(members) == 1
            else None
            for members, entry in zip(bound.groups.members, bound.entries, strict=True)
        )

    def say(self, found: ExplanationSet, row: int, code: int) -> str:
        """Say the reason of a code for a row."""
        words, entry = self._words[code], self.bound.entries[code]
        if words is not None:
            return words(float(found.data[row, self.bound.groups.members[code][0]]))
        if entry is not None:
            return self.bound.customer(self.bound.codes[code], self._language)
        return _said(found, row, self.of_code[code][0])


def player_groups(players: Players) -> FeatureGroups:
    """Return players as groups of features, as catalogues know them."""
    meanings = tuple(
        FeatureMeaning(feature, "", players.names[owner], "", "", "transaction")
        for feature, owner in zip(players.features, players.owner, strict=True)
    )
    members = tuple(
        tuple(f for f, owner in enumerate(players.owner) if owner == player)
        for player in range(len(players))
    )
    keys = tuple(f"transaction/{name}" for name in players.names)
    return FeatureGroups(meanings, keys, players.names, members)


def player_reasons(
    found: ExplanationSet, words: PlayerWords | None = None, *, limit: int = MOST_REASONS
) -> tuple[tuple[Reason, ...], ...]:
    """Give each row what raised its score, strongest first.

    Args:
        found: Explanations.
        words: Codes and words; None: players are said by name and value and have no code.
        limit: Most reasons of a row; a catalogue may say fewer.

    Raises:
        PlayersError: On words for other players.
    """
    names = found.contract.players.names
    if words is not None and words.players != found.contract.players:
        raise PlayersError("the words are for other players; make them of the record's own players")
    groups = words.of_code if words else tuple((player,) for player in range(len(names)))
    codes = words.bound.codes if words else ("",) * len(groups)
    if words is not None:
        limit = min(limit, words.bound.catalogue.max_reasons)
    values = sum_members(found.values, groups)
    # Errors of the players of one row may go together: their sum is a bound of the sum's error.
    errors = sum_members(found.errors, groups)
    order = order_of(values)
    ties = ties_of(values, errors, found.contract.base, found.scores)
    told = []
    for row in range(len(found)):
        ranked = order[row]
        strongest = float(values[row, ranked[0]]) if len(ranked) else 0.0
        reasons = []
        for place, group in enumerate(ranked[:limit].tolist()):
            value = float(values[row, group])
            if value <= 0 or value < SHARE * strongest:
                break
            tie = place < ties.shape[1] and bool(ties[row, place])
            reasons.append(
                Reason(
                    words.say(found, row, group) if words else _said(found, row, group),
                    " + ".join(names[player] for player in groups[group]),
                    value,
                    float(errors[row, group]),
                    tie,
                    codes[group],
                    codes[int(ranked[place + 1])] if tie else "",
                )
            )
        told.append(tuple(reasons))
    return tuple(told)


def _said(found: ExplanationSet, row: int, player: int) -> str:
    """Say a player of a row: one feature by its value, several by up to three values."""
    players = found.contract.players
    own = [f for f, owner in enumerate(players.owner) if owner == player]
    label = found.contract.labels[player]
    if len(own) == 1:
        return f"{label} is {number(found.data[row, own[0]])}"
    values = ", ".join(f"{players.features[f]} {number(found.data[row, f])}" for f in own[:3])
    return f"{label} ({values}{', ...' if len(own) > 3 else ''})"


def number(value: float) -> str:
    """Write a feature value shortly.

    >>> number(1234.5678), number(12.0), number(float("nan"))
    ('1,235', '12', 'missing')
    """
    if np.isnan(value):
        return "missing"
    text = f"{value:,.4g}"
    return f"{value:,.0f}" if "e" in text and abs(value) < 1e15 and abs(value) >= 1 else text
