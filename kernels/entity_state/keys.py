"""Numbers that stand for entities where their ids have no room."""

from __future__ import annotations

_OFFSET = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = 2**64 - 1


def entity_key(kind: str, entity_id: str) -> int:
    """Return the signed 64-bit key of an entity, in Python as on the JVM.

    FNV-1a (64 bits) over the kind, a zero byte and the id, both UTF-8, then the finaliser of
    MurmurHash3, which spreads what FNV leaves in the low bits.

    >>> entity_key("card", "12") != entity_key("terminal", "12")
    True
    """
    value = _OFFSET
    for byte in (*kind.encode(), 0, *entity_id.encode()):
        value = ((value ^ byte) * _PRIME) & _MASK
    value = ((value ^ (value >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
    value = ((value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
    value ^= value >> 33
    return value - 2**64 if value >= 2**63 else value
