"""A fraud head trained over branches that show nobody their rows, against one that sees them all.

Ten branches share the simulated card payments by terminal: of uneven sizes, and with the frauded
terminals shared out apart. A branch computes features from its own payments and labels alone; all
ways train the same network on these and are judged on the same later payments. One bank with all
rows, and every branch alone, train for several numbers of epochs of which the best on the test
counts, in their favour; the branches together train once by the plan. One bank that computes
features over all payments as well is trained beside them, for the fewest epochs: what keeping apart
costs in features.

The sum of every round is compared, bit for bit, with the sum of what the branches quantised. In the
runs with drop-outs some of ten branches fail at a random message of every round: three of them in
a whole training, one to five in short ones that count the rounds whose sum was right. Sums of all
seeds run in this process, message by message as over the line; time and bytes are of processes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import t as student

from connectors.private.federated.branch_client import CoordinatorAddress
from connectors.private.federated.coordinator import Coordinator
from connectors.private.federated.local_branches import LocalBranches
from tasks.fraud.branch_features import branch_features
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.evaluation.metrics import roc_auc
from tasks.fraud.features import build_features
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards
from tasks.fraud.transactions import Transactions
from tasks.privacy.federated.branch_round import STAGES
from tasks.privacy.federated.branch_work import BranchWork, train_locally
from tasks.privacy.federated.moments import encoding_from, row_sums
from tasks.privacy.federated.plan import Privacy, TrainingPlan
from tasks.privacy.federated.records import Request
from tasks.privacy.federated.secure_sum import TooFewBranchesError
from tasks.privacy.federated.simulate import Simulation, simulation
from tasks.privacy.federated.split import split_by_entity
from tasks.privacy.federated.training import FederatedTraining
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table

CONFIG = DatasetConfig.from_toml(
    Path(__file__).resolve().parents[2] / "tasks" / "fraud" / "datasets" / "handbook.toml"
)
BRANCHES, THRESHOLD, COLLUDING, LEAVING = 10, 7, 1, 3
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of the branches: how many fail in a round."""
DAY = 86_400_000
TEST_DAYS, DELAY_DAYS, WARM_DAYS = 14, 7, 7

Part = tuple[NDArray[np.float32], NDArray[np.int8]]


@dataclass(frozen=True)
class Bank:
    """Rows of one seed.

    Attributes:
        columns: Names of the features.
        parts: Training rows of each branch.
        test: Later rows, of all.
        whole: Training and later rows with features computed over the payments of all branches.
    """

    columns: tuple[str, ...]
    parts: list[Part]
    test: Part
    whole: tuple[Part, Part]

    @property
    def together(self) -> Part:
        """Training rows of all branches."""
        return np.concatenate([x for x, _ in self.parts]), np.concatenate(
            [y for _, y in self.parts]
        )


def payments(cards: int, days: int, seed: int) -> Transactions:
    """Return simulated payments."""
    bank = CardsConfig(cards=cards, terminals=2 * cards, days=days, seed=seed)
    rows = pa.Table.from_batches(list(simulate_cards(bank)), CARDS_SCHEMA)
    return check(rows, CONFIG, "simulated").transactions


def grown(cards: int, days: int, seed: int) -> Bank:
    """Return the rows of a seed, shared out; labels of the test's last week are not trained on."""
    tx = payments(cards, days, seed)
    day = (tx.time - tx.time[0]) // DAY
    train = (day >= WARM_DAYS) & (day < days - TEST_DAYS - DELAY_DAYS)
    test = day >= days - TEST_DAYS
    branch = split_by_entity(tx.entities["terminal"], tx.label, BRANCHES, seed, training=train)
    features = branch_features(tx, branch, CONFIG)
    over_all = build_features(tx, CONFIG).values
    own = [train & (branch == place) for place in range(BRANCHES)]
    return Bank(
        features.names,
        [(features.values[rows], tx.label[rows]) for rows in own],
        (features.values[test], tx.label[test]),
        ((over_all[train], tx.label[train]), (over_all[test], tx.label[test])),
    )


def alone(plan: TrainingPlan, part: Part, test: Part, grid: Sequence[int]) -> float:
    """Return the best AUC on the test of a training without others, over numbers of epochs."""
    x, y = part
    encoding = encoding_from(plan.columns, row_sums(x))
    inputs, labels, network = encoding.encode(x), y.astype(np.float64), plan.network
    later = encoding.encode(test[0])
    found = []
    for epochs in grid:
        parameters = network.initial(plan.seed)
        for epoch in range(epochs):
            parameters = train_locally(
                network, parameters, inputs, labels, plan.local,
                seed=(plan.seed, epoch), progress=epoch / epochs,
            )  # fmt: skip
        found.append(roc_auc(test[1], network.logits(parameters, later)))
    return max(found)


class Witness(BranchWork):
    """Work that keeps what it gave, before any mask."""

    def steps(self, task: str, round_number: int, content: bytes) -> NDArray[np.int64]:
        self.given = super().steps(task, round_number, content)
        return self.given


@dataclass
class Outcome:
    """What a training came to.

    Attributes:
        auc: On the test.
        equal: Whether every sum was, bit for bit, that of its parts.
        survivors: Branches in each sum.
        epsilon: Spent.
    """

    auc: float
    equal: bool
    survivors: list[int]
    epsilon: float


def over_branches(plan: TrainingPlan, bank: Bank, seed: int, leaving: int) -> Simulation:
    """Return a training in every sum of which some branches fail at a random message."""
    rng = np.random.default_rng([seed, 77])
    absent: dict[int, dict[int, str]] = {}

    def leaves(stage: str, number: int, place: int) -> bool:
        if number not in absent:
            who = rng.choice(BRANCHES, leaving, replace=False)
            absent[number] = {int(p): str(rng.choice(STAGES)) for p in who}
        at = absent[number].get(place)
        return at is not None and STAGES.index(stage) >= STAGES.index(at)

    made = simulation(plan, bank.parts, threshold=THRESHOLD, colluding=COLLUDING, leaves=leaves)
    for branch, (x, y) in zip(made.branches, bank.parts, strict=True):
        branch.work = Witness(plan, branch.roster, branch.work.name, x, y)
    return made


def right_rounds(plan: TrainingPlan, bank: Bank, seed: int, leaving: int) -> float:
    """Return the share of rounds that ended with the sum of their survivors' steps."""
    made, right = over_branches(plan, bank, seed, leaving), 0
    for _ in range(plan.rounds):
        try:
            made.training.step()
        except TooFewBranchesError:
            continue
        right += same(made)
    return right / plan.rounds


def together(plan: TrainingPlan, bank: Bank, seed: int, *, leaving: int = 0) -> Outcome:
    """Train over the branches."""
    made = over_branches(plan, bank, seed, leaving)
    equal, survivors, report = True, [], None
    while not made.training.finished:
        report = made.training.step()
        equal &= same(made)
        survivors.append(len(report.survivors))
    auc = roc_auc(bank.test[1], made.training.model.logits(bank.test[0]))
    return Outcome(auc, equal, survivors, report.epsilon if report else 0.0)


def same(made: Simulation) -> bool:
    """Tell whether the last sum is that of its survivors' steps."""
    total = made.training.last
    assert total is not None
    plain = np.sum([made.branches[place].work.given for place in total.survivors], axis=0)
    return bool(np.array_equal(plain, total.steps))


def private(plan: TrainingPlan, bank: Bank, rounds: int, other: Transactions) -> TrainingPlan:
    """Return the plan with noise; features are scaled by another bank's payments."""
    rows = sum(len(y) for _, y in bank.parts)
    return TrainingPlan(
        plan.columns,
        hidden=(16,),
        rounds=rounds,
        private=Privacy(rows=rows, rate=0.05, noise=1.5, learning_rate=4.0),
        scaling=encoding_from(plan.columns, row_sums(build_features(other, CONFIG).values)),
    )


def one_seed(args: Any, seed: int) -> dict[str, Any]:
    """Measure one seed."""
    bank = grown(args.cards, args.days, seed)
    plan = TrainingPlan(bank.columns, rounds=args.rounds)
    grid = [max(1, args.rounds // part) for part in (6, 2, 1)]
    whole = together(plan, bank, seed)
    shrunk = together(plan, bank, seed, leaving=LEAVING)
    other = payments(args.cards // 5, 40, seed + 1_000)
    noisy = together(private(plan, bank, args.private_rounds, other), bank, seed)
    # The scaling is stated, so that every round counts for itself.
    known = encoding_from(plan.columns, row_sums(bank.together[0]))
    short = replace(plan, rounds=max(1, args.rounds // 10), scaling=known)
    right = [right_rounds(short, bank, seed, round(share * BRANCHES)) for share in SHARES]
    rates, sizes = ([f(y) for _, y in bank.parts] for f in (np.mean, len))
    return {
        "auc_central": alone(plan, bank.together, bank.test, grid),
        "auc_central_all_features": alone(plan, *bank.whole, grid[:1]),
        "auc_fed": whole.auc,
        "auc_fed_dropouts": shrunk.auc,
        "auc_local": float(np.mean([alone(plan, p, bank.test, grid) for p in bank.parts])),
        "auc_fed_dp": noisy.auc,
        "epsilon": noisy.epsilon,
        "bit_equal": whole.equal and shrunk.equal and noisy.equal,
        "sums": len(whole.survivors) + len(shrunk.survivors) + len(noisy.survivors),
        "fewest": min(shrunk.survivors),
        "right_rounds": right,
        "rows_min": min(sizes),
        "rows_max": max(sizes),
        "fraud_rate_min": min(rates),
        "fraud_rate_max": max(rates),
    }


def processes(args: Any) -> dict[str, Any]:
    """Time rounds of real processes, and kill three of ten in the middle of one."""
    count, threshold, killed = (3, 2, 1) if args.smoke else (BRANCHES, THRESHOLD, LEAVING)
    bank = grown(args.cards, args.days, args.seed)
    plan = TrainingPlan(bank.columns, rounds=args.rounds + 2)
    parts = {f"branch-{i:02d}": part for i, part in enumerate(bank.parts[:count])}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalBranches(Path(folder), parts, threshold=threshold) as branches,
        Coordinator(plan, branches.roster) as coordinator,
    ):
        branches.start(plan, CoordinatorAddress("127.0.0.1", coordinator.port))
        coordinator.wait_for(count, 120)
        doomed: list[str] = []

        def ask(requests: dict[int, Request]) -> dict[int, bytes]:
            if next(iter(requests.values())).stage == "values":
                while doomed:
                    branches.kill(doomed.pop())
            return coordinator.ask(requests)

        training = FederatedTraining(
            plan, branches.roster, ask, coordinator.present, coordinator.nonce
        )
        training.step()
        with stopwatch() as took:
            reports = [training.step() for _ in range(args.rounds - 1)]
        doomed += list(parts)[:killed]
        begun = time.perf_counter()
        shrunk = training.step()
        after = training.step()
    return {
        "seconds_per_round": float(np.median([report.seconds for report in reports])),
        "coordinator_cpu_ms_per_round": 1e3 * took.cpu / len(reports),
        "seconds_of_rounds_after_kill": time.perf_counter() - begun,
        "bytes_up_per_round": max(report.up for report in reports),
        "bytes_down_per_round": max(report.down for report in reports),
        "parameters": plan.network.parameters,
        "killed": len(shrunk.left),
        "process_survivors": [len(shrunk.survivors), len(after.survivors)],
    }


def interval(values: Sequence[float]) -> list[float]:
    """Return Student's 95 % interval of a mean; of one value it is that value."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return [mean, mean]
    half = float(student.ppf(0.975, count - 1) * np.std(values, ddof=1)) / count**0.5
    return [mean - half, mean + half]


def survived(right: Sequence[float]) -> float:
    """Return the highest share of drop-outs up to which every round ended with the right sum."""
    failed = [share for share, part in zip(SHARES, right, strict=True) if part < 1]
    return max((share for share in SHARES if share < min(failed, default=1.0)), default=0.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("federated", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="seeds (default 10)")
    args = made.parse_args(argv)
    seeds = args.seeds or (1 if args.smoke else 10)
    small = (160, 32, 2, 2) if args.smoke else (1_500, 60, 30, 200)
    args.cards, args.days, args.rounds, args.private_rounds = small
    found = [one_seed(args, args.seed + i) for i in range(seeds)]
    columns = {key: [one[key] for one in found] for key in found[0]}
    aucs = [key for key in columns if key.startswith("auc_")]
    if not args.json:
        rows = [[args.seed + i, *(one[key] for key in aucs)] for i, one in enumerate(found)]
        table("AUC on the same later payments", ("seed", *aucs), rows)
    gap = np.subtract(columns["auc_central"], columns["auc_fed"])
    dropped = np.subtract(columns["auc_fed"], columns["auc_fed_dropouts"])
    apart = np.subtract(columns["auc_central_all_features"], columns["auc_fed"])
    right = np.min(columns["right_rounds"], axis=0)  # of the worst seed
    figures: dict[str, Any] = {key: float(np.mean(columns[key])) for key in aucs}
    figures |= {f"{key}_std": float(np.std(columns[key])) for key in aucs}
    figures |= {
        "auc_gap": float(gap.mean()),
        "auc_gap_interval": interval(gap),
        "auc_gap_to_all_features": float(apart.mean()),
        "auc_gap_to_all_features_interval": interval(apart),
        "auc_dropout_loss_interval": interval(dropped),
        "auc_gain_over_local": figures["auc_fed"] - figures["auc_local"],
        "bit_equal": all(columns["bit_equal"]),
        "sums_compared": sum(columns["sums"]),
        "dropouts_survived": survived(right),
        "dropout_shares": SHARES,
        "right_rounds": right.tolist(),
        "fewest_survivors": min(columns["fewest"]),
        "epsilon": max(columns["epsilon"]),
        "delta": 1e-6,
        "branches": BRANCHES,
        "threshold": THRESHOLD,
        "seeds": seeds,
    }
    for key in ("rows_min", "rows_max", "fraud_rate_min", "fraud_rate_max"):
        figures[f"{key}_median"] = float(np.median(columns[key]))
    emit(figures | processes(args), args)


if __name__ == "__main__":
    run_program("federated", main)
