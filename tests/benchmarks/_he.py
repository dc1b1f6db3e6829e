"""What the benchmarks of encrypted scoring share: data, an owner with a scorer, times by CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.private.bundle import make_offer
from connectors.private.client.owner import Owner, Sealed
from connectors.private.client.seal import Seal
from tasks.privacy.compile import Compiled, CompileOptions, compile_model
from tasks.privacy.model import PrivateModel
from tasks.privacy.score import EncryptedScorer

Reals = NDArray[np.float64]


def credit_rows(n_train: int, n_test: int, seed: int) -> tuple[Reals, Any, Reals, Any]:
    """Return rows of 30 columns, 3 % of them positive, to fit on and to score, with labels."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n_train + n_test,
        30,
        n_informative=12,
        n_redundant=6,
        weights=[0.97],
        class_sep=0.8,
        flip_y=0.01,
        random_state=seed,
    )
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


@dataclass(frozen=True)
class Pair:
    """A compiled model, its owner and its scorer."""

    compiled: Compiled
    owner: Owner
    scorer: EncryptedScorer


def pair_of(model: PrivateModel, calibration: Reals, options: CompileOptions) -> Pair:
    """Compile a model and make a key for it."""
    compiled = compile_model(model, calibration, options)
    offer = make_offer(compiled, "benchmark")
    owner = Owner(offer, Seal(compiled.plan.parameters))
    return Pair(compiled, owner, EncryptedScorer(compiled.plan, compiled.whole))


@dataclass(frozen=True)
class Trip:
    """One way of rows there and back.

    Attributes:
        scores: Decrypted.
        sealed: What was sent.
        answer_bytes: Size of what came back.
        encrypt: CPU seconds of the owner before.
        score: CPU seconds of the scorer, reading and writing included.
        decrypt: CPU seconds of the owner after.
    """

    scores: Reals
    sealed: Sealed
    answer_bytes: int
    encrypt: float
    score: float
    decrypt: float


def trip(pair: Pair, rows: Reals, repeats: int = 1) -> Trip:
    """Send rows there and back in the packing for many; CPU times are the median of the repeats."""
    packing = pair.compiled.plan.packings[0]
    sealed, encrypt = timed(lambda: pair.owner.encrypt(rows, packing), repeats)
    answer, score = timed(
        lambda: pair.scorer.score(sealed.packing, sealed.rows, sealed.content), repeats
    )
    scores, decrypt = timed(lambda: pair.owner.decrypt(sealed, answer), repeats)
    return Trip(scores, sealed, len(answer), encrypt, score, decrypt)


def timed(call: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """Return what a call gives and the median of its CPU seconds."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        given = call()
        taken.append(time.process_time() - start)
    return given, float(np.median(taken))


def ranking_losses(labels: Any, teacher: Reals, student: Reals) -> tuple[float, float]:
    """Return by how much a student's AUC and average precision are below its teacher's."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    auc = roc_auc_score(labels, teacher) - roc_auc_score(labels, student)
    ap = average_precision_score(labels, teacher) - average_precision_score(labels, student)
    return float(auc), float(ap)


def tenseal_layers(model: PrivateModel, inputs: Reals) -> float:
    """Return the rows per CPU second of TenSEAL's layers, a row per ciphertext."""
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 8192, -1, [40, 26, 26, 26, 26, 40], n_threads=1
    )
    context.global_scale = 2**26
    context.generate_galois_keys()
    sealed = [tenseal.ckks_vector(context, row.tolist()) for row in inputs]
    first, second = model.weights.T.tolist(), model.output[0].tolist()
    bias = model.bias.tolist()

    def score() -> list[Any]:
        found = []
        for one in sealed:
            hidden = one.mm(first) + bias
            hidden.square_()
            found.append(hidden.dot(second))
        return found

    scores, seconds = timed(score)
    clear = model.score_encoded(inputs)[:, 0] - model.offset[0]
    error = np.abs(np.array([one.decrypt()[0] for one in scores]) - clear).max()
    assert error < 0.2 * max(1.0, np.abs(clear).max()), error
    return len(inputs) / seconds


def tutorial(x: Reals, weights: Reals, rows: int) -> float:
    """Return the rows per CPU second of a scorer that takes ``dot`` row by row."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 40, 60], n_threads=1)
    context.global_scale = 2**40
    context.generate_galois_keys()
    sealed = [tenseal.ckks_vector(context, row.tolist()) for row in x[:rows]]
    listed = weights.tolist()
    scores, seconds = timed(lambda: [one.dot(listed) for one in sealed])
    error = np.abs(np.array([one.decrypt()[0] for one in scores]) - x[:rows] @ weights).max()
    assert error < 1e-2, error
    return rows / seconds
