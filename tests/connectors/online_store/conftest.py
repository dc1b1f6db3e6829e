"""Both implementations, each with a store of its own per test."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from connectors.online_store import Record, open_store
from connectors.online_store.record import encode_key, encode_value, make_labels
from infra.services.ports import any_free_port
from tests.benchmarks._redis import MISSING, RedisServer

ROOT = Path(__file__).resolve().parents[3]


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


class Running:
    """A writer process and its pages."""

    def __init__(self, process, port, health):
        self.process, self.port, self.health = process, port, health

    def page(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def until(self, condition, seconds=20):
        """Wait for a condition; the process must live on."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, self.page("/metrics")
            time.sleep(0.05)

    def figure(self, name):
        lines = self.page("/metrics")[1].splitlines()
        return next((float(x.split()[-1]) for x in lines if x.startswith(name)), 0.0)

    def end(self):
        """Ask it to end; returns exit code and what it said."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def start(tmp_path, end_with_run):
    """Starts writer processes, all of which end with the test."""
    running = []

    @contextmanager
    def started(*options):
        port, health = any_free_port(), tmp_path / "health.json"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "connectors.online_store.writer"),
                *("--port", str(port), "--health", str(health), *options),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
            start_new_session=True,
        )
        end_with_run(process.pid)
        running.append(process)
        one = Running(process, port, health)
        one.until(lambda: one.page("/health/ready")[0] == 200)
        yield one

    yield started
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()
        end_with_run(-process.pid)


@pytest.fixture(scope="session", params=["transfers", "handbook"])
def dataset(request):
    """Config, table and transactions: one kind with two roles, and two kinds with one."""
    import pyarrow as pa

    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.ingest.checks import check
    from tasks.fraud.simulate import (
        CARDS_SCHEMA,
        CardsConfig,
        TransfersConfig,
        simulate_cards,
        simulate_transfers,
    )

    folder = ROOT / "tasks" / "fraud" / "datasets"
    config = DatasetConfig.from_toml(folder / f"{request.param}.toml")
    if request.param == "transfers":
        batches = simulate_transfers(TransfersConfig(accounts=60, days=46, rings=1, seed=5))
        table = pa.Table.from_batches(batches)
    else:
        cards = CardsConfig(cards=40, terminals=60, days=45, seed=5, bad_terminals_per_day=0.6)
        table = pa.Table.from_batches(simulate_cards(cards), CARDS_SCHEMA)
    return config, table, check(table, config, "simulated").transactions


@pytest.fixture(scope="session")
def history(dataset):
    """Config and transactions."""
    return dataset[0], dataset[2]
