"""Reasons of any model: the players that raised a score, in plain words or those of a catalogue."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tasks.explain.catalogue.binding import BoundCatalogue, bind
from tasks.explain.catalogue.model import MOST_REASONS, Catalogue
from tasks.explain.errors import CatalogueError, PlayersError
from tasks.explain.groups import FeatureGroups, FeatureMeaning, sum_members
from tasks.explain.languages import Language, number
from tasks.explain.players import Players
from tasks.explain.reasons import Reason
from tasks.explain.record import ExplanationSet
from tasks.explain.ties import order_of, ties_of
from tasks.explain.wording import FeatureWords, Wording

SHARE = 0.05
"""Share of the strongest reason below which a player is none."""

SHOWN = 3
"""Most values told of a player of several features."""


class PlayerWords:
    """A catalogue for one model: its player ``place`` is the group ``transaction/place``.

    Only what the catalogue's file itself writes is used: the house's entries and phrases speak of
    its own features, whatever a stranger's are called. Players of one code are one reason. A reason
    of one feature is said with its value, by the entry's words for analysts or by the phrase for
    any column; one of several by its words for customers.

    Attributes:
        players: The players.
        bound: The catalogue, bound to them; a letter is written with it.
    """

    def __init__(self, players: Players, catalogue: Catalogue, language: Language = "en") -> None:
        """Bind the catalogue.

        Raises:
            CatalogueError: When it does not fit the players, see ``bind``, or prohibits a feature,
                be it a player or part of one.
        """
        self.players, self._language = players, language
        self.bound: BoundCatalogue = bind(catalogue, player_groups(players), written_only=True)
        _refuse_prohibited(players, self.bound.used)

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
        bound, style = self.bound, Wording(language=self._language, house=False)
        return tuple(
            FeatureWords(
                bound.groups.meanings[members[0]],
                style,
                bound.used,
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
        return _said(found, row, self.of_code[code][0], self._language)


def player_groups(players: Players) -> FeatureGroups:
    """Return players as groups of features, as catalogues know them."""
    meanings = tuple(
        _meaning(feature, players.names[owner])
        for feature, owner in zip(players.features, players.owner, strict=True)
    )
    members = tuple(
        tuple(f for f, owner in enumerate(players.owner) if owner == player)
        for player in range(len(players))
    )
    keys = tuple(f"transaction/{name}" for name in players.names)
    return FeatureGroups(meanings, keys, players.names, members)


def _meaning(feature: str, player: str) -> FeatureMeaning:
    return FeatureMeaning(feature, "", player, "", "", "transaction")


def _refuse_prohibited(players: Players, catalogue: Catalogue) -> None:
    """Refuse a prohibited feature under its own name: a player's name would hide it."""
    for feature, owner in zip(players.features, players.owner, strict=True):
        entry = catalogue.entry_of(_meaning(feature, feature), f"transaction/{feature}")
        if entry is not None and entry.prohibited:
            raise CatalogueError(
                f"player {players.names[owner]!r} holds the feature {feature!r}, which entry "
                f"{entry.code!r} prohibits; train without it, or take the entry out of the "
                "catalogue if the law allows it"
            )


def player_reasons(
    found: ExplanationSet,
    words: PlayerWords | None = None,
    *,
    limit: int = MOST_REASONS,
    list_ties: bool = False,
) -> tuple[tuple[Reason, ...], ...]:
    """Give each row what raised its score, strongest first.

    Args:
        found: Explanations.
        words: Codes and words; None: players are said by name and value and have no code.
        limit: Most reasons of a row; a catalogue may say fewer.
        list_ties: Whether reasons that tie with the last one are listed as well, beyond the limit.

    Raises:
        PlayersError: On words for other players.
    """
    players = found.contract.players
    if words is not None and words.players != players:
        raise PlayersError("the words are for other players; make them of the record's own players")
    groups = words.of_code if words else tuple((player,) for player in range(len(players)))
    if words is not None:
        limit = min(limit, words.bound.catalogue.max_reasons)
    values = sum_members(found.values, groups)
    # Errors of the players of one row may go together: their sum is a bound of the sum's error.
    errors = sum_members(found.errors, groups)
    order = order_of(values)
    ties = ties_of(values, errors, found.contract.base, found.scores)
    told = []
    for row in range(len(found)):
        ranked = _raising(values[row], order[row])
        tied = [*ties[row, : len(ranked) - 1].tolist(), False] if ranked else []
        listed = _listed(tied, limit, list_ties=list_ties)
        reasons = [
            Reason(
                words.say(found, row, group) if words else _said(found, row, group),
                " + ".join(players.names[player] for player in groups[group]),
                float(values[row, group]),
                float(errors[row, group]),
                tied[place],
                words.bound.codes[group] if words else "",
                words.bound.codes[ranked[place + 1]] if words and tied[place] else "",
            )
            for place, group in enumerate(ranked[:listed])
        ]
        told.append(tuple(reasons))
    return tuple(told)


def _raising(values: NDArray[np.float64], order: NDArray[np.intp]) -> list[int]:
    """Return what can be a reason of a row, of values ``[G]`` in their order: what raised it."""
    ranked: list[int] = order.tolist()
    if not ranked:
        return []
    least = SHARE * float(values[ranked[0]])
    return [group for group in ranked if 0 < values[group] >= least]


def _listed(tied: list[bool], limit: int, *, list_ties: bool) -> int:
    """Return how many reasons are listed of those that can be, ``tied`` with the next or not."""
    last = min(limit, len(tied))
    while list_ties and 0 < last < len(tied) and tied[last - 1]:
        last += 1
    return last


def _said(found: ExplanationSet, row: int, player: int, language: Language = "en") -> str:
    """Say a player of a row: one feature by its value, several by up to three values."""
    players = found.contract.players
    own = [f for f, owner in enumerate(players.owner) if owner == player]
    label = found.contract.labels[player]
    if len(own) == 1:
        return f"{label} is {number(found.data[row, own[0]])}"
    shown = [f"{players.features[f]} {number(found.data[row, f])}" for f in own[:SHOWN]]
    more = len(own) > SHOWN
    if language == "zh":
        return f"{label}（{'、'.join(shown)}{'等' if more else ''}）"
    return f"{label} ({', '.join(shown)}{', ...' if more else ''})"
