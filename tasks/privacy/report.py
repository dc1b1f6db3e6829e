"""What was compiled, in figures: for a page, a log or a person at a terminal."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.compile import Compiled
from tasks.privacy.plan import Packing
from tasks.privacy.score import EncryptedScorer
from tasks.privacy.simulate import simulate

Reals = NDArray[np.float64]

ROWS = (1, 128, 4_096, 16_384)
"""Sizes of requests that are told."""


def report(compiled: Compiled, calibration: Reals) -> dict[str, Any]:
    """Return the report of a compiled model.

    Times are measured now, on this machine, on ciphertexts of zeros: the scorer's work does not
    depend on what is inside.

    Args:
        compiled: The model.
        calibration: [n, F] raw rows.
    """
    plan, proof = compiled.plan, compiled.proof
    scorer = EncryptedScorer(plan, compiled.whole)
    noisy = simulate(compiled, calibration, np.random.default_rng(0))
    measured = float(np.abs(noisy - compiled.model.score(calibration)).max())
    sizes = [rows for rows in ROWS if rows <= max(compiled.options.max_rows, 1)]
    return {
        "parameters": plan.parameters.name,
        "security_bits": plan.parameters.security_bits,
        "degree": plan.parameters.ring.degree,
        "prime_bits": [prime.bit_length() for prime in plan.parameters.ring.primes],
        "profile": compiled.options.profile,
        "depth": plan.power,
        "evaluation_key_bytes": 0,
        "input_bits": plan.input_bits,
        "score_bits": plan.score_bits,
        "spare_bits": proof.spare_bits,
        "largest_score": proof.largest,
        "error_certain": proof.certain,
        "error_any_row": proof.likely,
        "error_calibration": proof.likely_calibration,
        "error_simulated": measured,
        "flooding": proof.flooding,
        "error_released": proof.released,
        "releases": compiled.options.releases if proof.flooding else 0,
        "requests": [_request(compiled, scorer, rows) for rows in sizes],
    }


def _request(compiled: Compiled, scorer: EncryptedScorer, rows: int) -> dict[str, Any]:
    """Return packing, bytes and the scorer's milliseconds of a request."""
    plan = compiled.plan
    packing = plan.packing_for(rows)
    group = min(rows, plan.capacity(packing))
    seconds = _seconds(scorer, packing, group) * plan.groups(packing, rows)
    return {
        "rows": rows,
        "packing": packing,
        "up_bytes": plan.request_bytes(packing, rows),
        "down_bytes": plan.answer_bytes(packing, rows),
        "scorer_ms": seconds * 1e3,
    }


def _seconds(scorer: EncryptedScorer, packing: Packing, rows: int) -> float:
    """Return the least time of three runs over one group of ciphertexts."""
    content = bytes(scorer.plan.request_bytes(packing, rows))
    scorer.score(packing, rows, content)
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        scorer.score(packing, rows, content)
        taken.append(time.perf_counter() - begun)
    return min(taken)
