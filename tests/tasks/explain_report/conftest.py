"""A stranger's model and rows as a subject, with or without what may be missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.explain.background import Background
from tasks.explain.engine import PlayerExplainer
from tasks.explain.player_reasons import player_reasons
from tasks.explain.players import Players
from tasks.explain.record import ModelName, RowFacts, of_players
from tasks.explain.subject import Explained, Subject

NAMES = ("amount", "city", "country", "age", "unused")
WEEK_MS = 7 * 86_400_000


def score(rows):
    return np.asarray(rows[:, 0] + rows[:, 1] * rows[:, 2] - 0.3 * np.tanh(rows[:, 3]))


@pytest.fixture(scope="session")
def subject():
    def build(n=400, seed=0, names=NAMES, **changes):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(n, 5)).astype(np.float32)
        rows[:, 4] = 1.0
        times = 1_514_764_800_000 + np.sort(rng.integers(0, 4 * WEEK_MS, n))
        rows[times > times[0] + 3 * WEEK_MS, 1] *= 3
        held = rng.normal(size=(20, 5)).astype(np.float32)
        held[:, 4] = 1.0
        background = Background(names, held)
        players = Players.grouped(names, {"place": list(names[1:3])})
        thresholds = {"review": 1.0, "block": 2.0}
        model = ModelName("stranger.pt", "", "ab" * 32)
        segments = {"channel": tuple(np.where(rows[:, 0] > 0, "web", "shop").tolist())}
        facts = RowFacts(tuple(f"row-{i}" for i in range(n)), score(rows), times, segments)
        subject = Subject(
            "stranger", model, rows, facts, background, score, lambda *_: None, thresholds,
            outcomes=(score(rows) > 1.5).astype(np.int8), entity=np.arange(n) % 40,
            entity_name="card",
        )  # fmt: skip
        subject = replace(subject, **changes)
        facts = subject.facts

        def explain(places, against=None):
            found = PlayerExplainer(score, against or background, players).explain(rows[places])
            part = RowFacts(
                tuple(facts.keys[p] for p in places), None,
                None if facts.times is None else facts.times[places],
                {s: tuple(v[p] for p in places) for s, v in facts.segments.items()},
            )  # fmt: skip
            record = of_players(found, players, rows[places], part, model=model,
                                thresholds=subject.thresholds)  # fmt: skip
            return Explained(record, player_reasons(record))

        return replace(subject, explain=explain)

    return build
