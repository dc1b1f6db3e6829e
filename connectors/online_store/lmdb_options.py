"""Settings of the LMDB store, as its URL may carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

from connectors.online_store.errors import StoreError

Sync = Literal["commit", "second"]


@dataclass(frozen=True, slots=True)
class LmdbOptions:
    """Settings of the LMDB store.

    Attributes:
        sync: ``commit`` flushes the data of every commit (a power loss may take back what was
            committed within the last second, the file stays sound). ``second`` flushes once a
            second: commits cost a tenth, but after a power loss the file may be damaged and has
            to be restored. Killing the process loses nothing in either way.
        map_mib: Address space to begin with; doubled whenever it is used up.
        limit_mib: Where growing ends.
        readers: Most reading threads of all processes together.
    """

    sync: Sync = "commit"
    map_mib: int = 1024
    limit_mib: int = 1024 * 1024
    readers: int = 512

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.sync not in get_args(Sync):
            raise StoreError(f"option sync={self.sync} is unknown", "Choose commit or second")
        if not 0 < self.map_mib <= self.limit_mib:
            raise StoreError("map_mib must lie in 1..limit_mib", "Raise limit_mib")
        if self.readers < 1:
            raise StoreError("readers must be at least 1", "Leave it out to have 512")

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """Return the options written as text.

        Raises:
            StoreError: On an unknown name or a value that is no number.
        """
        known = {"sync", "map_mib", "limit_mib", "readers"}
        unknown = sorted(set(texts) - known)
        if unknown:
            raise StoreError(
                f"an LMDB store has no option {unknown[0]!r}",
                f"Known are {', '.join(sorted(known))}",
            )
        sync = texts.get("sync", "commit")
        if sync not in get_args(Sync):
            raise StoreError(f"option sync={sync} is unknown", "Choose commit or second")
        try:
            numbers = {name: int(texts[name]) for name in texts if name != "sync"}
        except ValueError as error:
            raise StoreError(f"an option is no whole number ({error})", "Correct the URL") from (
                error
            )
        return cls(sync="commit" if sync == "commit" else "second", **numbers)
