"""Encrypted networks of one hidden layer, square or cube, against TenSEAL's own layers.

30 inputs, 16 hidden units, one score, fitted by gradient descent to the labels of 30 columns, 3 %
positive. Owner and scorer run in this process on one thread; figures are CPU time of the scorer,
reading the request and writing the answer included. The naive way is the one of TenSEAL's
tutorials: a row per ciphertext, ``mm``, ``square``, ``dot``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.compile import CompileOptions
from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import PrivateModel, power_model
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._he import credit_rows, pair_of, tenseal_layers, trip

Reals = NDArray[np.float64]
TRAIN, HIDDEN = 20_000, 16


def fitted(x: Reals, y: Any, power: Literal[2, 3], seed: int, steps: int) -> PrivateModel:
    """Fit a network with a power between its layers."""
    import torch

    encoding = plain_encoding(x, margin=1.5, beyond="clip")
    torch.manual_seed(seed)
    inputs = torch.tensor(encoding.encode(x), dtype=torch.float32)
    labels = torch.tensor(y, dtype=torch.float32)[:, None]
    first, second = torch.nn.Linear(30, HIDDEN), torch.nn.Linear(HIDDEN, 1)
    weights = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=1e-2)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (512,))
        scores = second(first(inputs[chosen]) ** power)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    layers = [(one.weight.detach().numpy(), one.bias.detach().numpy()) for one in (first, second)]
    return power_model(encoding, layers, power)


def measured(
    power: Literal[2, 3], rows: int, seed: int, repeats: int, steps: int
) -> dict[str, float]:
    """Measure one seed of one power."""
    from sklearn.metrics import roc_auc_score

    x, y, test, labels = credit_rows(TRAIN, rows, seed)
    model = fitted(x, y, power, seed, steps)
    pair = pair_of(model, x[:2_000], CompileOptions(max_rows=rows))
    trip(pair, test[:64])
    made = trip(pair, test, repeats)
    clear = model.score(test)
    return {
        "rows_s": rows / made.score,
        "client_us_per_row": (made.encrypt + made.decrypt) / rows * 1e6,
        "up_bytes_per_row": len(made.sealed.content) / rows,
        "down_bytes_per_row": made.answer_bytes / rows,
        "max_err": float(np.abs(made.scores - clear).max()),
        "proved_err": pair.compiled.proof.likely_calibration,
        "any_row_err": pair.compiled.proof.likely,
        "auc": float(roc_auc_score(labels, clear[:, 0])),
        "auc_diff": float(
            abs(roc_auc_score(labels, made.scores[:, 0]) - roc_auc_score(labels, clear[:, 0]))
        ),
        "security_bits": pair.compiled.plan.parameters.security_bits,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-mlp", __doc__.splitlines()[0])
    made.add_argument("--rows", type=int, default=0, help="rows (default 16,384)")
    made.add_argument("--seeds", type=int, default=0, help="seeds (default 10)")
    args = made.parse_args(argv)
    rows = args.rows or (1_000 if args.smoke else 16_384)
    seeds = args.seeds or (1 if args.smoke else 10)
    repeats, steps = (1, 50) if args.smoke else (3, 600)
    figures: dict[str, Any] = {"rows": rows, "seeds": seeds}
    for name, power in (("square", 2), ("cubic", 3)):
        found = [measured(power, rows, args.seed + i, repeats, steps) for i in range(seeds)]
        for key in found[0]:
            values = [one[key] for one in found]
            worst = key.endswith(("_err", "_diff"))
            figures[f"{name}_{key}"] = max(values) if worst else float(np.median(values))
        figures[f"{name}_rows_s_range"] = [f(one["rows_s"] for one in found) for f in (min, max)]
    figures["max_err"] = max(figures["square_max_err"], figures["cubic_max_err"])
    x, y, test, _ = credit_rows(TRAIN, 100, args.seed)
    model = fitted(x, y, 2, args.seed, steps)
    inputs = (test - model.encoding.mean) / model.encoding.scale
    figures["naive_rows_s"] = tenseal_layers(model, inputs[: 2 if args.smoke else 20])
    figures["ratio"] = figures["square_rows_s"] / figures["naive_rows_s"]
    emit(figures, args)


if __name__ == "__main__":
    run_program("he-mlp", main)
