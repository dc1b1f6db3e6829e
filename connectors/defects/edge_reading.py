"""Edge files opened: the file and its parity record, with numpy and ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path

from kernels.compression.parity import MAX_RECORD_BYTES, ParityError, ParityRecord
from tasks.defects.edge.format import MAX_FILE_BYTES, EdgeFileError, read_facts
from tasks.defects.edge.session import EdgeSession, require_record

RECORD_SUFFIX = ".parity.json"


def record_path(path: Path) -> Path:
    """Return where the record of an edge file lies: ``line.onnx`` -> ``line.parity.json``."""
    return path.with_suffix(RECORD_SUFFIX)


def read_edge_file(path: Path, *, demand_record: bool = False) -> tuple[bytes, ParityRecord | None]:
    """Return an edge file, checked but not run, and the record beside it, if there is one.

    Args:
        path: Of the file.
        demand_record: Refuse a file without its own record.

    Raises:
        EdgeFileError: When there is no such file, it is no edge file, or not the record's.
    """
    model = read_whole(path, MAX_FILE_BYTES)
    beside = record_path(path)
    if demand_record and not beside.is_file():
        raise EdgeFileError(f"{path}: no parity record {beside.name} lies beside it; copy it along")
    try:
        read_facts(model)
        record = read_record(path)
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


def read_record(path: Path) -> ParityRecord | None:
    """Return the parity record beside a file, None where none lies there.

    Raises:
        ParityError: When it is too large, broken or was changed.
    """
    beside = record_path(path)
    if not beside.is_file():
        return None
    try:
        return ParityRecord.from_json(read_whole(beside, MAX_RECORD_BYTES).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ParityError(f"{beside.name} is no text; write it anew") from error


def read_whole(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Raises:
        EdgeFileError: When there is no such file, or it has more than ``most`` bytes.
    """
    if not path.is_file():
        raise EdgeFileError(f"{path}: there is no such file")
    if (size := path.stat().st_size) > most:
        raise EdgeFileError(f"{path}: {size:,} bytes, at most {most:,} are read")
    return path.read_bytes()
