"""Explanations of graph networks on planted motifs, against GNNExplainer.

Houses on a Barabasi-Albert graph and rings of payers with one device. For every seed a graph is
made, a net trained, and nodes of motifs that it gets right are explained: log-odds of their class.
Recall is the share of the motif's links among as many links that rank highest.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.explain.graph.inputs import GraphInputs
from tasks.explain.graph.links import EdgeValues, edge_values
from tasks.explain.graph.nodes import NodeExplainer, NodeExplanation
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.features import build_features
from tasks.fraud.graph import GraphSettings, fit_graph_rows
from tasks.fraud.graph.entity_training import EntitySettings
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import TransfersConfig, simulate_transfers
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks._motifs import HouseNet, LogOdds, Planted, RingNet, houses, rings, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.explain import Explainer, GNNExplainer
    from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

Reals = NDArray[np.float64]
TOP = 10
TRANSFERS = Path(__file__).parents[2] / "tasks" / "fraud" / "datasets" / "transfers.toml"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    base: int = 300
    accounts: int = 600
    motifs: int = 80
    steps: tuple[int, int] = (600, 300)
    nodes: int = 6
    epochs: int = 100


SMALL = Size(base=60, accounts=80, motifs=15, steps=(150, 100), nodes=2, epochs=20)


@dataclass
class Case:
    """A trained net on its graph.

    Attributes:
        planted: The graph.
        net: The net.
        more: Its edge inputs.
        hops: Its layers.
        accuracy: On nodes that it has not learnt.
    """

    planted: Planted
    net: nn.Module
    more: dict[str, Tensor]
    hops: int
    accuracy: float
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """Note figures of one node."""
        for key, value in figures.items():
            self.figures.setdefault(key, []).append(value)


def cases(size: Size, seed: int) -> dict[str, Case]:
    """Return the trained nets of one seed."""
    torch.manual_seed(seed)
    house = houses(size.base, size.motifs, seed)
    ring = rings(size.accounts, size.motifs, seed)
    made = {"house": (house, HouseNet(), {}, 3), "ring": (ring, RingNet(), ring.inputs, 2)}
    return {
        name: Case(planted, net, more, hops, train(net, planted, more, steps, seed))
        for steps, (name, (planted, net, more, hops)) in zip(size.steps, made.items(), strict=True)
    }


def by_link(values: EdgeValues, edges: Reals) -> Reals:
    """Return the mean over each link's edges of values ``[E]``."""
    return np.array([edges[list(link)].mean() for link in values.edges])


def ranked(score: Reals) -> NDArray[np.intp]:
    """Return links, the highest first; equal ones by number."""
    return np.argsort(-score, kind="stable")


def agreement(first: Reals, second: Reals) -> float:
    """Return the share of the ten highest links that two rankings have in common."""
    tops = [set(ranked(score)[:TOP].tolist()) for score in (first, second)]
    return len(tops[0] & tops[1]) / min(TOP, len(first))


def recall(score: Reals, inside: NDArray[np.bool_]) -> float:
    """Return the share of the motif's links among as many that rank highest."""
    return float(inside[ranked(score)[: inside.sum()]].mean())


def gradient(case: Case, node: int, label: int) -> Reals:
    """Return how steeply the log-odds change with each message ``[E]``."""
    planted = case.planted
    mask = nn.Parameter(torch.ones(planted.edge_index.shape[1]))
    set_masks(case.net, mask, planted.edge_index, apply_sigmoid=False)
    LogOdds(case.net, label)(planted.x, planted.edge_index, **case.more)[node].backward()
    clear_masks(case.net)
    case.net.zero_grad()
    steep: Reals = mask.grad.double().abs().numpy()  # type: ignore[union-attr]  # just filled
    return steep


def learned_mask(case: Case, node: int, epochs: int, seed: int) -> Reals:
    """Return GNNExplainer's mask ``[E]``."""
    torch.manual_seed(seed)
    explainer = Explainer(
        case.net,
        GNNExplainer(epochs=epochs),
        explanation_type="model",
        node_mask_type=None,
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification", "task_level": "node", "return_type": "raw",
        },
    )  # fmt: skip
    planted = case.planted
    mask: Tensor = explainer(planted.x, planted.edge_index, index=node, **case.more).edge_mask
    return mask.double().numpy()


def ours(explainer: NodeExplainer, node: int, seed: int) -> tuple[NodeExplanation, EdgeValues]:
    """Explain, whatever the random numbers are."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - to show that nothing reads it
    explained = explainer.explain(node)
    return explained, edge_values(explained)


def measure(case: Case, size: Size, seed: int) -> None:
    """Explain some nodes of motifs that the net gets right."""
    planted = case.planted
    with torch.inference_mode():
        found = case.net(planted.x, planted.edge_index, **case.more).argmax(1)
    right = (found == planted.label).numpy() & (planted.motif >= 0)
    case.add(motif_accuracy=float(right.sum() / (planted.motif >= 0).sum()))
    graph = GraphInputs(planted.x, planted.edge_index, case.more)
    rng = np.random.default_rng(seed)
    nodes = rng.choice(np.flatnonzero(right), size.nodes, replace=False).tolist()
    labels = planted.label[nodes].tolist()
    of = {c: NodeExplainer(LogOdds(case.net, c), graph, case.hops) for c in set(labels)}
    ours(of[labels[0]], nodes[0], 0)  # warms up
    for node, label in zip(nodes, labels, strict=True):
        with stopwatch() as values:
            of[label].explain(node)
        with stopwatch() as whole:
            explained, edges = ours(of[label], node, 1)
        _, again = ours(of[label], node, 2)
        with stopwatch() as theirs:
            mask = by_link(edges, learned_mask(case, node, size.epochs, 1))
        other = by_link(edges, learned_mask(case, node, size.epochs, 2))
        of_this = planted.motif[planted.edge_index[0].numpy()] == planted.motif[node]
        inside = np.array([(planted.of_motif & of_this)[list(link)].all() for link in edges.edges])
        strength = np.abs(edges.values)
        case.add(
            ms_per_node=whole.cpu * 1e3,
            wall_ms=whole.wall * 1e3,
            values_ms=values.cpu * 1e3,
            repeatability=agreement(strength, np.abs(again.values)),
            same_bits=float(np.array_equal(edges.values, again.values)),
            motif_recall=recall(strength, inside),
            additivity_max=explained.found.gap,
            players=float(len(explained.found.players)),
            links=float(len(inside)),
            gnnexplainer_ms=theirs.cpu * 1e3,
            gnnexplainer_repeatability=agreement(mask, other),
            gnnexplainer_recall=recall(mask, inside),
            gradient_recall=recall(by_link(edges, gradient(case, node, label)), inside),
            random_recall=float(inside.mean()),
        )


def transactions(size: Size, seed: int) -> dict[str, float]:
    """Explain transactions by the fraud model's graph net, which need not be good to be timed."""
    config = DatasetConfig.from_toml(TRANSFERS)
    network = TransfersConfig(accounts=size.accounts, days=60, rings=10, seed=seed)
    tx = check(pa.Table.from_batches(simulate_transfers(network)), config, "bench").transactions
    settings = GraphSettings(steps=20, folds=2, alone=False, entities=EntitySettings(steps=2))
    part = fit_graph_rows(
        tx, build_features(tx, config), config, np.arange(500, len(tx) - 100), settings=settings
    )
    explainer = part.explainer()
    rows = np.arange(len(tx) - 5 * size.nodes, len(tx))
    explainer.explain(rows[:1])
    with stopwatch() as timing:
        explained = explainer.explain(rows)
    return {
        "transaction_ms": timing.cpu * 1e3 / len(rows),
        "transaction_players": float(np.mean([len(one.found.players) for one in explained])),
        "transaction_additivity_max": max(one.found.gap for one in explained),
    }


def summed_up(seeds: Sequence[Mapping[str, Case]]) -> dict[str, float]:
    """Return means over seeds, with the spread of recalls, the worst gap and paired gains."""
    figures: dict[str, float] = {}
    names = list(seeds[0])
    for prefix, chosen in [("", names), *((f"{name}_", [name]) for name in names)]:
        means: dict[str, Reals] = {}
        for key in seeds[0][names[0]].figures:
            whole: Callable[[Any], Any] = np.max if key.endswith("max") else np.mean
            of_seed = [[whole(seed[name].figures[key]) for name in chosen] for seed in seeds]
            means[key] = whole(of_seed, axis=1)
            figures[prefix + key] = float(whole(means[key]))
            if key.endswith("recall"):
                figures[f"{prefix}{key}_sd"] = float(
                    np.std(means[key], ddof=min(1, len(seeds) - 1))
                )
        gain = means["motif_recall"] - means["gnnexplainer_recall"]
        draws = np.random.default_rng(0).integers(len(seeds), size=(10_000, len(seeds)))
        low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
        figures |= {f"{prefix}recall_gain": float(gain.mean()),
                    f"{prefix}recall_gain_low": float(low),
                    f"{prefix}recall_gain_high": float(high)}  # fmt: skip
        held_out = [np.mean([seed[name].accuracy for name in chosen]) for seed in seeds]
        figures[f"{prefix}accuracy"] = float(np.mean(held_out))
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("shap-gnn", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="graphs and nets anew (default 10)")
    args = made.parse_args(argv)
    size, count = (SMALL, 2) if args.smoke else (Size(), 10)
    done = []
    with threads(1):
        for seed in range(args.seed, args.seed + (args.seeds or count)):
            done.append(cases(size, seed))
            for case in done[-1].values():
                measure(case, size, seed)
            # At once, so that a run that is stopped leaves what it had found.
            print(f"seed {seed}: {summed_up(done[-1:])}", file=sys.stderr, flush=True)
        figures = summed_up(done) | transactions(size, args.seed)
    names = ["house", "ring"]
    keys = [key for key in figures if f"house_{key}" in figures]
    table(
        f"planted motifs, {len(done)} seeds, {size.nodes} nodes of each graph, one thread, CPU ms",
        ("figure", "both", *names),
        [(key, figures[key], *(figures[f"{name}_{key}"] for name in names)) for key in keys],
        note=f"GNNExplainer of {size.epochs} epochs",
    )
    emit({"seeds": len(done), "epochs": size.epochs, **figures}, args)


if __name__ == "__main__":
    run_program("shap-gnn", main)
