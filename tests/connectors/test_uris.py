"""URIs lose their login when they are shown, and nothing else."""

from __future__ import annotations

import pytest

from connectors.uris import without_login


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (
            "postgresql+psycopg2://user:secret@db:5432/mlflow",
            "postgresql+psycopg2://db:5432/mlflow",
        ),
        ("postgresql://user:s/e?c@r#et@db/mlflow", "postgresql://db/mlflow"),
        ("postgresql://user@db/mlflow", "postgresql://db/mlflow"),
        (
            "postgresql:///mlflow?host=/run&password=secret",
            "postgresql:///mlflow?host=/run&password=***",
        ),
        ("https://user:s%40cret@mlflow.example/x@y", "https://mlflow.example/x@y"),
        ("HTTPS://user:se@cret@mlflow.example", "HTTPS://mlflow.example"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("file:///srv/a@b", "file:///srv/a@b"),
        ("models:/fraud-bank/3", "models:/fraud-bank/3"),
        (
            "request to https://u:secret@a/b failed, then postgresql://u:secret@c/d too: e@f",
            "request to https://a/b failed, then postgresql://c/d too: e@f",
        ),
    ],
)
def test_only_the_login_goes(uri, shown):
    assert without_login(uri) == shown
