"""An MLflow database of its own for tests of tracking, registry and promotion."""

from __future__ import annotations

import pytest

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
