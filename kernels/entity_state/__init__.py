"""Fixed-size state of an entity: windows, delayed labels and a mailbox, in one byte layout.

Public names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.entity_state.batch import FeatureBlock as FeatureBlock
    from kernels.entity_state.batch import entity_features as entity_features
    from kernels.entity_state.block import Mail as Mail
    from kernels.entity_state.block import apply_event as apply_event
    from kernels.entity_state.block import deposit as deposit
    from kernels.entity_state.block import read_mail as read_mail
    from kernels.entity_state.block import read_state as read_state
    from kernels.entity_state.block import release_label as release_label
    from kernels.entity_state.block import seen as seen
    from kernels.entity_state.fields import feature_names as feature_names
    from kernels.entity_state.layout import BlockError as BlockError
    from kernels.entity_state.layout import check_block as check_block
    from kernels.entity_state.layout import describe as describe
    from kernels.entity_state.layout import layout_of as layout_of
    from kernels.entity_state.layout import new_block as new_block
    from kernels.entity_state.mail import deposit_rows as deposit_rows
    from kernels.entity_state.mail import mail_index as mail_index
    from kernels.entity_state.mail import mail_index_reference as mail_index_reference
    from kernels.entity_state.parts import join_parts as join_parts
    from kernels.entity_state.parts import parts_of as parts_of
    from kernels.entity_state.parts import split_block as split_block
    from kernels.entity_state.spec import StateSpec as StateSpec
    from kernels.entity_state.spec import Window as Window
    from kernels.entity_state.spec import days as days
    from kernels.entity_state.state import EntityState as EntityState
    from kernels.entity_state.state import empty_state as empty_state

_HOME = {
    "BlockError": "layout",
    "EntityState": "state",
    "FeatureBlock": "batch",
    "Mail": "block",
    "StateSpec": "spec",
    "Window": "spec",
    "apply_event": "block",
    "check_block": "layout",
    "days": "spec",
    "deposit": "block",
    "deposit_rows": "mail",
    "describe": "layout",
    "empty_state": "state",
    "entity_features": "batch",
    "feature_names": "fields",
    "join_parts": "parts",
    "layout_of": "layout",
    "mail_index": "mail",
    "mail_index_reference": "mail",
    "new_block": "layout",
    "parts_of": "parts",
    "read_mail": "block",
    "read_state": "block",
    "release_label": "block",
    "seen": "block",
    "split_block": "parts",
}
__all__ = [
    "BlockError",
    "EntityState",
    "FeatureBlock",
    "Mail",
    "StateSpec",
    "Window",
    "apply_event",
    "check_block",
    "days",
    "deposit",
    "deposit_rows",
    "describe",
    "empty_state",
    "entity_features",
    "feature_names",
    "join_parts",
    "layout_of",
    "mail_index",
    "mail_index_reference",
    "new_block",
    "parts_of",
    "read_mail",
    "read_state",
    "release_label",
    "seen",
    "split_block",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
