"""Which keys may ask: registered, replaced, revoked, expired; kept as a log of events."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from connectors.private.client.documents import DocumentError
from connectors.private.client.registration import (
    MOST_BYTES,
    NOTHING,
    Registration,
    read_registration,
)
from infra.errors import ConfigurationError
from tasks.privacy.parameters import ParameterError, parameter_set

DAY = 86_400
MOST_DAYS = 366
AHEAD_SECONDS = 300
"""How far another clock may be ahead."""


_EVER = 20
"""Keys that a tenant may ever register, for each that it may have at a time."""


class KeyRefusedError(ValueError):
    """A key may not be registered or used.

    Attributes:
        code: Short stable name of the reason.
    """

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A registered key.

    Attributes:
        registration: What its owner said.
        ends: Seconds since 1970; from then on it is not taken.
        revoked: Whether its owner or an operator ended it.
    """

    registration: Registration
    ends: int
    revoked: bool = False


class KeyRegistry:
    """Every key that was ever registered. Events are appended and synced before they count."""

    def __init__(self, path: Path, *, overlap_days: float = 7.0, max_keys: int = 100) -> None:
        """Read the events so far.

        Raises:
            ConfigurationError: When the file was changed by hand.
        """
        self._path, self._overlap, self._most = path, int(overlap_days * DAY), max_keys
        self._entries: dict[str, KeyEntry] = {}
        if path.is_file():
            _cut_torn_line(path)
            for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), 1):
                try:
                    event = json.loads(line)
                    self._apply(event)
                except (KeyError, TypeError, ValueError) as error:
                    raise ConfigurationError(
                        f"{path}, line {number}: no event of a key registry ({error})",
                        "Restore the file from a copy",
                    ) from error

    def register(self, content: bytes, tenant: str, now: float) -> KeyEntry:
        """Register a key; one that is known already stays as it is.

        Args:
            content: A signed registration.
            tenant: Who sends it.
            now: Seconds since 1970.

        Raises:
            KeyRefusedError: When it is of another tenant, form, time or parameter set.
        """
        try:
            registration = read_registration(content)
            parameter_set(registration.parameters)
        except (DocumentError, ParameterError) as error:
            raise KeyRefusedError("no-registration", str(error)) from None
        self._check(registration, tenant, now)
        known = self._entries.get(registration.key_id)
        if known is not None:
            return known
        held = [
            entry
            for entry in self._entries.values()
            if entry.registration.tenant == tenant and not entry.revoked and entry.ends > now
        ]
        ever = sum(one.registration.tenant == tenant for one in self._entries.values())
        if ever >= _EVER * self._most:
            raise KeyRefusedError(
                "too-many-keys", f"{tenant} has registered {ever} keys; ask an operator"
            )
        if len(held) >= self._most:
            raise KeyRefusedError(
                "too-many-keys", f"{tenant} has {len(held)} keys; revoke some of them"
            )
        ends = int(now) + self._overlap
        self._note(
            {"event": "registered", "at": int(now), "content": content.hex(), "before_ends": ends}
        )
        return self._entries[registration.key_id]

    def find(self, key_id: str, now: float) -> KeyEntry:
        """Return a key that may ask.

        Raises:
            KeyRefusedError: When it is unknown, revoked or expired.
        """
        entry = self._entries.get(key_id)
        if entry is None:
            raise KeyRefusedError("unknown-key", "this key is not registered here")
        if entry.revoked:
            raise KeyRefusedError("revoked-key", "this key was revoked; register a new one")
        if now >= entry.ends:
            raise KeyRefusedError("expired-key", "this key has expired; register a new one")
        return entry

    def look(self, key_id: str) -> KeyEntry | None:
        """Return a key in whatever state, None when it is unknown."""
        return self._entries.get(key_id)

    def revoke(self, key_id: str, now: float) -> KeyEntry:
        """End a key.

        Raises:
            KeyRefusedError: When it is unknown.
        """
        entry = self._entries.get(key_id)
        if entry is None:
            raise KeyRefusedError("unknown-key", "this key is not registered here")
        if not entry.revoked:
            self._note({"event": "revoked", "at": int(now), "key": key_id})
        return self._entries[key_id]

    def _check(self, registration: Registration, tenant: str, now: float) -> None:
        if registration.tenant != tenant:
            raise KeyRefusedError(
                "other-tenant",
                f"the registration names tenant {registration.tenant!r}, the token {tenant!r}",
            )
        if registration.created > now + AHEAD_SECONDS:
            raise KeyRefusedError("from-the-future", "the key was made later than it is here now")
        if registration.expires <= now:
            raise KeyRefusedError("expired-key", "the key has expired already")
        if registration.expires - registration.created > MOST_DAYS * DAY:
            raise KeyRefusedError("too-long", f"a key holds up to {MOST_DAYS} days")
        before = self._entries.get(registration.replaces)
        if registration.replaces != NOTHING and (
            before is None or before.registration.tenant != tenant
        ):
            raise KeyRefusedError("unknown-key", "the key that it replaces is not known here")

    def _note(self, event: dict[str, str | int]) -> None:
        """Write an event, then let it count."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(event)

    def _apply(self, event: dict[str, str | int]) -> None:
        if event["event"] == "revoked":
            key = str(event["key"])
            self._entries[key] = replace(self._entries[key], revoked=True)
            return
        content = bytes.fromhex(str(event["content"]))
        if len(content) > MOST_BYTES:
            raise ValueError("a registration is too long")
        registration = read_registration(content)
        self._entries[registration.key_id] = KeyEntry(registration, registration.expires)
        before = self._entries.get(registration.replaces)
        if before is not None:
            ends = min(before.ends, int(event["before_ends"]))
            self._entries[registration.replaces] = replace(before, ends=ends)


def _cut_torn_line(path: Path) -> None:
    """Take off a last line that was not written whole: it never counted."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
