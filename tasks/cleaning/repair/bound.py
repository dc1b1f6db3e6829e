"""The bound on harm: how many correct cells a rule would change, estimated without any label.

A correct cell is *backed* where something else than the rule speaks for what it holds: another row
of its group holds the same, another dependency votes for it, its value is common in the column. A
backed cell that the rule would change all the same is an exception; an error that repeats with
a witness is not one, and only makes the estimate larger. Over n cells of which e are exceptions the
rule's harm is taken as (e + 1) / (n + 1), the split-conformal rate (Vovk et al., 2005), under one
assumption: a correct cell that nothing backs is no likelier to be changed than one that is backed.
A rule works by itself only where this is at most ``alpha``, and never on a backed cell.

``penstock bench clean-repair`` holds the promise against the truth.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HarmBound:
    """What is known of one rule on one column.

    Attributes:
        exceptions: Backed cells that it would change.
        cells: Filled cells that it looks at.
    """

    exceptions: int
    cells: int

    @property
    def rate(self) -> float:
        """Share of correct cells that it may change."""
        return (self.exceptions + 1) / (self.cells + 1)

    def holds(self, alpha: float) -> bool:
        """Whether the rule may work by itself."""
        return self.rate <= alpha
