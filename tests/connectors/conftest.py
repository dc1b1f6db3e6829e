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
def mlflow_uri(tmp_path_factory):
    """A fresh SQLite tracking database; files beside it."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", (folder / "artifacts").as_uri())
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield f"sqlite:///{folder / 'mlflow.db'}"
