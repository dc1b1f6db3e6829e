"""Which encoding a file is in, and whether it is text at all."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.options import Encoding

MAGIC = (
    (b"PAR1", "a Parquet file", "name it .parquet"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or export the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "export the sheet as CSV"),
    (b"\x1f\x8b", "compressed by gzip a second time", "unpack it once"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd a second time", "unpack it once"),
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\x89PNG", "a picture", "name a table"),
    (b"\xff\xd8\xff", "a picture", "name a table"),
    (b"GIF8", "a picture", "name a table"),
    (b"%PDF-", "a PDF document", "export the table as CSV"),
    (b"\x7fELF", "a program", "name a table"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"ARROW1", "an Arrow file", "convert it to Parquet"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"Obj\x01", "an Avro file", "convert it to Parquet"),
    (b"\xff\xfe\x00\x00", "text in UTF-32", "export it as UTF-8"),
    (b"\x00\x00\xfe\xff", "text in UTF-32", "export it as UTF-8"),
)
BOMS: tuple[tuple[bytes, Encoding], ...] = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
SAMPLE = 1 << 16
CONTROL_SHARE = 0.1
"""Control characters (tab, line ends and form feed apart) that make a file binary."""
CONTROLS = bytes(set(range(32)) - {9, 10, 12, 13})
UNDEFINED_1252 = np.zeros(256, np.bool_)
UNDEFINED_1252[[0x81, 0x8D, 0x8F, 0x90, 0x9D]] = True


def require_text(head: bytes, source: str) -> None:
    """Refuse what is no text.

    Args:
        head: First bytes of the file, unpacked.
        source: Its name, for the message.

    Raises:
        TableReadError: For an empty file, a known binary format, or many control characters.
    """
    if not head:
        raise TableReadError(source, "the file is empty (0 bytes)", "export it again")
    for magic, what, mend in MAGIC:
        if _is_magic(head[:SAMPLE], magic):
            raise TableReadError(source, f"this is {what}, not a table of text", mend)
    sample = head[:SAMPLE]
    if bom(head)[0].startswith("utf-16") or utf16_without_mark(sample):
        return
    share = 1 - len(sample.translate(None, CONTROLS)) / len(sample)
    if share > CONTROL_SHARE:
        raise TableReadError(
            source,
            f"{share:.0%} of its first bytes are control characters: it is no text",
            "name a table of text, or one in Parquet",
        )


def _is_magic(head: bytes, magic: bytes) -> bool:
    """Whether a file that starts with a magic word is what it says.

    A word of plain letters may start a table, too: then control characters must follow it.
    """
    if not head.startswith(magic):
        return False
    printable = magic.isascii() and magic.decode().isprintable() and magic != b"%PDF-"
    return not printable or head.translate(None, CONTROLS) != head


def bom(head: bytes) -> tuple[str, int]:
    """Return the encoding that a byte order mark names, ``""`` for none, and the mark's length."""
    for mark, encoding in BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    return "", 0


def utf16_without_mark(head: bytes) -> Encoding | None:
    """Return the UTF-16 that a text of mostly ASCII letters must be in, by its NUL bytes."""
    sample = head[: len(head) // 2 * 2][:SAMPLE]
    if len(sample) < 8 or b"\0" not in sample:
        return None
    pairs = np.frombuffer(sample, np.uint8).reshape(-1, 2) == 0
    first, second = pairs.mean(axis=0)
    if second > 0.7 and first < 0.05:
        return "utf-16-le"
    return "utf-16-be" if first > 0.7 and second < 0.05 else None


def decide(block: bytes) -> Encoding:
    """Return UTF-8 or cp1252 for a block that holds bytes beyond ASCII.

    UTF-8 if at least as many sequences beyond ASCII are valid as broken: a few broken rows do not
    turn a file into another encoding, and text in cp1252 has hardly a valid one by chance.
    """
    # A character that is cut off at the end is left out, and no fault.
    text = codecs.utf_8_decode(block, "replace")[0]
    broken = text.count("\ufffd") - block.count(b"\xef\xbf\xbd")
    if not broken:
        return "utf-8"
    valid = len(text) - len(text.encode("ascii", "ignore"))
    return "utf-8" if valid - broken >= broken else "cp1252"


def undecodable(block: bytes, encoding: str, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return places of bytes that spell nothing; at least one in every line that has any.

    Args:
        block: Whole lines.
        encoding: ``utf-8`` or ``cp1252``.
        ends: Places where its lines end, the last one at its own end.
    """
    if encoding == "cp1252":
        return np.flatnonzero(UNDEFINED_1252[np.frombuffer(block, np.uint8)])
    places = []
    at, view = 0, memoryview(block)
    while at < len(block):
        try:
            str(view[at:], "utf-8")
        except UnicodeDecodeError as error:
            places.append(at + error.start)
            # The rest of the line is lost anyway, and one step a byte would be slow.
            at = int(ends[np.searchsorted(ends, places[-1], "right")])
        else:
            break
    return np.array(places, np.int64)


class Utf16:
    """UTF-16 turned into UTF-8, block by block, and rows turned back into their original bytes.

    Halves of surrogate pairs become bytes that are no UTF-8, so that their rows are refused like
    any undecodable one; a single byte at the end of the file becomes 0xFF.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self._rest = b""

    def to_utf8(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield UTF-8; the blocks start after the byte order mark."""
        decode = codecs.getincrementaldecoder(self.encoding)("surrogatepass").decode
        odd = b""
        for block in blocks:
            whole = odd + block
            even = len(whole) // 2 * 2
            odd = whole[even:]
            yield decode(whole[:even]).encode("utf-8", "surrogatepass")
        # A high half at the very end waits in the decoder for a low one that never comes.
        state = decode(b"", final=True)
        if state or odd:
            self._rest = odd
            yield state.encode("utf-8", "surrogatepass") + (b"\xff" if odd else b"")

    def original(self, row: bytes) -> bytes:
        """Return the bytes of a row as they stood in the file."""
        cut = row.endswith(b"\xff")
        text = row.removesuffix(b"\xff").decode("utf-8", "surrogatepass")
        return text.encode(self.encoding, "surrogatepass") + (self._rest if cut else b"")
