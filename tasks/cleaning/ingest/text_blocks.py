"""A text file as blocks in UTF-8 or cp1252, and its rows back as they stood in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from tasks.cleaning.ingest.encodings import (
    SAMPLE,
    Utf16,
    bom,
    decide,
    require_text,
    utf16_without_mark,
)
from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.options import MIB, ReadOptions


class TextBlocks:
    """One text file being read.

    Attributes:
        encoding: ``utf-8`` (UTF-16 is turned into it) or ``cp1252``; ``""`` as long as all bytes
            were ASCII.
    """

    def __init__(self, source: str, options: ReadOptions) -> None:
        self.encoding: str = options.encoding or ""
        self._source = source
        self._limits = options.limits
        self._utf16: Utf16 | None = None

    @property
    def name(self) -> str:
        """Encoding of the file, for people."""
        return self._utf16.encoding if self._utf16 else self.encoding or "utf-8"

    def read(self, blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
        """Yield blocks without the byte order mark, each with whether it is the last.

        Raises:
            TableReadError: When the file is empty or no text.
        """
        stream = iter(_regroup(blocks, max(self._limits.block_bytes, 1)))
        head = b""
        for block in stream:
            head += block
            if len(head) >= SAMPLE:
                break
        require_text(head, self._source)
        marked, length = bom(head)
        encoding = self.encoding or marked or utf16_without_mark(head) or ""
        rest: Iterable[bytes] = chain([head[length:]], stream)
        if encoding.startswith("utf-16"):
            self._utf16, encoding = Utf16(encoding), "utf-8"
            rest = self._utf16.to_utf8(rest)
        self.encoding = encoding
        yield from _with_last(rest)

    def settle(self, text: bytes) -> str:
        """Choose between UTF-8 and cp1252 at the first byte that differs in them."""
        if not self.encoding and not text.isascii():
            self.encoding = decide(text)
        return self.encoding or "utf-8"

    def original(self, row: bytes) -> bytes:
        """Return the bytes of a row as they stood in the file."""
        return self._utf16.original(row) if self._utf16 else row

    def require_progress(self, held: int, row: int) -> None:
        """Refuse a row that takes more memory than granted.

        Args:
            held: Bytes read of a row whose end has not come yet.
            row: Its number.
        """
        if held > self._limits.row_bytes + self._limits.block_bytes:
            raise TableReadError(
                f"{self._source}, row {row}",
                f"one row takes more than {self._limits.row_bytes / MIB:.0f} MiB",
                "check that it is a table with line ends, or raise the limit 'row_bytes'",
            )


def _regroup(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Join small blocks until they have ``size`` bytes at least."""
    held: list[bytes] = []
    length = 0
    for block in blocks:
        held.append(block)
        length += len(block)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if length:
        yield b"".join(held)


def _with_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield every block with whether it is the last; one empty one if there are none."""
    held = b""
    for block in blocks:
        if held:
            yield held, False
        held = block
    yield held, True
