"""State upserts from a folder of files, as the embedded stream writes them.

A file is frames of u32 size and key, u32 size and value, little endian. Files whose name begins
with a dot are not finished yet. What has been read is remembered in the store itself; a file that
was read halfway when the process ended is read again, which changes nothing.
"""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from connectors.online_store.errors import StoreUnavailableError
from connectors.online_store.record import MAX_VALUE_BYTES
from connectors.online_store.state_source import Letter, Message
from connectors.online_store.store import OnlineStore

logger = logging.getLogger(__name__)

BATCH = 2_000
LOOK_SECONDS = 0.05
FILES_READ = "state-files"
"""Named value of the store: names of the files that were read, as JSON."""

DEAD_LETTERS = "dead-letters"
_SIZE = struct.Struct("<I")


class StateFolder:
    """`state_source.StateSource` on files."""

    def __init__(self, folder: Path, store: OnlineStore) -> None:
        """Go on where the store says the last reading ended."""
        self._folder, self._store = folder, store
        kept = store.get_meta(FILES_READ)
        self._done: set[str] = set(json.loads(kept)) if kept else set()
        self._known = len(self._done)
        self._messages: Iterator[Message] = iter(())

    @property
    def ready(self) -> bool:
        """Whether the folder exists."""
        return self._folder.is_dir()

    def take(self) -> list[Message]:
        """Return up to 2,000 messages of finished files, oldest file first."""
        batch: list[Message] = []
        for message in self._messages:
            batch.append(message)
            if len(batch) == BATCH:
                return batch
        waiting = self._waiting()
        if not batch and not waiting:
            time.sleep(LOOK_SECONDS)
        if waiting:
            self._messages = self._read(waiting[0])
        return batch

    def refuse(self, letters: Sequence[Letter]) -> None:
        """Append messages to ``dead-letters/store-writer.jsonl`` beside the folder.

        Raises:
            StoreUnavailableError: When the file cannot be written.
        """
        place = self._folder.parent / DEAD_LETTERS / "store-writer.jsonl"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("ab") as file:
                for letter in letters:
                    file.write(letter.to_json() + b"\n")
        except OSError as error:
            raise StoreUnavailableError(
                f"{place} cannot be written ({error.strerror})", "Make room"
            ) from error

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def commit(self) -> None:
        """Remember the files that were read to their end."""
        if len(self._done) == self._known:
            return
        there = {str(path) for path in self._files()}
        self._done &= there  # files that were cleaned away need no remembering
        self._store.put_meta(FILES_READ, json.dumps(sorted(self._done)).encode())
        self._known = len(self._done)

    def lag(self) -> int:
        """Return how many finished files wait."""
        return len(self._waiting())

    def close(self) -> None:
        """Nothing is held."""

    def _files(self) -> list[Path]:
        """Return the finished files, relative to the folder."""
        found = (path for path in self._folder.rglob("*") if path.is_file())
        names = (path.relative_to(self._folder) for path in found)
        return [name for name in names if not any(p[0] in "._" for p in name.parts)]

    def _waiting(self) -> list[Path]:
        files = [name for name in self._files() if str(name) not in self._done]
        return sorted(files, key=lambda name: ((self._folder / name).stat().st_mtime_ns, name))

    def _read(self, name: Path) -> Iterator[Message]:
        """Yield the messages of a file, then count it as read."""
        try:
            content = (self._folder / name).read_bytes()
        except OSError as error:
            logger.warning("%s cannot be read (%s); it is tried again", name, error.strerror)
            return
        at, source = 0, str(name)
        while at < len(content):
            begun = at
            key, at = _framed(content, at)
            value, at = _framed(content, at)
            if at < 0:
                # Nothing tells where the next frame would begin.
                yield Message(b"", content[begun:], source, begun)
                break
            yield Message(key, value, source, begun)
        self._done.add(source)


def _framed(content: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes of a frame and where it ends, -1 when it is broken."""
    if at < 0 or at + _SIZE.size > len(content):
        return b"", -1
    size = _SIZE.unpack_from(content, at)[0]
    end = at + _SIZE.size + size
    if size > MAX_VALUE_BYTES or end > len(content):
        return b"", -1
    return content[at + _SIZE.size : end], end
