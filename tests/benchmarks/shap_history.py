"""Values of a card's 64 last payments for a GRU's score, pruned, against shap's Permutation.

For every seed a bank is simulated and a GRU trained to tell whether one of a card's 16 newest
payments is a fraud, so that the card is compromised; the highest scores of cards it has not seen
are explained, as probabilities, against the average payment. The judge is the mean of draws of the
engine without pruning. One thread; milliseconds are CPU time of a batch, divided by its rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.explain.engine import ExplainOptions
from tasks.explain.history.background import HistoryBackground
from tasks.explain.history.cells import explain_cells
from tasks.explain.history.explainer import HistoryExplainer, HistoryOptions
from tasks.explain.history.layout import Histories
from tasks.explain.history.scores import TorchHistories
from tasks.explain.history.views import CellView, HistoryView
from tasks.fraud.simulate import CardsConfig, simulate_cards
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, threads

NAMES = ("amount", "hours since", "sine of hour", "cosine of hour", "new terminal")
RECENT, EACH, UNSEEN = 16, 12, 4
"""Payments that tell of a card; histories of each card; one in so many cards is not trained on."""
Values = NDArray[np.float64]


class Net(nn.Module):
    """A GRU whose last state gives the probability that a card is compromised."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.states = nn.GRU(len(NAMES), 32, batch_first=True)
        self.last = nn.Linear(32, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[n, 1]`` of ``[n, T, F]``."""
        made: torch.Tensor = self.last(self.states(x)[0][:, -1])
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return probabilities ``[n, 1]``."""
        return torch.sigmoid(self.logits(x))


def card_histories(
    seed: int, cards: int, steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return histories ``[n, T, F]``, whether a recent payment is a fraud, and cards ``[n]``."""
    bank = CardsConfig(
        cards, 2 * cards, 100, seed, bad_terminals_per_day=0.0, bad_cards_per_day=cards / 200
    )
    parts = list(simulate_cards(bank))
    t, card, terminal, cents, fraud = (
        np.concatenate([part.column(name).to_numpy() for part in parts])
        for name in ("t", "customer", "terminal", "amount_cents", "fraud")
    )
    rng = np.random.default_rng(seed)
    histories, labels, owners = [], [], []
    for one in range(cards):
        own = np.flatnonzero(card == one)
        if len(own) <= steps:
            continue
        hour = 2 * np.pi * (t[own] % 86_400) / 86_400
        new = np.zeros(len(own))
        new[np.unique(terminal[own], return_index=True)[1]] = 1.0
        since = np.diff(t[own], prepend=t[own[0]]) / 3_600
        events = np.stack(
            [np.log1p(cents[own] / 100), np.log1p(since), np.sin(hour), np.cos(hour), new], axis=1
        )
        for end in rng.permutation(np.arange(steps, len(own) + 1))[:EACH]:
            histories.append(events[end - steps : end])
            labels.append(fraud[own[end - RECENT : end]].max())
            owners.append(one)
    made = np.array(histories, dtype=np.float32)
    made = (made - made.mean(axis=(0, 1))) / made.std(axis=(0, 1))
    return made, np.array(labels, dtype=np.float32), np.array(owners)


def trained(x: NDArray[np.float32], labels: NDArray[np.float32], seed: int, epochs: int) -> Net:
    """Return a fitted network."""
    torch.manual_seed(seed)
    net, rows, truth = Net(), torch.tensor(x), torch.tensor(labels)[:, None]
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(rows)).split(128):
            loss = nn.functional.binary_cross_entropy_with_logits(
                net.logits(rows[chosen]), truth[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def auc(scores: Values, labels: NDArray[np.float32]) -> float:
    """Return the share of frauds above legitimate payments."""
    gaps = scores[labels > 0][:, None] - scores[labels == 0]
    return float(np.mean(gaps > 0) + np.mean(gaps == 0) / 2)


def coarse(histories: Histories, values: Values) -> Values:
    """Return values of single events ``[n, T]``, the lumped ones replaced by their sum."""
    made = values.copy()
    for row in np.flatnonzero(histories.lumped):
        kept = int(histories.players[row]) - 1
        made[row, kept] = values[row, kept:].sum()
        made[row, kept + 1 :] = 0.0
    return made


def side_by_side(histories: Histories, found: HistoryView, steps: int) -> Values:
    """Return values of pruned events ``[n, T]``, the lumped block behind the last kept one."""
    made = np.zeros((len(found.values), steps))
    made[:, : found.values.shape[1] - 1] = found.values[:, :-1]
    rows = np.flatnonzero(histories.lumped)
    made[rows, histories.players[rows] - 1] = found.values[rows, -1]
    return made


def relative(found: Values, exact: Values) -> float:
    """Return relative L2, mean over rows."""
    return float((np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)).mean())


def permuted(scores: TorchHistories, rows: NDArray[np.float32], event: Any) -> tuple[Values, float]:
    """Return shap's values of events ``[n, T]``, newest first, and milliseconds a row.

    They are those of Permutation at its own budget.
    """
    with warnings.catch_warnings():
        # shap 0.51 sets up its colour maps the old way beside matplotlib 3.11.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        import shap

    steps = rows.shape[1]
    found, begun = np.zeros((len(rows), steps)), 0.0
    for place, row in enumerate(rows):

        def score(inside: NDArray[Any], row: NDArray[np.float32] = row) -> Values:
            mixed = np.where(inside[:, ::-1, None] > 0.5, row, event)
            return scores(mixed, np.ones(mixed.shape[:2], dtype=bool))

        masker = shap.maskers.Independent(np.zeros((1, steps)))
        explainer = shap.explainers.Permutation(score, masker, seed=0)
        budget = 10 * (2 * steps + 1)
        if not place:
            explainer(np.ones((1, steps)), silent=True)  # shap compiles on first use
            begun = process_time()
        found[place] = explainer(np.ones((1, steps)), max_evals=budget, silent=True).values[0]
    return found, 1e3 * (process_time() - begun) / len(rows)


def judge(
    scores: TorchHistories, background: HistoryBackground, histories: Histories, draws: int
) -> tuple[Values, Values, float]:
    """Return the mean values of events ``[n, T]``, their errors, and evaluations of a row."""
    steps = histories.values.shape[1]
    found, spent = [], 0.0
    for seed in range(1_000, 1_000 + draws):
        drawn = ExplainOptions(evaluations=5_000, top=steps - 1, seed=seed)
        explainer = HistoryExplainer(scores, background, options=HistoryOptions(None, drawn))
        one = explainer.events(histories)
        found.append(side_by_side(histories, one, steps))
        spent += float(one.evaluations.mean())
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(draws), spent


def unadded(
    scores: TorchHistories,
    cases: NDArray[np.float32],
    views: Sequence[HistoryView],
    cells: CellView,
) -> float:
    """Return by how much values miss scores, or cells the first view's events, at most."""
    truth = scores(cases, np.ones(cases.shape[:2], dtype=bool))
    there = cells.event >= 0
    own = np.take_along_axis(views[0].values, cells.event, axis=1)[there]
    missed = [np.abs(view.base + view.values.sum(axis=1) - truth).max() for view in views]
    return float(max(*missed, np.abs(cells.values.sum(axis=2)[there] - own).max()))


def timed(explain: Callable[[], Any], rows: int) -> tuple[Any, float]:
    """Return what an explainer found and CPU milliseconds a row."""
    with stopwatch() as watch:
        found = explain()
    return found, 1e3 * watch.cpu / rows


def measured(seed: int, args: Any, cards: int, rows: int, epochs: int) -> dict[str, float]:
    """Measure one seed: one bank, one network."""
    x, labels, owners = card_histories(seed, cards, args.steps)
    unseen = owners % UNSEEN == 0
    net = trained(x[~unseen], labels[~unseen], seed, epochs)
    scores = TorchHistories(net)
    given = scores(x[unseen], np.ones(x[unseen].shape[:2], dtype=bool))
    cases = x[unseen][np.argsort(-given, kind="stable")[:rows]]
    background = HistoryBackground.average(NAMES, x[~unseen], ids=["new terminal"])
    budget = ExplainOptions(evaluations=args.evaluations, seed=seed)
    explainer = HistoryExplainer(scores, background, options=HistoryOptions(args.tolerance, budget))
    histories, prune_ms = timed(lambda: explainer.prune(cases), rows)
    events, events_ms = timed(lambda: explainer.events(histories), rows)
    features, features_ms = timed(lambda: explainer.features(histories), rows)
    cells, cells_ms = timed(lambda: explain_cells(explainer, histories, events, features), rows)
    plain = HistoryExplainer(scores, background, options=HistoryOptions(None, budget))
    unpruned, unpruned_ms = timed(lambda: plain.events(plain.prune(cases)), rows)
    exact, errors, spent = judge(scores, background, plain.prune(cases), args.draws)
    lumped, _, _ = judge(scores, background, histories, args.draws)
    truth = coarse(histories, exact)
    permutation, permutation_ms = permuted(scores, cases, background.values[0])
    size = np.abs(exact).sum(axis=1)
    return {
        "auc": auc(given, labels[unseen]),
        "ms_per_row": prune_ms + events_ms,
        "features_ms": features_ms,
        "cells_ms": cells_ms,
        "unpruned_ms": unpruned_ms,
        "kept_length": float(histories.kept.mean()),
        "kept_most": float(histories.kept.max()),
        "older_most": float(np.abs(events.values[:, -1]).max()),
        "exact_rows": float((~events.drawn).mean()),
        "evaluations": float((histories.evaluations + events.evaluations).mean()),
        "unpruned_evaluations": float(unpruned.evaluations.mean()),
        "judge_evaluations": spent,
        "pruning_loss": relative(lumped, truth),
        "rel_l2": relative(side_by_side(histories, events, args.steps), truth),
        "unpruned_l2": relative(coarse(histories, unpruned.values[:, :-1]), truth),
        "last_16_share": float((np.abs(exact[:, :RECENT]).sum(axis=1) / size).mean()),
        "judge_error": relative(exact + errors, exact),
        "last_event_share": float((np.abs(exact[:, 0]) / size).mean()),
        "additivity_max": unadded(scores, cases, (events, features), cells),
        "shap_permutation_ms": permutation_ms,
        "shap_permutation_l2": relative(coarse(histories, permutation), truth),
        "shap_permutation_evaluations": 10.0 * (2 * args.steps + 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("shap-history", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="banks (default 10)")
    made.add_argument("--steps", type=int, default=64, help="payments (default %(default)s)")
    made.add_argument(
        "--tolerance", type=float, default=0.025, help="of pruning (default %(default)s)"
    )
    made.add_argument(
        "--evaluations", type=int, default=20_000, help="budget of a row (default %(default)s)"
    )
    made.add_argument("--draws", type=int, default=8, help="of the judge (default %(default)s)")
    args = made.parse_args(argv)
    seeds, cards, rows, epochs = (1, 80, 2, 1) if args.smoke else (10, 300, 8, 6)
    seeds = args.seeds or seeds
    if args.smoke:
        args.steps = 16
    with threads(1):
        found = []
        for i in range(seeds):
            found.append(measured(args.seed + i, args, cards, rows, epochs))
            print(f"seed {args.seed + i}: {found[-1]}", flush=True)
    figures: dict[str, Any] = {"seeds": seeds, "rows": rows, "steps": args.steps}
    for key in found[0]:
        values = [one[key] for one in found]
        figures[key] = (
            max(values) if key in {"additivity_max", "older_most"} else float(np.median(values))
        )
        figures[f"{key}_range"] = (min(values), max(values))
    emit({**figures, "tolerance": args.tolerance}, args)


if __name__ == "__main__":
    run_program("shap-history", main)
