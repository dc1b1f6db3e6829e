"""Steps of the owner's batch job, as Prefect tasks: seal, have scored, open.

Between them lie files, so that a step that is run again does not encrypt again. What is secret, the
key, is read where it is used and never passes between steps.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task

from connectors.private.client.http import TOKEN, Scorer, ScorerError
from connectors.private.client.key_file import PASSPHRASE, KeyFile
from connectors.private.client.offer import Offer
from connectors.private.client.sealed_file import read_sealed, write_sealed
from connectors.private.client.session import Session
from connectors.private.client.tables import TableError, read_rows, write_scores
from tasks.privacy.encoding import RowError

Record = dict[str, Any]


@task(name="seal-rows", timeout_seconds=3_600)
def seal_rows(rows: str, offer: str, key: str, folder: str, most_rows: int) -> Record:
    """Encrypt a table in parts that a scorer takes.

    Args:
        rows: CSV, ``.npy`` or Parquet file with the columns of the offer.
        offer: The scorer's offer.
        key: Key file.
        folder: For the sealed parts.
        most_rows: Rows of a part.

    Returns:
        Files, rows and refused rows with their reasons.
    """
    session = _session(offer, key)
    table = _table(Path(rows), session.offer.encoding.columns)
    begun = time.process_time()
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    files: list[str] = []
    starts: list[int] = []
    sent = 0
    refused: dict[int, str] = {}
    for start in range(0, len(table), most_rows):
        part = table[start : start + most_rows]
        try:
            sealed = session.seal(part)
        except RowError as error:  # not one row of the part can be sent
            refused |= {
                start + row: why for row, why in zip(error.rows, error.reasons, strict=True)
            }
            continue
        path = place / f"{start:09d}.sealed"
        write_sealed(path, sealed)
        files.append(str(path))
        starts.append(start)
        refused |= {start + row: why for row, why in sealed.refused.items()}
        sent += len(sealed.sealed.content)
    return {
        "files": files,
        "rows": len(table),
        "starts": starts,
        "refused": {str(row): why for row, why in refused.items()},
        "up_bytes": sent,
        "cpu_seconds": time.process_time() - begun,
    }


def _again(_task: Any, _run: Any, state: Any) -> bool:
    """Try again what may succeed later: nobody answers, or the scorer is busy."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, ScorerError) and error.status in {0, 429, 503}


@task(
    name="score-sealed",
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=_again,
    timeout_seconds=600,
)
def score_sealed(file: str, offer: str, key: str, url: str, authority: str = "") -> Record:
    """Have one sealed part scored; each try is a request of its own.

    Returns:
        File of the answer, digest of its request, receipt, seconds.
    """
    session = _session(offer, key)
    sealed = read_sealed(Path(file))
    begun = time.perf_counter()
    asked = session.ask(Scorer(url, os.environ.get(TOKEN, ""), authority), sealed)
    seconds = time.perf_counter() - begun
    path = Path(file).with_suffix(".answer")
    path.write_bytes(asked.answer)
    return {
        "sealed": file,
        "answer": str(path),
        "request": asked.request,
        "receipt": asked.receipt,
        "down_bytes": len(asked.answer),
        "seconds": seconds,
    }


@task(name="open-answers", timeout_seconds=3_600)
def open_answers(
    answers: list[Record], sealed: Record, offer: str, key: str, out: str, *, values: bool
) -> Record:
    """Check and decrypt all answers, and write one table.

    Args:
        answers: What `score_sealed` returned, in order.
        sealed: What `seal_rows` returned.
        offer: The scorer's offer.
        key: Key file.
        out: CSV to write.
        values: Whether scores are written, or bands alone, which may leave.

    Returns:
        File, and how many rows reached each band.
    """
    session = _session(offer, key)
    scores = np.full((sealed["rows"], session.offer.plan.scores), np.nan)
    for start, one in zip(sealed["starts"], answers, strict=True):
        part = session.open(
            read_sealed(Path(one["sealed"])), one["request"], Path(one["answer"]).read_bytes()
        )
        scores[start : start + len(part)] = part
    readout = session.offer.readout
    why = {int(row): text for row, text in sealed["refused"].items()}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_scores(Path(out), scores, readout, why, values=values)
    known = ~np.isnan(scores[:, 0])
    bands: dict[str, int] = {name: 0 for name, _ in readout.thresholds}
    if readout.kind == "probability":
        for band in readout.bands(readout.outcome(scores[known])[:, 0]):
            bands[band or "none"] = bands.get(band or "none", 0) + 1
    return {"out": str(Path(out).resolve()), "bands": bands}


def _session(offer: str, key: str) -> Session:
    return Session(Offer.read(Path(offer)), KeyFile.read(Path(key), os.environ.get(PASSPHRASE, "")))


def _table(path: Path, columns: tuple[str, ...]) -> NDArray[np.float64]:
    if path.suffix != ".parquet":
        return read_rows(path, columns)
    from connectors.files import read_table

    table = read_table(path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise TableError(
            f"{path} lacks {len(missing)} columns of the model, such as {missing[0]!r}"
        )
    found = [table.column(name).to_pandas().map(_number).to_numpy(np.float64) for name in columns]
    return np.stack(found, axis=1)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan  # refused with its row
