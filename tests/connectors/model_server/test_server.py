"""The model server as a real process over real sockets."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest

from connectors.model_server.client import (
    BusyError,
    Client,
    NotAllowedError,
    NotReachedError,
    NotThereError,
    RequestError,
)
from connectors.model_server.messages import HEADER_LENGTH, pack
from connectors.model_server.server import main
from tests.benchmarks._api_server import ModelServerProcess
from tests.onnx_files import centred, dense, looked_up, put, same, scaled
from tests.processes import alive, wait_for

SECRETS = {"asks": "asks-0123456789abcdefg", "reads": "reads-0123456789abcdef"}
TOKENS = f"asks:score:{SECRETS['asks']},reads:read:{SECRETS['reads']}"
X = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture(scope="module")
def start(tmp_path_factory, end_with_run):
    """Starts servers; all of them end with the module."""
    started = []

    def begin(serve, *, wait=True, **settings):
        home = tmp_path_factory.mktemp("server")
        server = ModelServerProcess(home, {"serve": serve, **settings}, TOKENS)
        started.append(server)
        end_with_run(server.process.pid)
        if wait:
            server.wait_ready()
        return server

    yield begin
    for server in started:
        server.stop()
        server.kill()
        end_with_run(-server.process.pid)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models; version 2 of ``scaled`` serves."""
    folder = tmp_path_factory.mktemp("models")
    put(folder, "scaled", 1, scaled(2.0))
    put(folder, "scaled", 2, scaled(3.0))
    put(folder, "centred", 1, centred())
    put(folder, "table", 1, looked_up())
    for kind in ("FP16", "BOOL", "INT8", "UINT64", "FP64", "BYTES"):
        put(folder, f"same-{kind}", 1, same(kind))
    return folder


@pytest.fixture(scope="module")
def server(start, models):
    return start(models, max_body_mib=1, bodies_mib=4, max_elements=50_000, reload_seconds=0.2)


@pytest.fixture
def client(server):
    with Client(server.url, SECRETS["asks"]) as made:
        yield made


def body(array=X, name="x", **members):
    entry = {
        "name": name,
        "datatype": "FP32",
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }
    return {"inputs": [entry], **members}


def infer(server, content, path="/v2/models/scaled/infer", **changes):
    return server.call("POST", path, content, **{"token": SECRETS["asks"], **changes})


def test_what_the_protocol_says_of_server_and_models(server, client):
    assert client.metadata()["extensions"] == ["binary_tensor_data"]
    assert client.ready()
    assert client.ready("scaled")
    assert client.ready("scaled", "1")
    assert not client.ready("scaled", "9")
    said = client.metadata("scaled")
    assert said["versions"] == ["1", "2"]
    assert said["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert said["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
    assert said["parameters"]["version"] == "2"
    assert said["parameters"]["batching"] is True
    assert client.metadata("scaled", "1")["parameters"]["version"] == "1"
    assert client.metadata("centred")["parameters"]["batching"] is False
    assert client.models()["scaled"] == ["1", "2"]
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert server.call("GET", path, token="").status == 200  # a probe has no token


@pytest.mark.parametrize("binary", [True, False])
def test_one_line_asks_a_model(client, binary):
    got = client.infer("scaled", {"x": X}, binary=binary)
    np.testing.assert_array_equal(got["y"], 3 * X)
    assert got["y"].dtype == np.float32
    old = client.infer("scaled", {"x": X}, version="1", outputs=["y"], binary=binary)
    np.testing.assert_array_equal(old["y"], 2 * X)
    apart = client.infer("centred", {"x": np.vstack([X, 3 * X])}, binary=binary)
    np.testing.assert_array_equal(apart["y"], np.vstack([-X, X]))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("FP16", np.array([[0.5, -2.0]], np.float16)),
        ("BOOL", np.array([[True, False]])),
        ("INT8", np.array([[-128, 127]], np.int8)),
        ("UINT64", np.array([[0, 2**64 - 1]], np.uint64)),
        ("FP64", np.array([[1e300, -0.1]])),
        ("BYTES", np.array([["ä", ""]], object)),
    ],
)
def test_datatypes_go_there_and_back(client, kind, values, binary):
    got = client.infer(f"same-{kind}", {"x": values}, binary=binary)["y"]
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values)


def test_an_answer_is_of_the_protocol(server):
    answer = infer(server, body(id="mine"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.data == {
        "model_name": "scaled",
        "model_version": "2",
        "id": "mine",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [3.0, 6.0, 9.0, 12.0]}
        ],
    }
    content, length = pack({"parameters": {"binary_data_output": True}}, "inputs", {"x": X}, None)
    answer = infer(
        server, content, headers={HEADER_LENGTH: length, "content-type": "application/octet-stream"}
    )
    head = int(answer.headers[HEADER_LENGTH])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert json.loads(answer.body[:head])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    np.testing.assert_array_equal(np.frombuffer(answer.body[head:], np.float32), 3 * X[0])


def test_nan_travels_as_raw_bytes_and_not_as_json(client):
    x = np.array([[np.nan, np.inf, 0, 1]], np.float32)
    np.testing.assert_array_equal(client.infer("scaled", {"x": x})["y"], 3 * x)
    with pytest.raises(RequestError, match="binary=True"):
        client.infer("scaled", {"x": x}, binary=False)
    big = np.full((1, 4), 3e38, np.float32)  # its answer is infinite
    assert np.isnan(client.infer("scaled", {"x": big}, binary=False)["y"]).all()


@pytest.mark.parametrize(
    ("content", "path", "status", "said"),
    [
        (b"{", "scaled", 400, "no JSON"),
        (b"", "scaled", 400, "no JSON"),
        ({"inputs": []}, "scaled", 400, "list of 1"),
        (body(np.zeros((1, 60_000))), "scaled", 400, "0 to 50000"),
        (body(X[:, :3]), "scaled", 422, r"reads shape \[-1, 4\], got \[1, 3\]"),
        (body(X.ravel()), "scaled", 422, "reads shape"),
        (body(name="z"), "scaled", 422, "inputs are x"),
        (body(outputs=[{"name": "z"}]), "scaled", 422, "outputs are y"),
        (body(), "table", 422, "inputs are i"),
        (body(), "same-FP16", 422, "reads FP16"),
        (body(), "nosuch", 404, "Choose: centred"),
        (body(), "scaled/versions/9", 404, "Choose: 1, 2"),
        (b"[" * 100_000, "scaled", 400, "no JSON"),
        (b" " * (2**20 + 1), "scaled", 413, "more than 1048576 bytes"),
    ],
)
def test_wrong_requests_are_answered_with_the_reason(server, content, path, status, said):
    answer = infer(server, content, f"/v2/models/{path}/infer")
    assert answer.status == status
    assert set(answer.data) <= {"error", "code", "where", "request_id"}
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(answer.data["error"])


def test_values_that_do_not_suit_the_model_are_the_callers_fault(client):
    assert client.infer("table", {"i": np.array([4])})["y"].tolist() == [[8.0, 9.0]]
    with pytest.raises(RequestError, match="indices element out of data bounds") as refused:
        client.infer("table", {"i": np.array([5])})
    assert (refused.value.status, refused.value.code) == (422, "not-run")


def test_tokens_and_scopes(server):
    for token in ("", "guess-0123456789abcdef"):
        with Client(server.url, token) as client, pytest.raises(NotAllowedError) as refused:
            client.infer("scaled", {"x": X})
        assert refused.value.status == 401
    with Client(server.url, SECRETS["reads"]) as reader:
        assert reader.metadata("scaled")["name"] == "scaled"
        with pytest.raises(NotAllowedError, match="lacks the scope 'score'") as refused:
            reader.infer("scaled", {"x": X})
    assert refused.value.status == 403
    assert server.call("GET", "/metrics", token=SECRETS["asks"]).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({HEADER_LENGTH: "x"}, 400),
        ({HEADER_LENGTH: "7"}, 400),
    ],
)
def test_headers_are_looked_at_first(server, headers, status):
    assert infer(server, body(), headers=headers).status == status


def test_methods_and_paths_that_are_not_there(server):
    for method, path, status in (
        ("GET", "/v2/models/scaled/infer", 405),
        ("POST", "/v2", 405),
        ("GET", "/v2/nosuch", 404),
        ("GET", "/v2/", 404),
    ):
        answer = server.call(method, path, token=SECRETS["asks"])
        assert answer.status == status
        assert answer.data["error"]


def test_fuzzed_bytes_end_in_an_answer_and_harm_nobody(server, client):
    rng = random.Random(11)
    content, length = pack({}, "inputs", {"x": X}, None)
    head = (
        f"POST /v2/models/scaled/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {SECRETS['asks']}\r\nContent-Type: application/octet-stream\r\n"
        f"{HEADER_LENGTH}: {length}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    whole, start = head.encode() + content, len(head)
    for turn in range(150):
        damaged = bytearray(whole)
        first = 0 if turn % 3 == 0 else start
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(first, len(damaged))] = rng.randrange(256)
        # A damaged head may promise more than comes; the server then waits, and we do not.
        seconds = 10.0 if turn % 3 else 0.3
        with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
            connection.sendall(damaged)
            received = b""
            with suppress(TimeoutError):
                while data := connection.recv(65_536):
                    received += data
        if turn % 3:
            assert received.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 422")), damaged
        assert b"HTTP/1.1 500" not in received
    np.testing.assert_array_equal(client.infer("scaled", {"x": X})["y"], 3 * X)


def test_prometheus_reads_the_metrics(server, client):
    from prometheus_client.parser import text_string_to_metric_families

    client.infer("scaled", {"x": X}, version="1")
    text = server.call("GET", "/metrics", token=SECRETS["reads"]).body.decode()
    found = {
        (sample.name, sample.labels.get("version", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("model") == "scaled"
    }
    assert found["penstock_models_seconds_count", "1"] >= 1
    assert found["penstock_models_batch_requests_count", "1"] >= 1
    assert found["penstock_models_queue_seconds_count", "1"] >= 1
    assert found["penstock_models_queue_depth", "2"] == 0
    assert found["penstock_models_serving", "2"] == 1
    assert found["penstock_models_serving", "1"] == 0
    assert 'outcome="refused"' in text
    assert 'route="/v2/models/{name}/infer",status="422"' in text


def test_versions_change_under_load_without_an_error(start, tmp_path):
    put(tmp_path, "moving", 1, scaled(1.0))
    server = start(tmp_path, reload_seconds=0.05, max_wait_ms=0.5)
    stop, seen, wrong = threading.Event(), set(), []

    def ask():
        with Client(server.url, SECRETS["asks"]) as client:
            while not stop.is_set():
                try:
                    got = client.infer("moving", {"x": X})["y"]
                    seen.add(float(got[0, 0]))
                except Exception as error:  # noqa: BLE001 - any would be one too many
                    wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (2, 3, 4):
        put(tmp_path, "moving", number, scaled(float(number)))
        wait_for(lambda wanted=float(number): wanted in seen, f"version {number} never answered")
        (tmp_path / "moving" / str(number - 1) / "model.onnx").unlink()
    put(tmp_path, "moving", 5, scaled(5.0)[:-4])  # cannot be opened: version 4 stays
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == {1.0, 2.0, 3.0, 4.0}
    said = server.call("GET", "/v2/models", token=SECRETS["reads"]).data
    assert "ends early" in said["trouble"][0]
    assert said["models"][0]["versions"][-1] == "4"


def test_too_much_is_turned_away_at_once_and_it_recovers(start, tmp_path):
    put(tmp_path, "slow", 1, dense((256, 1_024, 1_024, 8)))
    server = start(tmp_path, max_rows=1, max_queue=4)
    x = np.zeros((64, 256), np.float32)
    answered, busy, other = [], [], []

    def ask():
        with Client(server.url, SECRETS["asks"]) as client:
            for _ in range(4):
                try:
                    answered.append(client.infer("slow", {"x": x})["y"].shape)
                except BusyError as error:
                    busy.append(error)
                except Exception as error:  # noqa: BLE001 - any would be one too many
                    other.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other == []
    assert len(answered) + len(busy) == 64
    assert set(answered) == {(64, 8)}
    assert busy
    assert {(error.status, error.code, error.retry_after) for error in busy} == {
        (503, "overloaded", 1.0)
    }
    with Client(server.url, SECRETS["asks"]) as client:
        assert client.infer("slow", {"x": x})["y"].shape == (64, 8)


def test_processes_share_a_socket_are_started_again_and_end_together(start, models):
    server = start(models, workers=2, reload_seconds=0)
    parent = psutil.Process(server.process.pid)
    wait_for(lambda: len(parent.children()) == 2)
    first, second = parent.children()

    def ask():
        with Client(server.url, SECRETS["asks"]) as client:
            return client.infer("scaled", {"x": X})["y"]

    def workers():
        text = server.call("GET", "/metrics", token=SECRETS["reads"]).body.decode()
        return {number for number in "01" if f'worker="{number}"' in text}

    wait_for(lambda: workers() == {"0", "1"}, "not every process counts", seconds=60)
    first.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(first.pid))
    np.testing.assert_array_equal(ask(), 3 * X)
    wait_for(lambda: len(parent.children()) == 2 and parent.children() != [first, second])
    others = [child.pid for child in parent.children()]
    os.kill(server.process.pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in others), "a process outlived its parent")
    server.process.wait()
    with pytest.raises(NotReachedError):
        ask()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--serve", "/nosuch"], "there is no such file or folder"),
        ([], "was not told what to serve"),
        (["--serve", "models", "--host", "0.0.0.0"], "can be reached from other machines"),
        (["--serve", "models", "--max-rows", "0"], "max_rows"),
        (["--serve", "models", "--bodies-mib", "1"], "bodies_mib must be at least"),
        (["--serve", "models", "--tls-key", "/nosuch"], "belong together"),
    ],
)
def test_what_cannot_start_says_why(options, said, monkeypatch, capsys):
    monkeypatch.setenv("PENSTOCK_API_TOKENS", TOKENS)
    assert main([*options, "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("penstock models: ")
    assert said in error


def test_processes_that_cannot_start_end_the_first_one(start):
    server = start("/nosuch", wait=False, workers=2)
    assert server.process.wait(60) == 1
    assert "end as soon as they start" in server.tail()
    assert "Traceback" not in server.tail(200)


def test_a_token_has_a_rate_and_sigterm_ends_what_runs(start, models):
    server = start(f"s={models / 'scaled' / '1' / 'model.onnx'}", rate=1, burst=2)
    with Client(server.url, SECRETS["asks"]) as client:
        for _ in range(2):
            client.infer("s", {"x": X})
        with pytest.raises(BusyError, match="more requests than its rate") as refused:
            client.infer("s", {"x": X})
        assert refused.value.status == 429
        assert refused.value.retry_after >= 1
        assert server.stop() == 0
        with pytest.raises(NotReachedError):
            client.infer("s", {"x": X})
        assert not client.ready()


def test_a_client_needs_an_address():
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Client("localhost:8020")
    with pytest.raises(NotReachedError), Client("http://127.0.0.1:1") as client:
        client.infer("x", {"x": X})
    assert issubclass(NotThereError, RuntimeError)
