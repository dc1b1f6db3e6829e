"""Settings of the Redis store, read from its URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from connectors.online_store.errors import StoreError

_OWN = {"prefix", "timeout_ms", "expire_s"}


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Settings of the Redis store.

    Attributes:
        url: Address as redis-py reads it; may hold a password, so it is never shown.
        prefix: Begins every key, so that several stores can share a server.
        timeout_ms: Longest wait for a connection or an answer, milliseconds.
        expire_s: Seconds after which state that nobody writes is dropped; 0 keeps it.
    """

    url: str = field(repr=False)
    prefix: str = "penstock"
    timeout_ms: int = 1_000
    expire_s: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.prefix.isascii() or not self.prefix.replace("-", "").replace(".", "").isalnum():
            raise StoreError(
                f"option prefix={self.prefix!r} cannot be used", "Use letters, digits, '-' and '.'"
            )
        if self.timeout_ms < 1 or self.expire_s < 0:
            raise StoreError("timeout_ms must be positive and expire_s not negative", "Correct it")

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Split a URL into what is ours and what is redis-py's.

        Raises:
            StoreError: When an option of ours is no number.
        """
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
        ours = {name: value for name, value in options if name in _OWN}
        rest = urlencode([(name, value) for name, value in options if name not in _OWN])
        try:
            numbers = {name: int(ours[name]) for name in ours if name != "prefix"}
        except ValueError as error:
            raise StoreError(f"an option is no whole number ({error})", "Correct the URL") from (
                error
            )
        address = urlunsplit((parts.scheme, parts.netloc, parts.path, rest, ""))
        return cls(address, prefix=ours.get("prefix", "penstock"), **numbers)
