"""Where a stream's store lies, and which store it may not write."""

from __future__ import annotations

import pytest

from connectors.flink.serving import require_own_store, store_place
from connectors.flink.spec import StreamSpec
from connectors.online_store import open_store
from connectors.online_store.seed import COVERED_UNTIL
from infra.errors import ConfigurationError, ServiceError
from infra.services.python_services import FROM_ENVIRONMENT, configure_service, program
from infra.settings import Settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("PENSTOCK_STORE_URL", raising=False)
    return Settings(home=tmp_path)


@pytest.fixture
def spec():
    return StreamSpec(name="payments", models="m", model="x", kafka="127.0.0.1:1")


def test_places_of_a_store(settings):
    assert store_place(settings, "lmdb") == f"lmdb://{settings.home}/online-store"
    assert store_place(settings, "redis://127.0.0.1:7/1") == "redis://127.0.0.1:7/1"
    with pytest.raises(ServiceError, match="no Redis runs"):
        store_place(settings, "redis")


def test_a_password_is_not_written_to_a_file(settings):
    with pytest.raises(ConfigurationError, match="holds a password") as raised:
        store_place(settings, "redis://:secret@db.example/0")
    assert "secret" not in str(raised.value)


def test_a_seeded_store_is_not_overwritten_by_a_stream_without_its_history(settings, spec):
    require_own_store(settings, spec, "lmdb")  # there is none yet
    with open_store(store_place(settings, "lmdb")) as store:
        store.put_meta("other", b"1")
    require_own_store(settings, spec, "lmdb")
    with open_store(store_place(settings, "lmdb")) as store:
        store.put_meta(COVERED_UNTIL, b"1")
    with pytest.raises(ConfigurationError, match="stream send"):
        require_own_store(settings, spec, "lmdb")
    require_own_store(settings, spec.with_changes(restore="file:/savepoint"), "lmdb")


def test_a_store_named_by_the_environment_is_not_swapped_for_another(settings, monkeypatch):
    configure_service(settings, "store-writer", {"PENSTOCK_STORE_URL": FROM_ENVIRONMENT})
    with pytest.raises(ConfigurationError, match="is not set here"):
        program(settings, 1, "store-writer", "module")
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://127.0.0.1:7/1")
    assert (
        FROM_ENVIRONMENT not in program(settings, 1, "store-writer", "module").environment.values()
    )
