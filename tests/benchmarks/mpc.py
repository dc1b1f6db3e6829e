"""Joint scoring in two processes over TLS, against the textbook's way and scores in the clear.

Rows of 30 columns. The main figures are of a logistic regression whose weights one party has and
whose 30 columns all lie with the other: every input crosses the line in one direction, the dearest
split there is. ``shared`` has 15 columns on each side and weights that nobody knows. Networks are
delays in the channel: LAN 10 Gbit/s and .2 ms, WAN 100 Mbit/s and 40 ms, each way. Online is from
the agreement of both sides to the last score: reading the deal, expanding seeds, masking, TLS and
loopback are in it, dealing and the encoding of raw columns are not.

The textbook's way (matrix triples with inputs and weights both shared, 64-bit words, NumPy) runs in
this process, without a network. ``spu_rows_s_noted`` was measured once with SecretFlow SPU 0.9.5
(two simulated parties, Semi2k, LR 65,536 x 30, 2.7 s) and is not run here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import PrivateModel, linear_model, power_model
from tasks.privacy.shares.compile import JointModel, JointOptions, compile_joint
from tasks.privacy.shares.rehearsal import rehearse
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._houses import Houses

Reals = NDArray[np.float64]

COLUMNS = 30
HIDDEN = 16
SPU_ROWS_S = 25_000


def logistic(seed: int) -> PrivateModel:
    """A logistic regression as fitted ones are: standardised columns, weights of about .3."""
    rng = np.random.default_rng(seed)
    encoding = plain_encoding(rng.normal(size=(20_000, COLUMNS)), margin=2.0, beyond="clip")
    return linear_model(encoding, rng.normal(size=COLUMNS) * 0.3, -3.0)


def network(seed: int) -> PrivateModel:
    """30 columns, 16 squares, one score."""
    rng = np.random.default_rng(seed)
    encoding = plain_encoding(rng.normal(size=(20_000, COLUMNS)), margin=2.0, beyond="clip")
    hidden = (rng.normal(size=(HIDDEN, COLUMNS)) * 0.15, rng.normal(size=HIDDEN) * 0.3)
    return power_model(encoding, [hidden, (rng.normal(size=(1, HIDDEN)) * 0.3, [-1.0])], 2)


def measured(
    houses: Houses, joint: JointModel, model: PrivateModel, rows: Reals, links: Sequence[str]
) -> dict[str, float]:
    """Deal, score over each link, compare with the clear."""
    split = len(joint.plan.encodings[0].columns)
    dealt = houses.dealt(joint, (-(-len(rows) // 8_192)) * 8_192 * len(links))
    found: dict[str, float] = {
        "dealer_us_per_row": dealt.timing.cpu / len(rows) / len(links) * 1e6,
        "dealt_bytes_per_row": dealt.size / len(rows) / len(links),
        "proved_err": joint.proof.calibration,
        "certain_err": joint.proof.certain,
    }
    clear = model.score(rows)
    for link in links:
        ended = houses.score(dealt, (rows[:, :split], rows[:, split:]), link)
        outcome = ended.arrays[0]["outcome"]
        found[f"rows_s_{link}"] = len(rows) / ended.seconds
        found[f"cpu_us_per_row_{link}"] = ended.cpu / len(rows) * 1e6
        found["bytes_per_row"] = ended.sent / len(rows)
        if outcome.dtype == np.bool_:
            sure = np.abs(clear) > joint.proof.certain
            found["wrong_decisions"] = int(((clear >= 0) != outcome)[sure].sum())
            found["undecided"] = int((~sure).sum())
        else:
            found["max_err"] = float(np.abs(outcome - clear).max())
    return found


def textbook(rows: Reals, weights: Reals) -> dict[str, float]:
    """Both parties' work with inputs and weights shared: CPU, error, and what would be opened."""
    rng = np.random.default_rng(0)
    n, columns = rows.shape

    def words(*shape: int) -> NDArray[np.uint64]:
        return rng.integers(0, 2**64, shape, dtype=np.uint64)

    x = np.rint(rows * 2.0**20).astype(np.int64).view(np.uint64)
    w = np.rint(weights * 2.0**20).astype(np.int64).view(np.uint64)
    x0, w0, a0, b0, c0 = (
        words(n, columns),
        words(columns),
        words(n, columns),
        words(columns),
        words(n),
    )
    a1, b1 = words(n, columns), words(columns)
    c1 = (a0 + a1) @ (b0 + b1) - c0
    x1, w1 = x - x0, w - w0
    start = time.process_time()
    e0, f0, e1, f1 = x0 - a0, w0 - b0, x1 - a1, w1 - b1
    e, f = e0 + e1, f0 + f1
    z0, z1 = e @ w0 + a0 @ f + c0, (e0 + e1) @ w1 + a1 @ (f0 + f1) + c1
    total = (z0 + z1).view(np.int64) * 2.0**-40
    seconds = time.process_time() - start
    return {
        "textbook_us_per_row": seconds / n * 1e6,
        "textbook_bytes_per_row": 2 * 8 * columns + 2 * 8,
        "textbook_max_err": float(np.abs(total - rows @ weights).max()),
    }


def in_process(joint: JointModel, inputs: Reals) -> float:
    """Return both parties' and the dealer's CPU microseconds per row, without any wire."""
    split = joint.plan.inputs[0]
    pair = inputs[:, :split], inputs[:, split:]
    rehearse(joint.plan, joint.parts, pair)
    start = time.process_time()
    rehearse(joint.plan, joint.parts, pair)
    return (time.process_time() - start) / len(inputs) * 1e6


def in_the_clear(rows: Reals, weights: Reals) -> float:
    """Return the CPU microseconds per row of one product of matrices, the best of five."""
    taken = []
    for _ in range(5):
        start = time.process_time()
        _ = rows @ weights
        taken.append(time.process_time() - start)
    return min(taken) / len(rows) * 1e6


def one_row(houses: Houses, joint: JointModel, row: Reals) -> float:
    """Return the wall milliseconds of a session of one row over the WAN, after its agreement."""
    split = len(joint.plan.encodings[0].columns)
    dealt = houses.dealt(joint, 1)
    return houses.score(dealt, (row[:, :split], row[:, split:]), "wan").seconds * 1e3


def intersection(houses: Houses, keys: int, link: str) -> dict[str, float]:
    """Intersect two lists of which half is common."""
    mine = [f"customer {i}" for i in range(keys)]
    theirs = [f"customer {i}" for i in range(keys // 2, keys // 2 + keys)]
    ended = houses.intersect((mine, theirs), link)
    found = [
        [names[i] for i in one["rows"]]
        for names, one in zip((mine, theirs), ended.arrays, strict=True)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == keys - keys // 2
    return {
        "psi_keys": keys,
        "psi_keys_s": keys / ended.seconds,
        "psi_cpu_us_per_key": ended.cpu / keys / 2 * 1e6,
        "psi_bytes_per_key": ended.sent / keys / 2,
    }


def spread(runs: list[dict[str, float]], prefix: str, keep: Sequence[str]) -> dict[str, Any]:
    """Return medians over seeds, worst errors, and ranges of what is named."""
    figures: dict[str, Any] = {}
    for key in runs[0]:
        values = [one[key] for one in runs]
        worst = key.endswith(("_err", "decisions"))
        figures[prefix + key] = max(values) if worst else float(np.median(values))
        if key in keep:
            figures[f"{prefix}{key}_range"] = [min(values), max(values)]
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("mpc", __doc__.splitlines()[0])
    made.add_argument("--rows", type=int, default=0, help="rows over the LAN (default 400,000)")
    made.add_argument("--keys", type=int, default=0, help="keys to intersect (default 50,000)")
    made.add_argument("--seeds", type=int, default=0, help="seeds of the main figures (default 10)")
    args = made.parse_args(argv)
    n = args.rows or (3_000 if args.smoke else 400_000)
    seeds = range(args.seed, args.seed + (args.seeds or (1 if args.smoke else 10)))
    links = ("lan",) if args.smoke else ("lan", "wan")
    rng = np.random.default_rng(args.seed)
    rows = rng.normal(size=(n, COLUMNS))
    half = tuple(f"x{i}" for i in range(COLUMNS // 2))
    timed = ("rows_s_lan", "rows_s_wan")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        houses = Houses(Path(folder))
        runs, shared = [], []
        for seed in seeds:
            model = logistic(seed)
            joint = compile_joint(model, (), rows[:2_000])
            runs.append(measured(houses, joint, model, rows, links))
            if not args.smoke:
                joint = compile_joint(model, half, rows[:2_000], JointOptions("shared"))
                shared.append(measured(houses, joint, model, rows, links))
        figures |= spread(runs, "", timed)
        if not args.smoke:
            figures |= spread(shared, "shared_", timed)
            net = network(args.seed)
            joint = compile_joint(net, half, rows[:2_000], JointOptions("shared", tolerance=1e-4))
            figures |= spread([measured(houses, joint, net, rows[: n // 4], links)], "hidden_", ())
            model = logistic(args.seed)
            decision = JointOptions("party-0", "decision")
            joint = compile_joint(model, half, rows[:2_000], decision)
            figures |= spread([measured(houses, joint, model, rows, links)], "decision_", ())
            figures["one_decision_wan_ms"] = one_row(houses, joint, rows[:1])
            joint = compile_joint(model, half, rows[:2_000])
            figures["one_score_wan_ms"] = one_row(houses, joint, rows[:1])
        figures |= intersection(houses, args.keys or (200 if args.smoke else 50_000), "lan")
    joint = compile_joint(logistic(args.seed), half, rows[:2_000], JointOptions("shared"))
    part = rows[: min(n, 65_536)]
    figures["in_process_us_per_row"] = in_process(joint, part)
    figures |= textbook(part, logistic(args.seed).weights[0])
    figures["clear_us_per_row"] = in_the_clear(part, logistic(args.seed).weights[0])
    figures |= {"spu_rows_s_noted": SPU_ROWS_S, "rows": n, "seeds": len(seeds)}
    emit(figures, args)


if __name__ == "__main__":
    run_program("mpc", main)
