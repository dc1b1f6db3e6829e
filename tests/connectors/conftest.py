"""What tests of several doors share: an MLflow database of its own, a browser."""

from __future__ import annotations

import shutil
from itertools import count

import numpy as np
import pytest

from tests.connectors.api.browser import Browser

START = 1_700_000_000_000
MLFLOW_WARNINGS = (
    # MLflow checks its own type hints while it is imported, and its database mapping is older
    # than the pinned SQLAlchemy.
    "ignore:.*Any type hint is inferred as AnyType.*:UserWarning",
    "ignore:.*noload.*:DeprecationWarning",
)


def pytest_collection_modifyitems(items):
    for item in items:
        for text in MLFLOW_WARNINGS:
            item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory):
    """Where the database and its files lie."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module", autouse=True)
def mlflow_variables(mlflow_folder):
    """What MLflow reads; taken back after each module, so that no other test works with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", (mlflow_folder / "artifacts").as_uri())
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_folder):
    """A fresh SQLite tracking database."""
    return f"sqlite:///{mlflow_folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def week():
    """Frauds follow the first feature; the second is noise."""
    from connectors.comparison import ComparisonWeek

    rng = np.random.default_rng(3)
    rows = rng.normal(size=(4_000, 4)).astype(np.float32)
    label = (rows[:, 0] + rng.normal(scale=0.4, size=4_000) > 2.2).astype(np.int8)

    def score(bundle, head):
        return bundle.score(rows, head=head)

    return ComparisonWeek(START, START + 7, label, rng.integers(0, 800, 4_000), score)


@pytest.fixture
def dataset(small_bundle, tmp_path):
    """Builder of bundles of a registered model that only this test uses."""
    from tasks.fraud.dataset import DatasetConfig, EntityColumn

    numbers = count()
    name = tmp_path.name.replace("_", "-")[-40:].strip("-")

    def build(active, **changes):
        config = DatasetConfig(name, "time", "amount", (EntityColumn("card"),), label="fraud")
        changes = {"config": config, "metrics": {"n": next(numbers)}} | changes
        return small_bundle(tmp_path / "bundle", active=active, **changes)

    build.name = f"fraud-{name}"
    build.dataset = name
    return build


@pytest.fixture
def browser(end_with_run, tmp_path):
    """A headless Chromium, ended with the test."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium: install the Debian package 'chromium' to open the page in it")
    opened = Browser(chromium, tmp_path / "profile")
    end_with_run(opened.process.pid)
    yield opened
    opened.close()
    end_with_run(-opened.process.pid)
