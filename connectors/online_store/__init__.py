"""The online store: state of entities as bytes, read in microseconds by whoever scores.

Public names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectors.online_store.errors import ConflictError as ConflictError
    from connectors.online_store.errors import StoreError as StoreError
    from connectors.online_store.errors import StoreFullError as StoreFullError
    from connectors.online_store.record import Record as Record
    from connectors.online_store.store import Answer as Answer
    from connectors.online_store.store import OnlineStore as OnlineStore
    from connectors.online_store.store import open_store as open_store
    from connectors.online_store.view import EntityView as EntityView
    from connectors.online_store.view import read_views as read_views

_HOME = {
    "Answer": "store",
    "ConflictError": "errors",
    "EntityView": "view",
    "OnlineStore": "store",
    "Record": "record",
    "StoreError": "errors",
    "StoreFullError": "errors",
    "open_store": "store",
    "read_views": "view",
}
__all__ = [
    "Answer",
    "ConflictError",
    "EntityView",
    "OnlineStore",
    "Record",
    "StoreError",
    "StoreFullError",
    "open_store",
    "read_views",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
