"""What an online store may fail with: what went wrong, where, and how to mend it."""

from __future__ import annotations

from infra.errors import PenstockError


class StoreError(PenstockError):
    """The store cannot do what was asked."""


class StoreNotFoundError(StoreError):
    """There is no store at this address (yet)."""


class StoreBusyError(StoreError):
    """Another process writes to the store, or too many read it."""


class StoreFullError(StoreError):
    """No room is left for what was to be written; nothing of it was."""


class StoreUnavailableError(StoreError):
    """The server of the store does not answer."""


class StoreReadOnlyError(StoreError):
    """Something was to be written through a store that was opened for reading."""


class ConflictError(StoreError):
    """A commit came too late: the event is answered or the state newer; nothing was written."""


class RecordError(StoreError):
    """Bytes that are no record of the contract."""


class SnapshotError(StoreError):
    """A snapshot that cannot be read, or restored here."""
