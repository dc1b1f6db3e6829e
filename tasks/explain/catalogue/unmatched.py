"""Tells which groups a catalogue writes that the model does not have: mostly misspelt names."""

from __future__ import annotations

import logging
from difflib import get_close_matches

from tasks.explain.catalogue.files import house_catalogue
from tasks.explain.catalogue.model import Catalogue, Entry, Pattern
from tasks.explain.groups import FeatureGroups

logger = logging.getLogger(__name__)

MOST_LINES = 20
"""Groups told one by one; a catalogue for another model would fill the log."""


def warn_unmatched(catalogue: Catalogue, groups: FeatureGroups) -> None:
    """Log what ``unmatched`` finds; called once where a model takes a catalogue into use."""
    found = unmatched(catalogue, groups)
    for entry, group in found[:MOST_LINES]:
        logger.warning("%s", _said(catalogue, groups, entry, group))
    if len(found) > MOST_LINES:
        logger.warning(
            "catalogue %r: the model lacks %d more of its groups; is it that of another model?",
            catalogue.name,
            len(found) - MOST_LINES,
        )


def unmatched(catalogue: Catalogue, groups: FeatureGroups) -> tuple[tuple[Entry, str], ...]:
    """Return each group that no group of the model fits, with its entry.

    Entries of the house are left out: that a model lacks some of them is no mistake of anyone.
    """
    return tuple(
        (entry, pattern.text)
        for entry in catalogue.entries
        if not _of_house(entry)
        for pattern in entry.patterns
        if not _fits(pattern, groups)
    )


def _fits(pattern: Pattern, groups: FeatureGroups) -> bool:
    return pattern.text in groups.keys or any(map(pattern.matches, groups.meanings))


def _of_house(entry: Entry) -> bool:
    """Tell whether an entry is the house's, be it inherited or in a whole catalogue as written."""
    return entry.house or any(
        (entry.code, entry.customer, entry.analyst) == (own.code, own.customer, own.analyst)
        and set(entry.groups) <= set(own.groups)
        for own in house_catalogue().entries
    )


def _said(catalogue: Catalogue, groups: FeatureGroups, entry: Entry, group: str) -> str:
    near = get_close_matches(group, groups.keys, n=1)
    nearest = f"the nearest is {near[0]!r}" if near else "none is spelled like it"
    where = f"catalogue {catalogue.name!r}, entry {entry.code!r}"
    if entry.prohibited:
        return (
            f"{where} prohibits {group!r}, which the model does not have; that is as it should be "
            f"unless the name is misspelt: {nearest}"
        )
    return f"{where}: the model has no group {group!r}; mend the name or take it out: {nearest}"
