"""Edge files on disk: the file and, beside it, the parity record that it was shipped with."""

from __future__ import annotations

from pathlib import Path

from connectors.files import atomic_path
from kernels.compression.parity import MAX_RECORD_BYTES, ParityError, ParityRecord
from tasks.defects.edge.format import MAX_FILE_BYTES, EdgeFile, EdgeFileError, read_facts
from tasks.defects.edge.session import EdgeSession, require_record

SUFFIX = ".onnx"
RECORD_SUFFIX = ".parity.json"


def record_path(path: Path) -> Path:
    """Return where the record of an edge file lies: ``line.onnx`` -> ``line.parity.json``."""
    return path.with_suffix(RECORD_SUFFIX)


def write_edge_file(path: Path, edge: EdgeFile) -> None:
    """Write the file and its record.

    The record comes first: whoever is interrupted in between has an old file with a new record,
    which is refused where a record is demanded, never a new file with an old proof.

    Args:
        path: Of the file; must end with ``.onnx``.
        edge: What to write.

    Raises:
        EdgeFileError: For another suffix.
        DiskFullError: When no space is left.
    """
    if path.suffix != SUFFIX:
        raise EdgeFileError(f"{path}: an edge file is named *{SUFFIX}")
    with atomic_path(record_path(path)) as temporary:
        temporary.write_text(edge.record.to_json(), encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_bytes(edge.model)


def read_edge_file(path: Path, *, demand_record: bool = False) -> tuple[bytes, ParityRecord | None]:
    """Return an edge file, checked but not run, and the record beside it, if there is one.

    Args:
        path: Of the file.
        demand_record: Refuse a file without its own record.

    Raises:
        EdgeFileError: When there is no such file, it is no edge file, or not the record's.
    """
    model = _bytes(path, MAX_FILE_BYTES)
    beside = record_path(path)
    if demand_record and not beside.is_file():
        raise EdgeFileError(f"{path}: no parity record {beside.name} lies beside it; copy it along")
    try:
        read_facts(model)
        record = ParityRecord.from_json(_text(beside)) if beside.is_file() else None
        if demand_record and record is not None:
            require_record(model, record)
    except (EdgeFileError, ParityError) as error:
        raise EdgeFileError(f"{path}: {error}") from error
    return model, record


def open_edge_file(path: Path, *, threads: int = 2, demand_record: bool = False) -> EdgeSession:
    """Return a session of an edge file.

    Raises:
        EdgeFileError: As `read_edge_file`, or when ONNX Runtime cannot load it.
    """
    model, _ = read_edge_file(path, demand_record=demand_record)
    try:
        return EdgeSession(model, threads=threads)
    except EdgeFileError as error:
        raise EdgeFileError(f"{path}: {error}") from error


def _bytes(path: Path, most: int) -> bytes:
    if not path.is_file():
        raise EdgeFileError(f"{path}: there is no such file")
    if (size := path.stat().st_size) > most:
        raise EdgeFileError(f"{path}: {size:,} bytes, at most {most:,} are read")
    return path.read_bytes()


def _text(path: Path) -> str:
    try:
        return _bytes(path, MAX_RECORD_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise EdgeFileError(f"{path.name} is no text; write it anew") from error
