"""Both implementations, each with a store of its own per test."""

from __future__ import annotations

import shutil
from itertools import count

import numpy as np
import pytest

from connectors.online_store import Record, open_store
from connectors.online_store.record import encode_key, encode_value, make_labels
from tests.benchmarks._redis import MISSING, RedisServer


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory, end_with_run):
    """Address of a Redis server that this run started."""
    if shutil.which("redis-server") is None:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, "--maxmemory", "400mb", register=end_with_run)
    server.start()
    yield server.url
    server.stop()


NUMBERS = count()


@pytest.fixture(params=["lmdb", "redis"])
def new_store(request, tmp_path_factory):
    """Opens empty stores of one implementation; all are closed after the test."""
    opened = []

    def url():
        if request.param == "lmdb":
            return f"lmdb://{tmp_path_factory.mktemp('store')}?sync=second"
        return f"{request.getfixturevalue('redis_url')}?prefix=t{next(NUMBERS)}"

    def build():
        opened.append(open_store(url()))
        return opened[-1]

    yield build
    for store in opened:
        store.close()


@pytest.fixture
def store(new_store):
    """An empty store."""
    return new_store()


@pytest.fixture(scope="session")
def record():
    """Builder of small records; the content tells the version, so that torn ones show."""

    def build(entity, version, *, kind="card", part=0, labels=(), size=64, emitted_at=5):
        content = np.full(size, version % 251, np.uint8).tobytes()
        value = encode_value(77, version, emitted_at, content, make_labels(list(labels)))
        return Record(encode_key(kind, entity, part), value)

    return build
