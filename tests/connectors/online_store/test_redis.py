"""What only Redis does: scripts, restarts, time-outs, limits, expiry."""

from __future__ import annotations

import shutil
import socket
import time

import pytest

from connectors.online_store import Answer, StoreError, StoreFullError, open_store
from connectors.online_store.errors import StoreUnavailableError
from tests.benchmarks._redis import MISSING, RedisServer


@pytest.fixture
def server(tmp_path, end_with_run):
    """A server of this test alone."""
    if shutil.which("redis-server") is None:
        pytest.skip(MISSING)
    made = RedisServer(
        tmp_path,
        *("--appendonly", "yes", "--appendfsync", "always", "--requirepass", "secret-word"),
        register=end_with_run,
    )
    made.start()
    yield made
    made.stop()


def address(server, password="secret-word", **options):
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return server.url.replace("redis://", f"redis://:{password}@") + (query and f"?{query}")


def test_a_killed_server_comes_back_with_everything(server, record):
    with open_store(address(server)) as store:
        assert store.write([record("a", 1), record("b", 7)]) == 2
        server.stop()
        with pytest.raises(StoreUnavailableError, match="Start the server"):
            store.read([record("a", 1).key])
        with pytest.raises(StoreUnavailableError):
            store.commit([record("a", 2)], {})
        server.start()
        assert store.read([record("b", 7).key]) == [record("b", 7)]
        assert store.write([record("a", 2), record("b", 6)]) == 1  # the script is loaded again
        assert store.counts() == {"card": 2}


def test_passwords_are_never_shown(server, record):
    with pytest.raises(StoreError, match="login") as caught:
        open_store(address(server, "wrong-word"))
    assert "wrong-word" not in str(caught.value)
    with open_store(address(server)) as store:
        assert "secret" not in store.place
        assert "secret" not in repr(store.options)
        server.stop()
        with pytest.raises(StoreError) as caught:
            store.counts()
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="timeout_ms"):
            open_store(f"redis://127.0.0.1:{port}?timeout_ms=100")
        assert time.monotonic() - begun < 3


def test_no_server_at_all():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        open_store(f"redis://127.0.0.1:{port}")


def test_a_full_server_refuses_and_keeps_what_it_has(server, record):
    with open_store(address(server, prefix="full")) as store:
        store.write([record("a", 1)])
        store._client.config_set("maxmemory", "2mb")
        with pytest.raises(StoreFullError, match="maxmemory"):
            store.write(record(f"e{n}", 1, size=4000) for n in range(2000))
        store._client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreFullError):
            store.commit([record("z", 1)], {1: Answer(b"x", 2**52)})
        assert store.read([record("a", 1).key, record("z", 1).key]) == [record("a", 1), None]
        assert store.answers([1]) == [None]
        store._client.config_set("maxmemory", "0")
        store.commit([record("z", 1)], {1: Answer(b"x", 2**52)})


def test_state_that_nobody_writes_expires(server, record):
    with open_store(address(server, prefix="brief", expire_s=1)) as store:
        store.write([record("a", 1), record("b", 1)])
        time.sleep(0.6)
        store.write([record("b", 2)])
        assert store.counts() == {"card": 2}
        time.sleep(0.6)
        assert store.read([record("a", 1).key, record("b", 2).key]) == [None, record("b", 2)]
        assert store.counts() == {"card": 1}
        assert [r.id for r in store.iterate()] == ["b"]


def test_stores_share_a_server_by_prefix(server, record):
    with (
        open_store(address(server, prefix="one")) as one,
        open_store(address(server, prefix="two")) as two,
    ):
        one.write([record("a", 1)])
        one.put_meta("control", b"1")
        assert two.read([record("a", 1).key]) == [None]
        assert two.get_meta("control") is None
        assert two.counts() == {}
        assert list(two.iterate()) == []
