"""What can keep a net from being made smaller."""

from __future__ import annotations


class PruningError(ValueError):
    """A net or a budget that cannot be pruned; names the operation and how to mend it."""
