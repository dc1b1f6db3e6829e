"""Edge files on disk: the file and, beside it, the parity record that it was shipped with."""

from __future__ import annotations

from pathlib import Path

from connectors.defects.edge_reading import open_edge_file, read_edge_file, record_path
from connectors.files import atomic_path
from tasks.defects.edge.format import EdgeFile, EdgeFileError

__all__ = ["SUFFIX", "open_edge_file", "read_edge_file", "record_path", "write_edge_file"]

SUFFIX = ".onnx"


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
