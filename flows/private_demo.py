"""The demo's encrypted step: a scorer in a process of its own scores what it cannot see."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infra.services.ports import any_free_port
from infra.services.process import is_healthy, spawn, stop_group, wait_until_ready
from infra.services.service import Service
from infra.settings import Settings

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle

ROWS = 2_000
START_SECONDS = 60.0
TENANT = "demo"


@dataclass(frozen=True)
class PrivateFigures:
    """What was seen.

    Attributes:
        rows: Payments scored.
        same: Those with the decision that the head makes in the clear.
        difference: Largest difference of log-odds.
        proved: What it is proved to be at most.
        security_bits: Of the ciphertexts.
        up_bytes: Sent, per payment.
        down_bytes: Received, per payment.
        owner_ms: Encrypting and decrypting, all payments.
        scorer_ms: From request to answer, all payments.
        seconds: Duration of the step.
    """

    rows: int
    same: int
    difference: float
    proved: float
    security_bits: int
    up_bytes: float
    down_bytes: float
    owner_ms: float
    scorer_ms: float
    seconds: float = 0.0


def run_private(
    settings: Settings,
    data: Path,
    bundle: Bundle,
    folder: Path,
    *,
    rows: int = ROWS,
    tell: Callable[[str], None] = lambda _: None,
) -> PrivateFigures:
    """Have the last payments of a file scored encrypted, and compare.

    Args:
        settings: The settings.
        data: File of payments, in order of time.
        bundle: The model; its logistic head scores.
        folder: Emptied; holds the compiled model, key, log and ``private.json`` afterwards.
        rows: How many payments.
        tell: Called with what is done now.

    Raises:
        ServiceError: The scorer did not start.
    """
    from connectors.private.bundle import write_bundle
    from connectors.private.fraud_head import head_model
    from tasks.privacy.compile import compile_model

    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tell("compiling the logistic head")
    model, calibration = head_model(bundle.folder)
    compiled = compile_model(model, calibration)
    write_bundle(folder / "compiled", compiled, TENANT)
    table = _features(data, bundle)[-rows:]
    tell("starting the scorer")
    with _scorer(settings.model_copy(update={"home": folder}), folder) as (port, token):
        tell(f"{len(table):,} payments, encrypted")
        scores, figures = _scored(port, token, folder, table)
    clear = model.score(table)
    decided = [model.readout.bands(model.readout.outcome(one)[:, 0]) for one in (clear, scores)]
    made = PrivateFigures(
        rows=len(table),
        same=sum(one == other for one, other in zip(*decided, strict=True)),
        difference=float(np.abs(scores - clear).max()),
        proved=compiled.proof.likely,
        security_bits=compiled.plan.parameters.security_bits,
        **figures,
        seconds=time.perf_counter() - began,
    )
    (folder / "private.json").write_text(json.dumps(asdict(made), indent=1), encoding="utf-8")
    return made


def _features(data: Path, bundle: Bundle) -> NDArray[np.float64]:
    from connectors.files import read_table
    from tasks.fraud.features import build_features
    from tasks.fraud.ingest.checks import check

    checked = check(read_table(data), bundle.config, str(data)).transactions
    known = {column: tuple(values) for column, values in bundle.categories.items()}
    return build_features(checked, bundle.config, categories=known).values.astype(np.float64)


@contextmanager
def _scorer(settings: Settings, folder: Path) -> Iterator[tuple[int, str]]:
    """The scorer's server for the length of a ``with`` block; yields port and token."""
    port, token = any_free_port(), secrets.token_urlsafe(24)
    service = Service(
        name="private-scorer",
        command=(sys.executable, "-m", "connectors.private.server.server"),
        port=port,
        health="/health/ready",
        environment={
            "PENSTOCK_PRIVATE_HOME": str(folder / "scorer"),
            "PENSTOCK_PRIVATE_MODELS": str(folder / "compiled"),
            "PENSTOCK_PRIVATE_PORT": str(port),
            "PENSTOCK_API_TOKENS": f"{TENANT}:score:{token}",
        },
    )
    state, process = spawn(settings, service)
    try:
        wait_until_ready(state, lambda: is_healthy(port, service.health), START_SECONDS)
        yield port, token
    finally:
        stop_group(state)
        process.wait()


def _scored(
    port: int, token: str, folder: Path, table: NDArray[np.float64]
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Act as the owner: make a key, register it, have rows scored, open the answer."""
    from connectors.private.client.http import Scorer
    from connectors.private.client.key_file import KeyFile
    from connectors.private.client.registration import write_registration
    from connectors.private.client.session import Session

    scorer = Scorer(f"http://127.0.0.1:{port}", token)
    offer = scorer.offer(TENANT)
    key = KeyFile.new(TENANT, offer.plan.parameters.name)
    key.write(folder / "owner.key")
    scorer.register(write_registration(key.registration, key.signing_key))
    session = Session(offer, key)
    marks = [time.perf_counter()]
    sealed = session.seal(table)
    marks.append(time.perf_counter())
    asked = session.ask(scorer, sealed)
    marks.append(time.perf_counter())
    scores = session.open(sealed, asked.request, asked.answer)
    marks.append(time.perf_counter())
    seal, there_and_back, opened = np.diff(marks) * 1e3
    return scores, {
        "up_bytes": asked.sent / len(table),
        "down_bytes": len(asked.answer) / len(table),
        "owner_ms": float(seal + opened),
        "scorer_ms": float(there_and_back),
    }
