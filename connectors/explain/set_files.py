"""A record of explanations as a folder: arrays in Parquet, the contract as JSON; nothing pickled.

``explanation.parquet``  one row a key: ``key``, ``time``, ``score``, ``decided``, ``value/PLAYER``,
                         ``error/PLAYER``, ``data/FEATURE``, ``segment/NAME``
``explanation.json``     the contract, and the SHA-256 of the Parquet file

The JSON is written last, so a folder without it is half-written. Reading checks format, sizes,
digest, columns, and that the values still add up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from connectors.files import atomic_path, digest, read_table, write_table
from tasks.explain.errors import ExplanationError
from tasks.explain.players import Players
from tasks.explain.record import Contract, ExplanationSet, ModelName, RecordError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
ARRAYS, CONTRACT = "explanation.parquet", "explanation.json"
MAX_CONTRACT_BYTES = 2**24
MAX_ARRAY_BYTES = 2**32


def write_set(folder: Path, found: ExplanationSet) -> str:
    """Write a record into a folder.

    Args:
        folder: Made if absent; an older record in it is replaced.
        found: The record.

    Returns:
        Its digest: the SHA-256 of the JSON file, which names that of the arrays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONTRACT).unlink(missing_ok=True)
    path = write_table(_table(found), folder / ARRAYS)
    content = {
        "format": FORMAT,
        "rows": len(found),
        "timed": found.times is not None,
        "segments": list(found.segments),
        "arrays_sha256": digest(path),
        "contract": asdict(found.contract),
    }
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with atomic_path(folder / CONTRACT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def read_set(folder: Path, *, expected: str = "") -> ExplanationSet:
    """Read a record and check it.

    Args:
        folder: What `write_set` wrote.
        expected: Digest that it must have; empty: not checked.

    Raises:
        RecordError: On a folder that is no record, is too large, or was changed.
    """
    content = _contract_text(folder, expected)
    try:
        return _checked(folder, json.loads(content))
    except RecordError:
        raise
    except ExplanationError as error:
        raise RecordError(str(error)) from error
    except (KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise RecordError(f"{folder} holds no whole record ({error}); explain again") from error


def _checked(folder: Path, data: Any) -> ExplanationSet:
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise RecordError(
            f"{folder / CONTRACT} is no record of format {FORMAT}; write it with this version"
        )
    path = folder / ARRAYS
    if digest(path) != data["arrays_sha256"]:
        raise RecordError(
            f"{path} does not match its contract: it was changed after it was written; "
            "restore both files from one copy"
        )
    table = read_table(path, max_bytes=MAX_ARRAY_BYTES)
    return _set(table, _contract(data["contract"]), data)


def _contract_text(folder: Path, expected: str) -> str:
    path = folder / CONTRACT
    if not path.is_file():
        raise RecordError(f"{folder} holds no {CONTRACT}: name the folder of an explanation")
    if path.stat().st_size > MAX_CONTRACT_BYTES:
        raise RecordError(f"{path} is larger than {MAX_CONTRACT_BYTES} bytes: it is no contract")
    content = path.read_bytes()
    if expected and hashlib.sha256(content).hexdigest() != expected:
        raise RecordError(f"{path} is not the record {expected[:12]}...: restore it")
    return content.decode("utf-8", "replace")


def _contract(data: Mapping[str, Any]) -> Contract:
    players, model = data["players"], data["model"]
    return Contract(
        **{
            **data,
            "players": Players(
                tuple(players["features"]), tuple(players["names"]), tuple(players["owner"])
            ),
            "model": ModelName(**model),
            "labels": tuple(data["labels"]),
            "base": float(data["base"]),
            "gap": float(data["gap"]),
        }
    )


def _columns(contract: Contract, *, timed: bool, segments: list[str]) -> list[str]:
    names, features = contract.players.names, contract.players.features
    return [
        "key",
        *(["time"] if timed else []),
        "score",
        "decided",
        *(f"value/{p}" for p in names),
        *(f"error/{p}" for p in names),
        *(f"data/{f}" for f in features),
        *(f"segment/{s}" for s in segments),
    ]


def _table(found: ExplanationSet) -> pa.Table:
    import pyarrow as pa

    columns: list[Any] = [pa.array(found.keys, pa.string())]
    if found.times is not None:
        columns.append(pa.array(found.times, pa.timestamp("ms", tz="UTC")))
    columns += [pa.array(found.scores), pa.array(found.decided)]
    for block in (found.values, found.errors, found.data):
        columns += [pa.array(np.ascontiguousarray(column)) for column in block.T]
    columns += [pa.array(s, pa.string()) for s in found.segments.values()]
    names = _columns(
        found.contract, timed=found.times is not None, segments=list(found.segments)
    )  # fmt: skip
    return pa.table(columns, names=names)


def _set(table: pa.Table, contract: Contract, data: Mapping[str, Any]) -> ExplanationSet:
    wanted = _columns(contract, timed=data["timed"], segments=data["segments"])
    if table.column_names != wanted or table.num_rows != data["rows"]:
        raise RecordError(
            f"the arrays have {table.num_rows} rows and {len(table.column_names)} columns, the "
            f"contract says {data['rows']} and {len(wanted)}: restore both files from one copy"
        )

    def block(prefix: str, width: int) -> Any:
        chosen = [c for c in wanted if c.startswith(prefix)]
        stacked = [table.column(c).to_numpy() for c in chosen]
        return np.stack(stacked, axis=1).astype(np.float64) if width else np.zeros((len(table), 0))

    players = contract.players
    return ExplanationSet(
        contract,
        tuple(table.column("key").to_pylist()),
        block("value/", len(players)),
        block("error/", len(players)),
        table.column("score").to_numpy(),
        table.column("decided").to_numpy(),
        block("data/", len(players.features)),
        table.column("time").to_numpy().astype("datetime64[ms]").astype(np.int64)
        if data["timed"]
        else None,
        {s: tuple(table.column(f"segment/{s}").to_pylist()) for s in data["segments"]},
    )
