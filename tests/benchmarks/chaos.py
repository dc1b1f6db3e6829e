"""The stream under kill -9: nothing lost, nothing doubled, the same scores and states as without.

Real processes: broker, ZooKeeper, JobManager, two TaskManagers, Redis, store writer, API, watchdog,
Prefect's server, and a job with Python workers in event-time mode. The traffic is steady, three in
ten payments are one customer's, one in ten goes through the API; some are sent twice, and some
messages are no transactions at all. In every round one part is killed at a random moment, every
part at least once; one is the process of a flow that is upgrading the stream. Nobody mends by hand:
the watchdog brings back what was killed, the check that runs on a schedule the watchdog (here at
once: the wait for the schedule is not in the figures).

Recovery lasts from the kill until a transaction sent after it has a committed score, the API has
answered another one, and the store holds a state published after it. Until every service runs again
takes longer for a TaskManager, which is started once the job is well on the other one; that time is
told apart (``redundancy_max_s``), and the next kill waits for it.
In the end every transaction must have been scored and committed exactly once with the score of the
batch, every bad message be one dead letter, the store hold the states of the batch bit by bit, and
the API give its answers again.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from connectors.flink import operate
from connectors.flink.models import place_model
from connectors.flink.serving import serve
from connectors.flink.spec import StreamSpec, new_epoch
from connectors.online_store.store import open_store
from infra.services.redis_server import redis_url
from infra.services.registry import end_service, start_service, stop_order, with_needs
from infra.services.state import load_state
from infra.settings import HOST, Settings, get_settings
from tasks.fraud.bundle import Bundle
from tasks.fraud.features import state_specs
from tests.benchmarks._chaos_faults import TARGETS, Faults, Health
from tests.benchmarks._chaos_proof import answers_proof, history, scores_proof, states_proof
from tests.benchmarks._chaos_traffic import OUT_OF_ORDER_S, Api, Traffic
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._model import serving_model
from tests.benchmarks.stream_e2e import Reader

ROUNDS, SMOKE_ROUNDS = 12, 1
SERVICES = (
    "prefect",
    "kafka",
    "flink-taskmanager",
    "flink-standby",
    "redis",
    "store-writer",
    "api",
    "watchdog",
)
STREAM = "chaos"
PAUSE_S = (4.0, 10.0)
WARM_UP_S = 10.0
DRAIN_S = 90.0
RULES = {"version": "chaos", "review_at": 0.02, "block_at": 0.16}


def chosen_targets(rounds: int, rng: random.Random) -> list[str]:
    """Return what is killed, round by round: in random order, everything once before any twice."""
    found: list[str] = []
    while len(found) < rounds:
        found += rng.sample(TARGETS, len(TARGETS))
    return found[:rounds]


def begin(settings: Settings, bundle: Bundle) -> StreamSpec:
    """Start services, job and API; returns the job's description."""
    for name in with_needs(SERVICES):
        if name not in ("store-writer", "api"):
            start_service(settings, name)
    state = load_state(settings, "kafka")
    assert state is not None
    placed = place_model(bundle.folder, operate.models_folder(settings))
    spec = StreamSpec(
        name=STREAM,
        models=str(operate.models_folder(settings)),
        model=placed.folder.name,
        rules=RULES,
        kafka=f"{HOST}:{state.port}",
        mode="event-time",
        parallelism=2,
        start="earliest",
        epoch=new_epoch(time.time()),
        out_of_order_ms=OUT_OF_ORDER_S * 1_000,
        idle_ms=15_000,
        checkpoint_s=1.0,
    )
    operate.start(settings, spec)
    serve(settings, spec, str(bundle.folder), store="redis")
    return spec


def run(
    settings: Settings, models: Path, targets: list[str], rng: random.Random, *, smoke: bool
) -> dict[str, Any]:
    """Run everything in a home of its own, and leave no process behind."""
    faults = Faults(settings, STREAM, rng)
    try:
        bundle = serving_model(models, graph=False, smoke=smoke)
        spec = begin(settings, bundle)
        api = Api(settings, settings.home / "api" / "token")
        traffic = Traffic(spec.kafka, STREAM, spec.parallelism, api)
        reader = Reader(spec.kafka, f"penstock.{STREAM}.scores", "read_committed")
        store = open_store(redis_url(settings), read_only=True)
        health = Health(
            settings, traffic, reader, store, state_specs(bundle.config), with_needs(SERVICES)
        )
        reader.start()
        traffic.start()
        traffic.preloaded.wait(120)
        time.sleep(WARM_UP_S)
        rounds = []
        for target in targets:
            time.sleep(rng.uniform(*PAUSE_S))
            found = health.recover(faults.kill(target))
            seconds = max(found[what] for what in ("scores", "api", "store"))
            rounds.append({"killed": target, "seconds": seconds, **found})
            show(rounds[-1])
        traffic.stop.set()
        traffic.join()
        if traffic.failure is not None:
            raise traffic.failure
        changed = answers_proof(traffic)
        drained = drain(traffic, reader)
        tx = history(bundle, traffic)
        proof = scores_proof(spec.kafka, STREAM, bundle, tx, traffic)
        proof |= states_proof(store, bundle, tx)
        reader.stop.set()
        reader.join()
    finally:
        faults.close()
        for name in stop_order(with_needs(SERVICES)):
            end_service(settings, name)
    seconds = [each["seconds"] for each in rounds]
    return {
        "rounds": len(rounds),
        **proof,
        "api_answers": len(api.answered),
        "api_answers_changed": len(changed),
        "api_calls_repeated": api.refused,
        "drain_s": drained,
        "recovery_p50_s": float(np.median(seconds)),
        "recovery_max_s": max(seconds),
        "redundancy_max_s": max(each["services"] for each in rounds),
        "recoveries": rounds,
    }


def drain(traffic: Traffic, reader: Reader) -> float:
    """Wait until every transaction has a committed score; returns the seconds that took."""
    began = time.monotonic()
    while time.monotonic() < began + DRAIN_S and not traffic.sent.keys() <= reader.seen.keys():
        time.sleep(0.5)
    time.sleep(5.0)  # the last states are published
    return time.monotonic() - began - 5.0


def show(found: dict[str, Any]) -> None:
    """Print a round as it ends: a run takes ten minutes."""
    parts = ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in found.items() if name != "killed"
    )
    print(f"killed {found['killed']}: {parts}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    arguments = parser("chaos", "kill -9 under load: lost, doubled, changed, and time to recover")
    arguments.add_argument("--rounds", type=int, default=0, help=f"kills (default {ROUNDS})")
    args = arguments.parse_args(argv)
    rounds = args.rounds or (SMOKE_ROUNDS if args.smoke else ROUNDS)
    base = get_settings().home / "bench"
    base.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=base) as folder:
        settings = Settings(home=Path(folder), flink_slots=2)  # type: ignore[call-arg]
        targets = chosen_targets(rounds, rng)
        result = run(settings, base / "models", targets, rng, smoke=args.smoke)
    table(
        "recovery in seconds",
        ("killed", "recovery", "scores", "api", "store", "services"),
        [tuple(each.values()) for each in result["recoveries"]],
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("chaos", main)
