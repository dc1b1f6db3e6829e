"""Promotion: the better model serves, and whatever breaks, the old champion keeps serving."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.comparison import ComparisonWeek, PromotionRules, on_week
from connectors.fraud_models import FRAUD, fraud_registry
from connectors.promotion import STAGES, PromotionError, promote, roll_back
from connectors.registry import CHALLENGER, CHAMPION, Registry, RegistryError

START = 1_700_000_000_000
GOOD, FAIR, BAD = (3, 0, 0, 0), (1, 1, 0, 0), (-1, 0, 0, 0)


@pytest.fixture(scope="module")
def registry(mlflow_uri):
    return fraud_registry(mlflow_uri)


def aliases(registry, name):
    found = {a: registry.by_alias(name, a) for a in (CHAMPION, CHALLENGER)}
    return {a: v.version for a, v in found.items() if v}


def test_first_better_and_worse_models_and_the_way_back(registry, dataset, week, tmp_path):
    seen = []
    first = promote(registry, dataset(FAIR), on_week(week), cache=tmp_path, on_stage=seen.append)
    assert first.promoted
    assert tuple(seen) == STAGES
    assert first.rival == "logistic baseline"
    assert aliases(registry, dataset.name) == {CHAMPION: "1"}

    better = promote(registry, dataset(GOOD), on_week(week), cache=tmp_path)
    assert better.promoted
    assert better.comparison.low > 0
    assert better.rival == "champion (version 1)"
    version = registry.version(dataset.name, "2")
    assert version.tags["promotion"] == "promoted"
    assert version.tags["previous_champion"] == "1"
    assert "difference +0." in version.tags["promotion_reason"]

    worse = promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    assert not worse.promoted
    assert worse.serving == "2"
    assert worse.to_dict()["comparison"]["high"] < 0
    assert aliases(registry, dataset.name) == {CHAMPION: "2", CHALLENGER: "3"}
    assert registry.version(dataset.name, "3").tags["promotion"] == "rejected"

    back = roll_back(registry, dataset.dataset, reason="alerts doubled")
    assert back.version == "1"
    assert aliases(registry, dataset.name)[CHAMPION] == "1"
    assert registry.version(dataset.name, "2").tags["promotion"] == "rolled back"
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        roll_back(registry, dataset.dataset, reason="again")
    with pytest.raises(RegistryError, match="no champion"):
        roll_back(registry, "never-trained", reason="x")


def test_an_equal_model_wins_only_with_a_margin(registry, dataset, week, tmp_path):
    promote(registry, dataset(GOOD), on_week(week), cache=tmp_path)
    assert not promote(registry, dataset(GOOD), on_week(week), cache=tmp_path).promoted
    lenient = PromotionRules(margin=-0.01)
    assert promote(registry, dataset(GOOD), on_week(week, lenient), cache=tmp_path).promoted
    with pytest.raises(ValueError, match="margin"):
        PromotionRules(margin=2)


def test_the_margin_of_embeddings_is_only_for_a_head_that_reads_them(
    registry, dataset, week, linear_head, tmp_path
):
    from tasks.fraud.bundle.embeddings import Embeddings

    vectors = Embeddings.build(
        {"card": np.array(["a", "b"])}, {"card": np.ones((2, 4), dtype=np.float32)}
    )
    rows = np.random.default_rng(7).normal(size=(32, 4)).astype(np.float32)
    rules = PromotionRules(embeddings_margin=-0.5)
    same = ComparisonWeek(
        week.start, week.end, week.label, week.cluster, lambda *_: week.label.astype(float)
    )
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)

    plain = dataset(GOOD, embeddings=vectors)
    assert not plain.reads_embeddings()
    kept = promote(registry, plain, on_week(same, rules), cache=tmp_path)
    assert not kept.promoted
    assert "must exceed +0.000, as head 'tabular' reads no embeddings" in kept.reason
    assert registry.version(dataset.name, kept.version).tags["promotion_reason"] == kept.reason

    head = {"tabular": linear_head(GOOD, name="embeddings")}
    arrays = {"features": rows, "embeddings": rows}
    head = {"tabular": linear_head(GOOD, name="embeddings")}
    reader = dataset(GOOD, heads=head, embeddings=vectors, example=arrays)
    assert reader.reads_embeddings()
    assert rules.margin_of(reader) == (-0.5, "lower bound must exceed -0.500")
    assert PromotionRules().margin_of(reader) == (0.0, "lower bound must exceed +0.000")
    with pytest.raises(ValueError, match="margin -2"):
        PromotionRules(embeddings_margin=-2)


def test_a_first_model_worse_than_the_baseline_does_not_serve(registry, dataset, week, tmp_path):
    outcome = promote(registry, dataset(BAD), on_week(week), cache=tmp_path)
    assert not outcome.promoted
    assert outcome.serving == ""
    assert outcome.comparison.high < 0
    assert aliases(registry, dataset.name) == {CHALLENGER: "1"}


def test_a_first_model_without_baseline_serves(registry, dataset, week, linear_head, tmp_path):
    bundle = dataset(GOOD, heads={"tabular": linear_head(GOOD)})
    assert promote(registry, bundle, on_week(week), cache=tmp_path).promoted


def test_the_week_must_lie_outside_both_trainings(registry, dataset, week, tmp_path):
    with pytest.raises(PromotionError, match="overlaps the challenger's training"):
        promote(registry, dataset(GOOD, trained_until=START + 1), on_week(week), cache=tmp_path)
    assert promote(
        registry, dataset(GOOD, trained_until=START), on_week(week), cache=tmp_path
    ).promoted
    early = ComparisonWeek(START - 9, START, week.label, week.cluster, week.score)
    outcome = promote(registry, dataset(GOOD), on_week(early), cache=tmp_path)
    assert not outcome.promoted
    assert "learnt from the comparison week" in outcome.reason


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_any_stage_leaves_the_old_champion(registry, dataset, week, tmp_path, stage):
    old = promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)

    def break_down(now):
        if now == stage:
            raise OSError("disk full")

    with pytest.raises(PromotionError, match=f"'{stage}': OSError: disk full.* serves") as caught:
        promote(registry, dataset(GOOD), on_week(week), cache=tmp_path, on_stage=break_down)
    assert caught.value.outcome.failed == stage
    assert aliases(registry, dataset.name) == {CHAMPION: old.version}
    if stage != "publish":
        tags = registry.version(dataset.name, "2").tags
        assert (tags["promotion"], tags["promotion_stage"]) == ("failed", stage)
        assert "disk full" in tags["promotion_reason"]


class BreakingRegistry(Registry):
    """Fails at its ``n``-th request; publishing is done beforehand."""

    def __init__(self, uri, ready, n):
        super().__init__(FRAUD, uri)
        self.ready, self.left = ready, n

    def _request(self):
        self.left -= 1
        if self.left == 0:
            raise ConnectionError("registry went away")

    def publish(self, bundle, **_):
        return self.ready

    def by_alias(self, *a):
        self._request()
        return super().by_alias(*a)

    def set_alias(self, *a):
        self._request()
        return super().set_alias(*a)

    def tag(self, *a):
        self._request()
        return super().tag(*a)

    def fetch(self, *a):
        self._request()
        return super().fetch(*a)

    def smoke_test(self, *a):
        self._request()
        return super().smoke_test(*a)


def test_a_registry_that_fails_once_at_any_request_changes_nothing(
    registry, dataset, week, tmp_path
):
    old = promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    bundle = dataset(GOOD)
    ready = registry.publish(bundle)
    failures = 0
    for n in range(1, 40):
        breaking = BreakingRegistry(registry.uri, ready, n)
        try:
            outcome = promote(breaking, bundle, on_week(week), cache=tmp_path)
        except PromotionError:
            failures += 1
            assert aliases(registry, dataset.name) == {CHAMPION: old.version}, n
        else:
            assert outcome.promoted
            break
    assert failures >= 9
    assert aliases(registry, dataset.name) == {CHAMPION: ready.version}


def test_ctrl_c_restores_the_champion_and_goes_on(registry, dataset, week, tmp_path):
    old = promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)

    def interrupt(now):
        if now == "confirm":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promote(registry, dataset(GOOD), on_week(week), cache=tmp_path, on_stage=interrupt)
    assert aliases(registry, dataset.name) == {CHAMPION: old.version}


def test_a_champion_that_changed_meanwhile_is_not_overwritten(registry, dataset, week, tmp_path):
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)

    def interfere(now):
        if now == "move":
            registry.set_alias(dataset.name, CHAMPION, "2")

    with pytest.raises(PromotionError, match="another promotion"):
        promote(registry, dataset(GOOD), on_week(week), cache=tmp_path, on_stage=interfere)
    assert aliases(registry, dataset.name)[CHAMPION] == "2"


def test_a_broken_challenger_alias_goes_back_to_its_former_version(
    registry, dataset, week, tmp_path
):
    promote(registry, dataset(GOOD), on_week(week), cache=tmp_path)
    promote(registry, dataset(FAIR), on_week(week), cache=tmp_path)

    def break_down(now):
        if now == "compare":
            raise OSError("disk full")

    with pytest.raises(PromotionError):
        promote(registry, dataset(GOOD), on_week(week), cache=tmp_path, on_stage=break_down)
    assert aliases(registry, dataset.name) == {CHAMPION: "1", CHALLENGER: "2"}
