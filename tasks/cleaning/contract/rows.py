"""What a contract says about rows as a whole: which are duplicates, and what labels them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tasks.cleaning.contract.model import ContractError

DuplicateAction = Literal["review", "quarantine"]
ACTIONS = ("review", "quarantine")


@dataclass(frozen=True, slots=True)
class DuplicateRule:
    """Rows that mean the same entity, and what becomes of them.

    Attributes:
        columns: How each is compared, by column: ``exact``, ``name``, ``text``, ``date`` or
            ``number`` (``duplicates/comparison.py``); read off the values if empty.
        precision: Promised share of links that are right.
        action: ``review`` shows all but the first row of an entity, ``quarantine`` sets them aside.
        fill: Whether a kept row's missing cells are filled from the rows set aside for it, where
            these agree.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    precision: float = 0.95
    action: DuplicateAction = "review"
    fill: bool = False

    def __post_init__(self) -> None:
        """Reject comparisons, promises and actions that do not exist.

        Raises:
            ContractError: With the line at fault.
        """
        from tasks.cleaning.duplicates.comparison import KINDS

        for name, kind in self.columns.items():
            if kind not in KINDS:
                raise ContractError(f"column {name!r} is compared as {kind!r}; give one of {KINDS}")
        if not 0.0 < self.precision < 1.0:
            raise ContractError(f"precision {self.precision} must lie between 0 and 1")
        if self.action not in ACTIONS:
            raise ContractError(f"action is {self.action!r}; give one of {', '.join(ACTIONS)}")
        if self.fill and self.action != "quarantine":
            raise ContractError("fill takes values from rows set aside: say action = 'quarantine'")
