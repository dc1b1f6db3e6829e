"""What a promotion leaves when the undo fails too or it is killed, and how that is mended."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from connectors.comparison import on_week
from connectors.fraud_models import fraud_registry
from connectors.promotion import STAGES, PromotionError, promote, roll_back
from connectors.registry import CHALLENGER, CHAMPION

ROOT = Path(__file__).resolve().parents[2]
GOOD, FAIR = (3, 0, 0, 0), (1, 1, 0, 0)


@pytest.fixture(scope="module")
def registry(mlflow_uri):
    return fraud_registry(mlflow_uri)


def aliases(registry, name):
    found = {a: registry.by_alias(name, a) for a in (CHAMPION, CHALLENGER)}
    return {a: v.version for a, v in found.items() if v}


@pytest.mark.parametrize("stage", STAGES)
def test_a_registry_that_stays_away_is_not_said_to_serve_as_before(
    registry, dataset, week, tmp_path, stage
):
    old = promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    away = fraud_registry(registry.uri)

    def leave(*_):
        raise ConnectionError("registry went away")

    def go_away(now):
        if now == stage:
            away.by_alias = away.set_alias = away.drop_alias = away.tag = leave
            raise ConnectionError("registry went away")

    with pytest.raises(PromotionError) as caught:
        promote(away, dataset(GOOD), on_week(week), cache=tmp_path, on_stage=go_away)
    outcome, message = caught.value.outcome, str(caught.value)
    moved = stage == "confirm"
    assert aliases(registry, dataset.name).get(CHAMPION) == ("2" if moved else old.version)
    # At "move" nobody can tell from here whether the request arrived before the registry left.
    assert (CHAMPION in outcome.unrestored) == (stage in {"move", "confirm"})
    assert (CHALLENGER in outcome.unrestored) == (stage != "publish")
    assert ("serves as before" in message) == (CHAMPION not in outcome.unrestored)
    assert outcome.serving == ("" if CHAMPION in outcome.unrestored else old.version)
    for alias, call in outcome.unrestored.items():
        assert f"alias '{alias}' may point to version 2" in message
        assert call in message
        eval(call, {"mlflow": __import__("mlflow")})
    assert aliases(registry, dataset.name) == {CHAMPION: old.version}


KILLED = """
import os, signal, sys
from pathlib import Path

import numpy as np

from connectors.comparison import ComparisonWeek, on_week
from connectors.fraud_models import fraud_registry
from connectors.promotion import promote
from tasks.fraud.bundle import Bundle

uri, folder, cache, rows, stage, method = sys.argv[1:]
kept = np.load(rows)


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


registry = fraud_registry(uri)
if method:
    setattr(registry, method, kill)
score = lambda bundle, head: bundle.score(kept["rows"], head=head)
start = int(kept["start"])
week = ComparisonWeek(start, start + 7, kept["label"], kept["cluster"], score)
promote(
    registry, Bundle.load(Path(folder)), on_week(week), cache=Path(cache),
    on_stage=lambda now: kill() if now == stage else None,
)
"""


def promote_and_die(registry, bundle, week, cache, *, stage="", method=""):
    """Promote in a process that is killed at a stage, or when it calls the registry's method."""
    np.savez(
        cache / "week.npz",
        rows=inspect.getclosurevars(week.score).nonlocals["rows"],
        start=week.start,
        label=week.label,
        cluster=week.cluster,
    )
    given = (registry.uri, bundle.folder, cache, cache / "week.npz", stage, method)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, given)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("kill", [{"stage": "confirm"}, {"method": "drop_alias"}])
def test_a_promotion_killed_after_the_move_is_completed_by_the_next(
    registry, dataset, week, tmp_path, kill
):
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    bundle = dataset(GOOD)
    promote_and_die(registry, bundle, week, tmp_path, **kill)
    assert aliases(registry, dataset.name) == {CHAMPION: "2", CHALLENGER: "2"}

    again = promote(registry, bundle, on_week(week), cache=tmp_path)
    assert again.promoted
    assert again.version == again.serving == "2"
    assert aliases(registry, dataset.name) == {CHAMPION: "2"}
    tags = registry.version(dataset.name, "2").tags
    assert (tags["promotion"], tags["previous_champion"]) == ("promoted", "1")
    assert "difference +0." in tags["promotion_reason"]
    assert (
        promote(registry, bundle, on_week(week), cache=tmp_path).reason
        == "this bundle serves already"
    )
    assert roll_back(registry, dataset.dataset, reason="alerts doubled").version == "1"
    assert aliases(registry, dataset.name) == {CHAMPION: "1"}


@pytest.mark.long
def test_a_killed_promotion_can_be_rolled_back_at_once(registry, dataset, week, tmp_path):
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    promote_and_die(registry, dataset(GOOD), week, tmp_path, stage="confirm")
    assert roll_back(registry, dataset.dataset, reason="half promoted").version == "1"


@pytest.mark.long
def test_a_killed_promotion_that_cannot_be_confirmed_gives_way_to_the_old_champion(
    registry, dataset, week, tmp_path
):
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    bundle = dataset(GOOD)
    promote_and_die(registry, bundle, week, tmp_path, stage="confirm")

    def break_down(now):
        raise OSError("disk full")

    with pytest.raises(PromotionError, match=r"'confirm': OSError: disk full; version 1 serves"):
        promote(registry, bundle, on_week(week), cache=tmp_path, on_stage=break_down)
    assert aliases(registry, dataset.name) == {CHAMPION: "1"}
    assert registry.version(dataset.name, "2").tags["promotion"] == "failed"


def test_a_reason_shows_no_login(registry, dataset, week, tmp_path):
    def break_down(now):
        if now == "smoke":
            raise OSError("no answer from https://user:secret@mlflow.example/api")

    with pytest.raises(PromotionError, match=r"no answer from https://mlflow\.example/api"):
        promote(registry, dataset(GOOD), on_week(week), cache=tmp_path, on_stage=break_down)
    reason = registry.version(dataset.name, "1").tags["promotion_reason"]
    assert reason.endswith("no answer from https://mlflow.example/api")
