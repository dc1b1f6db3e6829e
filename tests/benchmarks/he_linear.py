"""Encrypted logistic regression of 30 columns against the two ways that TenSEAL's tutorials show.

Rows of 30 columns, 3 % positive; every seed draws data, key and noise anew. Owner and scorer run
in this process on one thread; figures are CPU time, the scorer's with reading the request and
writing the answer. The tutorial encrypts row by row and takes ``dot`` of each; the batched tensor
holds 4,096 rows and takes ``mm``. Both get the same weights; their own reading and writing is left
out, in their favour. The best that TenSEAL could be brought to (a vector per column, no rescaling)
stands beside them, with reading and without.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.ring.weighted import weighted_sums
from tasks.privacy.compile import CompileOptions
from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import PrivateModel, linear_model
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._he import Pair, credit_rows, pair_of, timed, trip, tutorial

Reals = NDArray[np.float64]
TRAIN = 20_000


def fitted(x: Reals, y: Any) -> PrivateModel:
    """Fit a logistic regression on standardised columns."""
    from sklearn.linear_model import LogisticRegression

    encoding = plain_encoding(x, beyond="clip")
    model = LogisticRegression(max_iter=500, class_weight="balanced").fit(encoding.encode(x), y)
    return linear_model(encoding, model.coef_[0], model.intercept_[0])


def ours(rows: int, seed: int, repeats: int) -> dict[str, float]:
    """Measure one seed."""
    from sklearn.metrics import roc_auc_score

    x, y, test, labels = credit_rows(TRAIN, rows, seed)
    model = fitted(x, y)
    pair = pair_of(model, x[:2_000], CompileOptions(max_rows=rows))
    trip(pair, test[:64])
    made = trip(pair, test, repeats)
    clear = model.score(test)
    plan = pair.compiled.plan
    return {
        "server_rows_per_core_s": rows / made.score,
        "compute_rows_per_core_s": rows / compute_seconds(pair, made.sealed.content, repeats),
        "client_us_per_row": (made.encrypt + made.decrypt) / rows * 1e6,
        "up_bytes_per_row": len(made.sealed.content) / rows,
        "down_bytes_per_row": made.answer_bytes / rows,
        "up_of_float64": len(made.sealed.content) / (8 * plan.inputs * rows),
        "one_row_ms": one_row(pair, test[:1]),
        "max_err": float(np.abs(made.scores - clear).max()),
        "proved_err": pair.compiled.proof.likely,
        "certain_err": pair.compiled.proof.certain,
        "auc_diff": abs(
            roc_auc_score(labels, made.scores[:, 0]) - roc_auc_score(labels, clear[:, 0])
        ),
        "security_bits": plan.parameters.security_bits,
    }


def compute_seconds(pair: Pair, content: bytes, repeats: int) -> float:
    """Return the CPU seconds of the sums alone, requests already read."""
    plan, scorer = pair.compiled.plan, pair.scorer
    blocks = np.frombuffer(content, np.uint8).reshape(-1, plan.inputs, plan.block_bytes)
    opened = [scorer._opened(group) for group in blocks]
    weights, ring = pair.compiled.whole.weights, plan.parameters.ring
    _, seconds = timed(
        lambda: [weighted_sums(part, weights, ring) for parts in opened for part in parts],
        repeats,
    )
    return seconds


def one_row(pair: Pair, row: Reals) -> float:
    """Return the median wall milliseconds of one row there and back."""
    taken = []
    for _ in range(15):
        start = time.perf_counter()
        sealed = pair.owner.encrypt(row)
        pair.owner.decrypt(sealed, pair.scorer.score(sealed.packing, sealed.rows, sealed.content))
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)) * 1e3


def batched_tensor(x: Reals, weights: Reals, rows: int) -> float:
    """Return the rows per CPU second of a scorer with TenSEAL's batched tensor."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60], n_threads=1)
    context.global_scale = 2**40
    part = x[:rows].reshape(rows, 1, -1)
    sealed = tenseal.ckks_tensor(context, tenseal.plain_tensor(part.tolist()), batch=True)
    matrix = tenseal.plain_tensor(weights.reshape(-1, 1).tolist())
    scores, seconds = timed(lambda: sealed.mm(matrix))
    found = np.array(scores.decrypt().tolist()).ravel()[:rows]
    assert np.abs(found - x[:rows] @ weights).max() < 1e-2
    return rows / seconds


def best_of_tenseal(x: Reals, weights: Reals) -> tuple[float, float]:
    """Return rows per CPU second of the fastest way found in TenSEAL: with reading, and without.

    A vector per column, 2,048 rows in its slots, times a number each, no rescaling, N = 4,096.
    """
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, -1, [54, 55], n_threads=1)
    context.global_scale, context.auto_rescale = 2**22, False
    part = x[:2_048]
    sent = [
        tenseal.ckks_vector(context, tenseal.plain_tensor(column.tolist())).serialize()
        for column in part.T
    ]

    def score(vectors: list[Any]) -> Any:
        total = vectors[0] * float(weights[0])
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            total.add_(vector * float(weight))
        return total

    vectors, reading = timed(lambda: [tenseal.ckks_vector_from(context, one) for one in sent], 5)
    total, computing = timed(lambda: score(vectors), 5)
    assert np.abs(np.array(total.decrypt()) - part @ weights).max() < 0.1
    return len(part) / (reading + computing), len(part) / computing


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-linear", __doc__.splitlines()[0])
    made.add_argument("--rows", type=int, default=0, help="rows (default 16,384)")
    made.add_argument("--seeds", type=int, default=0, help="seeds (default 10)")
    args = made.parse_args(argv)
    rows = args.rows or (2_000 if args.smoke else 16_384)
    seeds = args.seeds or (1 if args.smoke else 10)
    repeats = 1 if args.smoke else 5
    found = [ours(rows, args.seed + i, repeats) for i in range(seeds)]
    figures: dict[str, Any] = {
        key: float(np.median([one[key] for one in found])) for key in found[0]
    }
    for key in ("max_err", "auc_diff"):
        figures[key] = max(one[key] for one in found)
    for key in ("server_rows_per_core_s", "compute_rows_per_core_s", "client_us_per_row"):
        figures[f"{key}_range"] = [min(one[key] for one in found), max(one[key] for one in found)]
    x, y, test, _ = credit_rows(TRAIN, 4_096, args.seed)
    model = fitted(x, y)
    test, weights = (test - model.encoding.mean) / model.encoding.scale, model.weights[0]
    figures["tenseal_tutorial_rows_s"] = tutorial(test, weights, 5 if args.smoke else 60)
    figures["tenseal_tensor_rows_s"] = batched_tensor(test, weights, 500 if args.smoke else 4_096)
    with_reading, computing = best_of_tenseal(test, weights)
    figures |= {"tenseal_best_rows_s": with_reading, "tenseal_best_compute_rows_s": computing}
    figures["ratio"] = figures["server_rows_per_core_s"] / figures["tenseal_tutorial_rows_s"]
    figures |= {"rows": rows, "seeds": seeds}
    emit(figures, args)


if __name__ == "__main__":
    run_program("he-linear", main)
