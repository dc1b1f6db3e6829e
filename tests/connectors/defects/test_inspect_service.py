"""The central machine from outside, its parts, and the ensemble."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import math
import socket
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from connectors.api.problem import Problem
from connectors.defects.inspect.central.ensemble import (
    EnsembleInspector,
    Member,
    calibrated,
    turned,
    turned_back,
)
from connectors.defects.inspect.central.multipart import file_of_form
from connectors.defects.inspect.central.server import serve
from connectors.defects.inspect.central.service import CentralConfig
from connectors.defects.inspect.heat_map import MAX_SIDE, heat_png
from connectors.defects.inspect.review_queue import QueueLimits
from infra.errors import ConfigurationError, ServiceError
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.judgement import Judgement, Thresholds
from tests.benchmarks import defects_cascade
from tests.benchmarks._hostile_images import by_hand
from tests.connectors.defects.lines import SpotInspector, plate
from tests.connectors.defects.network import SECRET, central_machine

SMALL = CentralConfig(max_image_bytes=100_000, rate=10_000, burst=10_000, read_seconds=1.0)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with (
        Sandbox(workers=1) as sandbox,
        central_machine(
            tmp_path_factory.mktemp("home"), SpotInspector(), SMALL, decoder=sandbox
        ) as (url, central),
    ):
        yield url, central


def call(url, path, body=b"", *, token=SECRET, method="POST", **headers):
    link = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["authorization"] = f"Bearer {token}"
    link.request(method, path, body, sent)
    answer = link.getresponse()
    content = answer.read()
    link.close()
    return answer.status, answer.headers, content


def form(content, name="image"):
    head = f'--xx\r\ncontent-disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
    return head.encode() + content + b"\r\n--xx--\r\n"


def test_one_image_raw_or_by_form_and_its_heat_map(service):
    url, central = service
    image = plate(1, 240)
    status, _, raw = call(url, "/v1/inspect", image)
    assert status == 200
    said = json.loads(raw)
    assert (said["verdict"], said["score"], said["kind"]) == ("NG", 240.0, "spot")
    assert said["thresholds"] == [150.0, 200.0]
    assert said["model"] == central.desk.inspector.digest
    typed = {"content_type": "multipart/form-data; boundary=xx"}
    assert call(url, "/v1/inspect", form(image), **typed)[2] == raw
    for path, accept in (("/v1/inspect/heatmap", "*/*"), ("/v1/inspect", "image/png")):
        status, headers, png = call(url, path, image, accept=accept)
        assert (status, headers["content-type"]) == (200, "image/png")
        assert headers["x-penstock-verdict"] == "NG"
        heat = np.asarray(Image.open(io.BytesIO(png)))
        assert tuple(heat[3, 3]) == (255, 0, 0)
        assert len(set(heat[12, 12])) == 1


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [("", 401, "unauthorised"), ("x" * 24, 401, "unauthorised"), ("r" * 24, 403, "forbidden")],
)
@pytest.mark.parametrize(
    "path", ["/v1/inspect", "/v1/inspect/heatmap", "/v1/review", "/v1/review/decisions"]
)
def test_a_wrong_token_is_told_before_the_body_is_read(service, path, token, status, code):
    answer, headers, content = call(service[0], path, plate(1, 90), token=token)
    assert answer == status
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(content)["code"] == code


def test_bodies_that_are_too_large_are_refused_by_their_announcement(service):
    host = service[0].removeprefix("http://").split(":")
    with socket.create_connection((host[0], int(host[1])), timeout=10) as link:
        link.sendall(
            b"POST /v1/inspect HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + SECRET.encode()
            + b"\r\ncontent-length: 100000000000\r\n\r\n"
        )
        assert link.recv(4_096).startswith(b"HTTP/1.1 413")
    with socket.create_connection((host[0], int(host[1])), timeout=10) as link:
        link.sendall(
            b"POST /v1/inspect HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + SECRET.encode()
            + b"\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        link.sendall(chunk * 2)
        assert link.recv(4_096).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_given_up(service):
    host = service[0].removeprefix("http://").split(":")
    with socket.create_connection((host[0], int(host[1])), timeout=10) as link:
        link.sendall(
            b"POST /v1/inspect HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + SECRET.encode()
            + b"\r\ncontent-length: 5000\r\n\r\nabc"
        )
        assert link.recv(4_096).startswith(b"HTTP/1.1 408")


def test_hostile_images_are_problems_and_the_service_lives_on(service):
    url, _ = service
    seen = set()
    for one in list(by_hand())[::8]:
        if 0 < len(one.content) <= SMALL.max_image_bytes:
            status, _, content = call(url, "/v1/inspect", one.content)
            assert status in {200, 422}
            if status == 422:
                seen.add(json.loads(content)["code"])
    assert seen
    assert call(url, "/v1/inspect", b"")[0] == 422
    assert call(url, "/v1/inspect", plate(2, 90))[0] == 200


def review(url, content, key=None, **headers):
    key = hashlib.sha256(content).hexdigest() if key is None else key
    return call(url, "/v1/review", content, idempotency_key=key, **headers)


def test_a_review_is_taken_as_often_as_it_comes_and_decided_once(service):
    url, central = service
    image = plate(40, 240)
    key = hashlib.sha256(image).hexdigest()
    before = sum(central.store.counts().values())
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(review(url, image)[0])) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 202}
    assert sum(central.store.counts().values()) == before + 1
    body = json.dumps({"keys": [key, "0" * 64]}).encode()
    ends = time.monotonic() + 30  # its decoder may only just start
    while True:
        said = json.loads(
            call(url, "/v1/review/decisions", body, content_type="application/json")[2]
        )
        if said["decided"] or time.monotonic() > ends:
            break
        time.sleep(0.01)
    assert said["decided"][key]["verdict"] == "NG"
    assert said["unknown"] == ["0" * 64]
    status, _, again = review(url, image)
    assert status == 200
    assert json.loads(again)["decision"] == said["decided"][key]
    assert call(url, f"/v1/review/{key}/heatmap", method="GET")[2][:4] == b"\x89PNG"
    assert call(url, "/v1/review/../heatmap", method="GET")[0] == 404


def test_what_is_no_image_is_left_to_a_person_with_the_reason(service):
    url, central = service
    content = b"\x89PNG no image"
    assert review(url, content)[0] == 202
    key = hashlib.sha256(content).hexdigest()
    decided = {}
    while not decided:
        decided, _, _ = central.store.decisions([key])
    assert decided[key]["verdict"] == "REVIEW"
    assert decided[key]["refused"].startswith("wrong-format")


@pytest.mark.parametrize(
    ("key", "headers", "where"),
    [
        ("nonsense", {}, "idempotency-key"),
        ("0" * 64, {}, "idempotency-key"),
        (None, {"x_penstock_edge": "["}, "x-penstock-edge"),
        (None, {"x_penstock_edge": "{" + " " * 5_000 + "}"}, "x-penstock-edge"),
    ],
)
def test_reviews_with_wrong_headers_are_told_which(service, key, headers, where):
    status, _, content = review(service[0], plate(41, 90), key, **headers)
    assert status == 422
    assert json.loads(content)["where"] == where


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys": "x"}', b'{"keys": [1]}', b"[" * 9_000]
)
def test_what_is_no_list_of_keys_is_told(service, body):
    path = "/v1/review/decisions"
    assert call(service[0], path, body, content_type="application/json")[0] == 400
    assert call(service[0], path, body, content_type="text/plain")[0] == 415


def test_status_health_metrics_and_unknown_paths(service):
    url, _ = service
    assert json.loads(call(url, "/v1/status", method="GET")[2])["model"]
    assert call(url, "/v1/status", method="GET", token="")[0] == 401
    assert call(url, "/healthz", method="GET", token="")[0] == 200
    assert b"penstock_api_requests_total" in call(url, "/metrics", method="GET")[2]
    assert call(url, "/nothing", method="GET")[0] == 404
    assert call(url, "/v1/openapi.json", method="GET")[0] == 200


def test_too_many_at_once_and_a_full_queue_are_turned_away(tmp_path):
    config = CentralConfig(at_once=2, queue=QueueLimits(max_images=1))
    slow = SpotInspector(delay=0.6)
    with central_machine(tmp_path, slow, config) as (url, _):
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(call(url, "/v1/inspect", plate(1, 90))))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(status for status, _, _ in answers)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        assert all(headers["retry-after"] for status, headers, _ in answers if status == 503)
        reviews = [review(url, plate(n, 160)) for n in range(4)]
        assert {status for status, _, _ in reviews} == {202, 503}


def test_a_token_that_asks_too_often_is_slowed(tmp_path):
    config = CentralConfig(rate=1.0, burst=3.0)
    with central_machine(tmp_path, SpotInspector(), config) as (url, _):
        statuses = [call(url, "/v1/status", method="GET")[0] for _ in range(6)]
    assert statuses[:3] == [200] * 3
    assert 429 in statuses[3:]


def test_a_server_without_tokens_open_to_others_or_on_a_taken_port_does_not_start(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("PENSTOCK_API_TOKENS", raising=False)
    with pytest.raises(ConfigurationError, match="names no token"):
        serve(SpotInspector(), tmp_path, host="127.0.0.1", port=0)
    monkeypatch.setenv("PENSTOCK_API_TOKENS", f"edge:score:{SECRET}")
    with pytest.raises(ConfigurationError, match="in the clear"):
        serve(SpotInspector(), tmp_path, host="0.0.0.0", port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServiceError, match="another --port"):
            serve(SpotInspector(), tmp_path, host="127.0.0.1", port=taken.getsockname()[1])


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_any_bytes_survive_a_form_and_broken_forms_are_told(content, noise):
    kind = "multipart/form-data; boundary=xx"
    if b"\r\n--xx" not in b"\r\n" + content + b"\r\n":
        assert file_of_form(kind, form(content)) == content
    with pytest.raises(Problem, match=r"no multipart form|parts"):
        file_of_form(kind, noise + form(content)[: -len(b"--\r\n")])


def test_forms_without_an_image_or_boundary_are_told():
    two = form(b"a", "x")[: -len(b"--xx--\r\n")] + form(b"b", "y")
    for kind, body, status in (
        ("multipart/form-data", form(b"a"), 400),
        ("multipart/form-data; boundary=yy", form(b"a"), 400),
        ("multipart/form-data; boundary=xx", two, 422),
        ("multipart/form-data; boundary=xx", b"--xx--\r\n", 422),
    ):
        with pytest.raises(Problem) as caught:
            file_of_form(kind, body)
        assert caught.value.status == status


def test_positions_are_all_different_and_turned_back():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    seen = {(turned(image, p).shape, turned(image, p).tobytes()) for p in range(8)}
    assert len(seen) == 8
    for position in range(8):
        assert np.array_equal(turned_back(turned(image, position), position), image)
    # The usual four are without a right angle.
    assert [turned(image, p).shape == image.shape for p in range(8)] == [True] * 4 + [False] * 4


class Corner:
    """Sees defects in the upper left quarter only: its answer hangs on the position."""

    thresholds, digest, bits = Thresholds(0.2, 0.4), "corner", 16

    def judge(self, pixels):
        score = float(pixels[:4, :4].mean()) / 255
        heat = np.zeros(pixels.shape[:2], np.float32)
        heat[:4, :4] = pixels[:4, :4] / 255
        return Judgement(score, heat, self.thresholds.verdict(score), {"spot": score})


def test_an_ensemble_answers_the_same_in_every_position():
    image = np.zeros((8, 10), np.uint8)
    image[1:3, 6:9] = 255
    members = [Member(Corner()), Member(SpotInspector(), 100.0, 50.0)]
    ensemble = EnsembleInspector(members, positions=8)
    first = ensemble.judge(image)
    for position in range(8):
        said = ensemble.judge(np.ascontiguousarray(turned(image, position)))
        assert said.score == pytest.approx(first.score)
        assert np.allclose(turned_back(said.heat, position), first.heat, atol=1e-6)
    assert first.heat[2, 7] > 0
    assert ensemble.thresholds == Thresholds((0.2 + 1.0) / 2, (0.4 + 2.0) / 2)
    assert ensemble.digest != EnsembleInspector([Member(Corner())]).digest


def test_warm_spots_become_boxes_and_members_are_brought_to_one_scale():
    image = np.full((40, 60), 90, np.uint8)
    image[10:18, 20:30] = 255
    (box,) = EnsembleInspector([Member(SpotInspector())]).judge(image).boxes
    assert (box.left, box.top, box.right, box.bottom) == (20, 10, 30, 18)
    good = [np.full((8, 8), value, np.uint8) for value in (90, 95, 100, 105, 110)]
    member = calibrated(SpotInspector(), good)
    assert (member.centre, member.spread) == (100.0, pytest.approx(1.4826 * 5))
    with pytest.raises(ValueError, match="at least 5"):
        calibrated(SpotInspector(), good[:4])
    for wrong in ({"positions": 9}, {"exposures": (0.0,)}):
        with pytest.raises(ValueError, match=r"positions|exposures"):
            EnsembleInspector([Member(SpotInspector())], **wrong)
    with pytest.raises(ValueError, match="no models"):
        EnsembleInspector([])


def test_probabilities_are_averaged_as_log_odds_and_infinite_thresholds_stay():
    corner = Corner()
    grays = (26, 51, 77, 102, 128)
    member = calibrated(corner, [np.full((8, 8), gray, np.uint8) for gray in grays])
    odds = [math.log(gray / (255 - gray)) for gray in grays]
    assert member.log_odds
    assert member.centre == pytest.approx(odds[2], abs=1e-6)
    assert member.told(0.5) == pytest.approx((0 - member.centre) / member.spread)
    assert member.told(1.0) > member.told(0.999) > member.told(0.0) > -math.inf
    corner.thresholds = Thresholds(-math.inf, math.inf)
    assert EnsembleInspector([member]).thresholds == corner.thresholds
    said = EnsembleInspector([member]).judge(np.full((8, 8), 77, np.uint8))
    assert said.score == pytest.approx(0.0, abs=1e-6)
    assert said.verdict == "REVIEW"


def test_the_band_holds_what_the_central_model_mends():
    bad = np.array([False] * 8 + [True] * 4)
    edge = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.55, 0.65, 0.95, 0.98])
    central = np.where(bad, 1.0, 0.0)
    limits = defects_cascade.limits_of(edge, central, bad, 5)
    assert limits.alone == pytest.approx(0.925)  # none of eight good ones may be rejected
    inside = (edge >= limits.low) & (edge < limits.high)
    assert set(edge[inside]) >= {0.55, 0.65, 0.9}
    assert 0 < limits.beyond <= 1
    # Nothing is sent where it mends nothing, or where the central model was not asked.
    for useless in (np.zeros(12), np.full(12, np.nan)):
        assert defects_cascade.limits_of(edge, useless, bad, 5).low == limits.alone


@given(st.integers(0, 2**32 - 1))
def test_the_cascade_rejects_no_more_calibration_parts_than_the_edge(seed):
    rng = np.random.default_rng(seed)
    bad = np.arange(60) >= 45
    # Few levels, so that scores tie.
    edge, central = (np.round(rng.normal(bad * 1.0, 1.0), 1) for _ in range(2))
    limits = defects_cascade.limits_of(edge, central, bad, 8)
    inside = (edge >= limits.low) & (edge < limits.high)
    final = (edge >= limits.high) | (inside & (central >= limits.beyond))
    alone = edge >= limits.alone
    assert inside.sum() <= 8
    assert (final & ~bad).sum() <= int(defects_cascade.MAX_REJECT * 45) == 0
    assert (alone & ~bad).sum() == 0
    assert (final & bad).sum() >= (alone & bad).sum()


def test_benchmark_runs_small(capsys):
    defects_cascade.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "defects-cascade"
    assert result["images"] == 26
    assert 0 <= result["sent_share"] <= 1
    assert result["miss_cascade"] <= 1


@pytest.mark.parametrize("shape", [(8, 8), (1, 900), (1_500, 700, 3)])
def test_heat_maps_keep_the_form_of_the_image_and_stay_small(shape):
    heat = np.full((3, 5), np.nan, np.float32)
    heat[0, 0] = 7.0
    made = Image.open(io.BytesIO(heat_png(heat, np.zeros(shape, np.uint8))))
    assert max(made.size) <= MAX_SIDE
    assert made.size[0] * shape[0] == pytest.approx(made.size[1] * shape[1], rel=0.01, abs=900)


def test_the_heat_map_of_a_large_image_is_made_in_little_memory():
    """An edge has 2 GiB for decoder, model and all."""
    heat, pixels = np.zeros((3_000, 3_000), np.float32), np.zeros((3_000, 3_000), np.uint8)
    tracemalloc.start()
    heat_png(heat, pixels)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < heat.nbytes
