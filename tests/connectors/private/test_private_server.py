"""Two processes: an owner's command and a scorer's server, and everyone who means harm."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.private.bundle import write_bundle
from connectors.private.client.documents import sha256
from connectors.private.client.http import Scorer, ScorerError
from connectors.private.client.key_file import KeyFile
from connectors.private.client.messages import (
    REQUEST_TYPE,
    AnswerHeader,
    RequestHeader,
    read_message,
    write_message,
)
from connectors.private.client.registration import REGISTRATION_TYPE, write_registration
from connectors.private.client.session import Session
from connectors.private.server.audit import AuditLog, verify_log
from tasks.privacy.compile import CompileOptions, compile_model
from tests.benchmarks._api_server import ROOT, running_private
from tests.processes import wait_for
from tests.tasks.privacy.models import made, rows

A, B, OPS = "a" * 26, "b" * 26, "o" * 26
TOKENS = f"bank-a:score:{A},bank-b:score:{B},ops:admin:{OPS},reader:read:{'r' * 26}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A scorer of a linear model and a square one."""
    folder = tmp_path_factory.mktemp("scorer")
    shareable = CompileOptions(profile="shareable", releases=40, tolerance=1e-3)
    models = {
        "small": compile_model(made("linear"), rows(500)),
        "square": compile_model(made("square"), rows(500)),
        "shared": compile_model(made("linear"), rows(500), shareable),
    }
    for name, compiled in models.items():
        write_bundle(folder / name, compiled, name)
    settings = {
        "models": ",".join(str(folder / name) for name in models),
        "max_rows": 5_000,
        "rows_rate": 10_000,
        "rows_burst": 20_000,
        "log_level": "WARNING",
    }
    with running_private(folder / "home", settings, TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def scorer(server):
    return Scorer(server.url, A)


@pytest.fixture(scope="module")
def session(scorer):
    key = KeyFile.new("bank-a", "n4096-54")
    scorer.register(write_registration(key.registration, key.signing_key))
    return Session(scorer.offer("small"), key)


def scored(scorer, session, table):
    sealed = session.seal(table)
    request = session.request(sealed)
    size = session.offer.plan.answer_bytes(sealed.sealed.packing, sealed.sealed.rows)
    answer = scorer.score(request, size)
    return session.open(sealed, request, answer), request, answer


def send(server, request, token=A):
    return server.call(
        "POST",
        "/v1/encrypted/score",
        request,
        token=token,
        headers={"content-type": REQUEST_TYPE},
    )


def signed(session, body=None, key=None, **changes):
    """A request that was signed with a key, with whatever is changed in it."""
    sealed = session.seal(rows(4))
    message = read_message(RequestHeader, session.request(sealed))
    body = message.body if body is None else body
    changes = {"body": sha256(body), "body_bytes": len(body)} | changes
    return write_message(replace(message.header, **changes), body, key or session._key.signing_key)


class TestScoring:
    @pytest.mark.parametrize("name", ["small", "square", "shared"])
    @pytest.mark.parametrize("n", [1, 300])
    def test_scores_are_those_in_the_clear(self, server, scorer, name, n):
        offer = scorer.offer(name)
        key = KeyFile.new("bank-a", offer.plan.parameters.name)
        scorer.register(write_registration(key.registration, key.signing_key))
        found, _, _ = scored(scorer, Session(offer, key), rows(n, 5))
        clear = made("square" if name == "square" else "linear").score(rows(n, 5))
        np.testing.assert_allclose(found, clear, atol=1e-3)

    def test_models_are_listed(self, scorer):
        found = {one["name"]: one for one in scorer.models()}
        assert set(found) == {"small", "square", "shared"}
        assert found["small"]["security_bits"] == 256
        assert found["shared"]["shareable"] is True
        assert found["small"]["max_rows"] == 5_000
        with pytest.raises(ScorerError, match="no model 'none'") as refused:
            scorer.offer("none")
        assert refused.value.status == 404

    def test_the_answer_is_a_receipt_for_a_line_of_the_log(self, server, scorer, session):
        _, _, answer = scored(scorer, session, rows(3))
        receipt = read_message(AnswerHeader, answer).header.audit
        assert verify_log(server.home / "audit.jsonl", [receipt]).sound

    def test_the_log_holds_digests_and_counts_and_no_content(self, server, scorer, session):
        _, request, _ = scored(scorer, session, rows(3))
        last = json.loads((server.home / "audit.jsonl").read_text().splitlines()[-1])
        assert last["event"] == last["verdict"] == "scored"
        assert last["request"] == read_message(RequestHeader, request).digest
        assert set(last) == {
            *("n", "event", "before", "digest", "verdict", "tenant", "at", "bytes"),
            *("key", "model", "rows", "request", "answer"),
        }


class TestRefusals:
    def refused(self, answer, status, code):
        assert (answer.status, answer.data["code"]) == (status, code), answer.body
        assert answer.data["detail"]

    def test_the_same_request_again(self, server, scorer, session):
        _, request, _ = scored(scorer, session, rows(3))
        self.refused(send(server, request), 409, "replayed")

    def test_an_old_request(self, server, session):
        old = int((time.time() - 301) * 1000)
        self.refused(send(server, signed(session, time=old)), 409, "replayed")

    def test_another_signature(self, server, session):
        request = signed(session, key=Ed25519PrivateKey.generate())
        self.refused(send(server, request), 401, "wrong-signature")

    def test_a_changed_body(self, server, session):
        request = bytearray(signed(session))
        request[-1] ^= 1
        self.refused(send(server, bytes(request)), 400, "changed-body")

    def test_the_token_of_another_tenant(self, server, session):
        self.refused(send(server, signed(session), B), 403, "other-tenant")
        self.refused(send(server, signed(session, tenant="bank-b"), B), 401, "unknown-key")

    def test_no_token_or_one_without_the_right(self, server, session):
        self.refused(send(server, signed(session), ""), 401, "unauthorised")
        self.refused(send(server, signed(session), "r" * 26), 403, "forbidden")

    def test_unknown_things(self, server, session):
        for changes, status, code in (
            ({"model": "f" * 64}, 404, "unknown-model"),
            ({"parameters": "n8192-120"}, 422, "other-parameters"),
            ({"packing": "slots"}, 422, "wrong-packing"),
            ({"rows": 0}, 422, "too-many-rows"),
            ({"rows": 5_001}, 422, "too-many-rows"),
            ({"rows": 3_000}, 422, "wrong-length"),
        ):
            self.refused(send(server, signed(session, **changes)), status, code)

    def test_a_key_of_other_parameters(self, server, session, scorer):
        square = scorer.offer("square").plan.digest
        self.refused(send(server, signed(session, model=square)), 422, "other-parameters")

    def test_words_that_are_no_ring_elements_by_a_tenant_who_signs_them(self, server, session):
        body = b"\xff" * len(read_message(RequestHeader, signed(session)).body)
        self.refused(send(server, signed(session, body=body)), 422, "no-ciphertexts")

    def test_what_is_no_message(self, server):
        for content in (b"", b"x", b"PSRQ", b"PSRQ" + b"\xff" * 100, os.urandom(1_000)):
            self.refused(send(server, content), 400, "malformed")

    def test_other_types_and_sizes(self, server):
        answer = server.call("POST", "/v1/encrypted/score", b"{}", token=A)
        self.refused(answer, 415, "wrong-type")
        answer = server.call(
            "POST",
            "/v1/encrypted/score",
            b"",
            token=A,
            headers={"content-type": REQUEST_TYPE, "content-length": str(2**33)},
        )
        assert answer.status in {413, 503}

    def test_more_rows_than_the_key_may_send(self, server, scorer):
        offer = scorer.offer("small")
        key = KeyFile.new("bank-a", "n4096-54")
        scorer.register(write_registration(key.registration, key.signing_key))
        session = Session(offer, key)
        statuses = [
            send(server, session.request(session.seal(rows(4_900)))).status for _ in range(6)
        ]
        assert statuses[0] == 200
        assert 429 in statuses

    def test_bodies_that_never_come_leave_room_for_others(self, server, scorer, session):
        """A tenant that announces as much as it may, and sends nothing, holds up itself alone."""
        head = (
            "POST /v1/encrypted/score HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {B}\r\ncontent-type: {REQUEST_TYPE}\r\n"
            f"content-length: {256 * 2**20}\r\n\r\nx"
        ).encode()
        with ExitStack() as opened:
            for _ in range(3):
                line = socket.create_connection(("127.0.0.1", server.port), 5)
                opened.enter_context(line)
                line.sendall(head)
            time.sleep(0.3)
            found, _, _ = scored(scorer, session, rows(3))
        assert found.shape == (3, 1)

    def test_a_request_whose_client_has_gone_is_not_scored(self, server, scorer, session):
        def head(request):
            return (
                "POST /v1/encrypted/score HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {A}\r\ncontent-type: {REQUEST_TYPE}\r\n"
                f"content-length: {len(request)}\r\n\r\n"
            ).encode()

        (worker,) = psutil.Process(server.process.pid).children()
        held, waiting = (session.request(session.seal(rows(3))) for _ in range(2))
        log = server.home / "audit.jsonl"
        digest = read_message(RequestHeader, waiting).digest
        worker.suspend()
        try:
            with ExitStack() as opened:
                for request in (held, waiting):
                    line = socket.create_connection(("127.0.0.1", server.port), 5)
                    opened.enter_context(line)
                    line.sendall(head(request) + request)
                    time.sleep(0.3)  # it waits for its turn before the next one comes
                line.close()
                worker.resume()
                wait_for(lambda: digest in log.read_text())
        finally:
            worker.resume()
        lines = map(json.loads, log.read_text().splitlines())
        (noted,) = (line for line in lines if line.get("request") == digest)
        assert (noted["event"], noted["verdict"]) == ("refused", "gone")
        scored(scorer, session, rows(3))

    def test_a_home_is_of_one_server(self, server, tmp_path):
        settings = {"models": tmp_path}
        write_bundle(tmp_path, compile_model(made("linear"), rows(50)), "small")
        with (
            pytest.raises(RuntimeError, match="another server uses"),
            running_private(server.home, settings, TOKENS),
        ):
            pass

    def test_the_server_lives_on(self, server, scorer, session):
        found, _, _ = scored(scorer, session, rows(3))
        assert found.shape == (3, 1)
        assert verify_log(server.home / "audit.jsonl").sound


class TestKeys:
    def test_revoked_keys_are_not_taken(self, server, scorer):
        key = KeyFile.new("bank-a", "n4096-54")
        scorer.register(write_registration(key.registration, key.signing_key))
        session = Session(scorer.offer("small"), key)
        scored(scorer, session, rows(2))
        with pytest.raises(ScorerError, match="not registered") as refused:
            Scorer(server.url, B).revoke(key.key_id)
        assert refused.value.status == 404
        assert scorer.revoke(key.key_id)["revoked"] is True
        with pytest.raises(ScorerError, match="revoked"):
            scored(scorer, session, rows(2))

    def test_an_operator_may_end_any_key(self, server, scorer):
        key = KeyFile.new("bank-a", "n4096-54")
        scorer.register(write_registration(key.registration, key.signing_key))
        assert Scorer(server.url, OPS).revoke(key.key_id)["revoked"] is True

    def test_keys_of_others_cannot_be_seen(self, server, session):
        path = f"/v1/encrypted/keys/{session._key.key_id}"
        assert server.call("GET", path, token=A).data["tenant"] == "bank-a"
        assert server.call("GET", path, token=B).status == 404

    def test_nobody_registers_for_another(self, server):
        key = KeyFile.new("bank-a", "n4096-54")
        answer = server.call(
            "POST",
            "/v1/encrypted/keys",
            write_registration(key.registration, key.signing_key),
            token=B,
            headers={"content-type": REGISTRATION_TYPE},
        )
        assert (answer.status, answer.data["code"]) == (422, "other-tenant")

    def test_metrics_are_for_readers(self, server):
        assert server.call("GET", "/metrics", token=A).status == 403
        text = server.call("GET", "/metrics", token="r" * 26).body.decode()
        assert 'penstock_private_verdicts_total{verdict="scored"}' in text


class TestCommands:
    """The owner's side as a person types it, against the running server."""

    def run(self, folder, *arguments, code=0, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "connectors.private.client.command", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PENSTOCK_TOKEN": A, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        if code:
            return done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_from_an_empty_folder_to_scores(self, server, tmp_path):
        url = ("--url", server.url)
        closed = {"PENSTOCK_PRIVATE_PASSPHRASE": "correct horse"}
        table = rows(20, 8)
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow([f"x{i}" for i in range(7)])
            lines.writerows([*table.tolist()[:19], ["1e9"] * 7])
        self.run(tmp_path, "offer", "shared", *url)
        (made_key,) = self.run(tmp_path, "keygen", "offer.json", "--tenant", "bank-a", **closed)
        assert made_key["closed"] is True
        self.run(tmp_path, "register", "owner.key", *url, **closed)
        (sealed,) = self.run(tmp_path, "encrypt", "offer.json", "owner.key", "rows.csv", **closed)
        assert (sealed["rows"], sealed["refused"]) == (19, 1)
        files = ("offer.json", "owner.key", "rows.sealed")
        (answer,) = self.run(tmp_path, "score", *files, *url, **closed)
        assert verify_log(server.home / "audit.jsonl", [answer["receipt"]]).sound
        (told,) = self.run(tmp_path, "decrypt", *files, "rows.answer", **closed)
        assert told["may_leave"] is False
        with (tmp_path / "scores.csv").open() as file:
            found = list(csv.DictReader(file))
        clear = 1 / (1 + np.exp(-made("linear").score(table[:19])[:, 0]))
        probabilities = [float(one["probability"]) for one in found[:19]]
        np.testing.assert_allclose(probabilities, clear, atol=1e-5)
        assert found[19]["refused"] == "x0 lies outside what the model was compiled for"

        # Two answers may leave as scores, then none.
        for _ in range(2):
            (told,) = self.run(tmp_path, "decrypt", *files, "rows.answer", "--share", **closed)
            assert told["may_leave"] is True
        said = self.run(tmp_path, "decrypt", *files, "rows.answer", "--share", code=2, **closed)
        assert "has released 38 values" in said
        said = self.run(tmp_path, "encrypt", "offer.json", "owner.key", "rows.csv", code=2)
        assert "PENSTOCK_PRIVATE_PASSPHRASE" in said
        said = self.run(tmp_path, "keygen", "offer.json", "--tenant", "bank-a", code=2)
        assert "not written over" in said
        (ended,) = self.run(tmp_path, "revoke", "owner.key", *url, **closed)
        assert ended["revoked"] is True

    def test_trouble_is_one_line(self, server, tmp_path):
        said = self.run(tmp_path, "models", "--url", "http://127.0.0.1:9", code=2)
        assert said.startswith("penstock-client: http://127.0.0.1:9 does not answer")
        assert len(said.splitlines()) == 1
        said = self.run(tmp_path, "models", "--url", server.url, code=2, PENSTOCK_TOKEN="x" * 30)
        assert "no token that is known" in said


class TestEnd:
    def test_a_server_that_has_just_started_takes_requests_soon(self, tmp_path, scorer, session):
        """None that the one before it may have counted; and none is taken for one until then."""
        write_bundle(tmp_path / "m", compile_model(made("linear"), rows(500)), "small")
        home = tmp_path / "home"
        log = AuditLog(home / "audit.jsonl")
        log.note("scored", at=int((time.time() + 3.0) * 1000))
        log.close()
        with running_private(home, {"models": tmp_path / "m"}, TOKENS) as running:
            own = Scorer(running.url, A)
            key = KeyFile.new("bank-a", "n4096-54")
            own.register(write_registration(key.registration, key.signing_key))
            again = Session(own.offer("small"), key)
            with pytest.raises(ScorerError, match="just started") as early:
                scored(own, again, rows(2))
            assert early.value.status == 503
            time.sleep(8.5)
            found, _, _ = scored(own, again, rows(2))
        assert found.shape == (2, 1)

    def test_a_log_that_is_ahead_of_the_clock_stops_the_start(self, tmp_path):
        write_bundle(tmp_path / "m", compile_model(made("linear"), rows(500)), "small")
        log = AuditLog(tmp_path / "home" / "audit.jsonl")
        log.note("scored", at=int((time.time() + 3_600) * 1000))
        log.close()
        with (
            pytest.raises(RuntimeError, match="ahead of this machine's clock"),
            running_private(tmp_path / "home", {"models": tmp_path / "m"}, TOKENS),
        ):
            pass

    def test_a_server_without_models_or_tokens_says_so(self, tmp_path):
        for settings, tokens, said in (
            ({}, "", "no model is served"),
            ({"models": tmp_path}, "", "holds no scorer.json"),
            ({"models": tmp_path}, "wrong", "not of the form"),
        ):
            with (
                pytest.raises(RuntimeError, match=said),
                running_private(tmp_path / "home", settings, tokens),
            ):
                pass
