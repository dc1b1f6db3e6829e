"""The refresh flow: embeddings and the head that fits them change together or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import compute, parquet

pytestmark = pytest.mark.long

NETWORK = {
    "steps": 12,
    "batch": 64,
    "negatives": 7,
    "hidden": 8,
    "slots": 2,
    "folds": 2,
    "entities": {"steps": 2, "events": 64, "hidden": 8, "embedding": 4},
}
DAY_S = 86_400
DAY_MS = 1_000 * DAY_S


@pytest.fixture(scope="module")
def graph_bank(small_bank, settings, prefect_server, mlflow_server):
    """A bank whose champion was trained five days ago and reads embeddings."""
    from connectors.fraud_models import fraud_registry
    from flows.train_fraud import train_fraud

    bank = small_bank("refreshbank")
    table = parquet.read_table(bank.data)
    earlier = bank.folder / "earlier.parquet"
    parquet.write_table(table.filter(compute.less(table["t"], 47 * DAY_S)), earlier)
    chosen = settings | {"network": NETWORK}
    with pytest.MonkeyPatch.context() as patch:
        # On so little data either head may win; what is tested needs the one with embeddings.
        patch.setattr("tasks.fraud.evaluation.choice.CANDIDATES", ("both",))
        record = train_fraud(str(earlier), str(bank.config), chosen | {"graph": True})
        version, bundle = fraud_registry().champion("refreshbank", bank.folder / "cache")
        assert bundle.active == "both"
        yield SimpleNamespace(bank=bank, settings=chosen, record=record, version=version)


def champion(bank):
    from connectors.fraud_models import fraud_registry

    return fraud_registry().champion(bank.config.stem, bank.folder / "cache")


def refresh(given, **more):
    from flows.refresh_embeddings import refresh_embeddings

    return refresh_embeddings(
        str(given.bank.data), str(given.bank.config), dict(given.settings), **more
    )


def runs_and_work(dataset):
    """Ids of the dataset's runs, and the folders of all finished and unfinished steps."""
    from mlflow import MlflowClient

    from infra.settings import get_settings

    client = MlflowClient()
    experiment = client.get_experiment_by_name(f"penstock/{dataset}").experiment_id
    runs = {run.info.run_id for run in client.search_runs([experiment])}
    return runs, set((get_settings().home / "work").glob("*/*"))


def test_a_refreshed_model_that_may_be_worse_does_not_serve(graph_bank):
    from connectors.fraud_models import fraud_registry
    from connectors.registry import CHALLENGER

    # Nothing is worse by more than nothing on the certain side: an interval holds its own middle.
    made = refresh(graph_bank, not_worse_by=0.0)
    version, bundle = champion(graph_bank.bank)
    assert not made["refreshed"]
    assert not made["replaced"]
    assert made["serving"] == version.version == graph_bank.version.version
    assert "lower bound must exceed" in made["reason"]
    assert f"champion (version {version.version})" in made["reason"]
    assert bundle.self_check() <= 1e-5
    rejected = fraud_registry().by_alias(version.name, CHALLENGER)
    assert rejected is not None
    assert rejected.version == made["training"]["promotion"]["version"]
    assert rejected.tags["promotion"] == "rejected"
    assert rejected.tags["promotion_reason"] == made["reason"]


def test_embeddings_and_head_are_swapped_in_one_promotion(graph_bank):
    from connectors.fraud_models import fraud_registry

    _, before = champion(graph_bank.bank)
    made = refresh(graph_bank, not_worse_by=0.5)
    version, after = champion(graph_bank.bank)
    assert made["refreshed"], made["reason"]
    assert made["serving"] == version.version != graph_bank.version.version
    assert version.tags["promotion"] == "promoted"
    assert version.tags["previous_champion"] == graph_bank.version.version
    assert version.digest == after.digest == made["training"]["trained"]["digest"] != before.digest
    # The embeddings are of a later day, of another network, and know more entities.
    assert after.manifest.trained_until == before.manifest.trained_until + 5 * DAY_MS
    for kind, old in before.embeddings.kinds.items():
        new = after.embeddings.kinds[kind]
        common, at_old, at_new = np.intersect1d(old.ids, new.ids, return_indices=True)
        assert len(new.ids) >= len(old.ids) == len(common) > 0
        assert not np.allclose(old.vectors[at_old], new.vectors[at_new])
    # The head came along: the bundle's example holds only with its own embeddings.
    assert after.active == "both"
    assert after.self_check() <= 1e-5
    inputs, expected = after.example()
    assert "embeddings" in inputs
    assert not np.allclose(before.score(**inputs), expected, atol=1e-4)
    assert fraud_registry().smoke_test(version) <= 1e-5


def test_refreshing_again_on_the_same_data_changes_nothing(graph_bank):
    version, _ = champion(graph_bank.bank)
    made = refresh(graph_bank, not_worse_by=0.5)
    assert not made["refreshed"]
    assert made["reason"] == "this bundle serves already"
    assert made["serving"] == version.version == champion(graph_bank.bank)[0].version


def test_the_page_in_prefect_says_what_serves(graph_bank):
    from prefect.artifacts import Artifact

    made = refresh(graph_bank, not_worse_by=0.5)
    page = Artifact.get("fraud-refreshbank-refresh").data
    assert f"Version {made['serving']} serves" in page
    assert made["reason"] in page


def test_a_head_without_embeddings_gets_no_allowance(graph_bank, monkeypatch):
    from connectors.fraud_models import fraud_registry
    from flows.artifacts import refresh_summary

    before, _ = champion(graph_bank.bank)
    monkeypatch.setattr("tasks.fraud.evaluation.choice.CANDIDATES", ("tabular",))
    other = SimpleNamespace(
        bank=graph_bank.bank, settings=graph_bank.settings | {"background_rows": 31}
    )
    made = refresh(other, not_worse_by=0.5)
    promotion = made["training"]["promotion"]
    assert made["training"]["trained"]["active"] == "tabular"
    assert not promotion["promoted"]
    assert "must exceed +0.000, as head 'tabular' reads no embeddings" in made["reason"]
    assert not made["refreshed"]
    assert not made["replaced"]
    assert made["serving"] == before.version == champion(graph_bank.bank)[0].version
    kept = fraud_registry().version(before.name, promotion["version"])
    assert kept.tags["promotion_reason"] == made["reason"]
    page = Path(made["training"]["report"]).read_text()
    assert "reads no embeddings" in page
    assert "**as they were**" in refresh_summary(made)


def test_a_better_head_without_embeddings_is_not_said_to_be_a_refresh(small_bundle, tmp_path):
    from flows.artifacts import refresh_summary
    from flows.refresh_embeddings import decision

    bundle = small_bundle(tmp_path / "bundle")
    promotion = {"promoted": True, "version": "2", "serving": "2", "reason": "better beyond doubt"}
    made = decision({"promotion": promotion, "bundle": str(bundle.folder)}, before="1")
    assert not made["refreshed"]
    assert made["replaced"]
    page = refresh_summary(made)
    assert "**replaced by a head that reads no embeddings**" in page
    assert "Version 2 serves" in page


def test_nothing_is_trained_where_the_serving_head_reads_no_embeddings(trained, settings):
    from flows.refresh_embeddings import refresh_embeddings

    bank, record = trained
    before = champion(bank)[0].version
    runs, work = runs_and_work("flowbank")
    made = refresh_embeddings(str(bank.data), str(bank.config), settings)
    assert runs
    assert work
    assert runs_and_work("flowbank") == (runs, work)
    assert record["trained"]["active"] == "tabular"
    assert not made["refreshed"]
    assert made["training"] is None
    assert made["serving"] == before == champion(bank)[0].version
    assert made["reason"] == (
        f"nothing to refresh: head 'tabular' of the serving version {before} reads no embeddings"
    )


def test_without_a_champion_it_fails_and_says_what_to_do(small_bank, settings, prefect_server,
                                                         mlflow_server):  # fmt: skip
    from connectors.registry import RegistryError
    from flows.refresh_embeddings import refresh_embeddings

    bank = small_bank("firstbank")
    with pytest.raises(
        RegistryError, match=r"no champion of fraud-firstbank.*penstock fraud train"
    ):
        refresh_embeddings(str(bank.data), str(bank.config), settings)


def test_a_negative_allowance_is_refused(trained, settings):
    from flows.refresh_embeddings import refresh_embeddings

    bank, _ = trained
    with pytest.raises(ValueError, match=r"not_worse_by must be at least 0, got -0\.1"):
        refresh_embeddings(str(bank.data), str(bank.config), settings, not_worse_by=-0.1)
