"""The owner's files and steps: keys stay closed, wrong answers are found, nothing slips out."""

from __future__ import annotations

import base64
import csv
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.private.bundle import BundleError, read_bundle, write_bundle
from connectors.private.classifier import EncryptedClassifier
from connectors.private.client.documents import sha256
from connectors.private.client.http import Scorer, ScorerError
from connectors.private.client.key_file import KeyFile, KeyFileError
from connectors.private.client.messages import (
    AnswerHeader,
    RequestHeader,
    read_message,
    write_message,
)
from connectors.private.client.owner import AnswerError
from connectors.private.client.registration import NOTHING
from connectors.private.client.release import ReleaseError, released
from connectors.private.client.sealed_file import SealedFileError, read_sealed, write_sealed
from connectors.private.client.session import CANARIES, Session
from connectors.private.client.tables import TableError, read_rows, write_scores
from tasks.privacy.compile import CompileOptions, compile_model
from tasks.privacy.encoding import RowError
from tasks.privacy.model import ModelError
from tasks.privacy.readout import Readout
from tests.tasks.privacy.models import made, rows

SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = SIGNING.public_key().public_bytes_raw().hex()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A compiled model as it lies on a scorer's disk, read back."""
    folder = tmp_path_factory.mktemp("compiled")
    write_bundle(folder, compile_model(made("linear"), rows(500)), "small")
    return read_bundle(folder)


@pytest.fixture(scope="module")
def key():
    return KeyFile.new("bank-a", "n4096-54")


@pytest.fixture(scope="module")
def session(served, key):
    return Session(replace(served.offer, scorer=PUBLIC), key)


def answered(served, request: bytes, body: bytes | None = None, signing=SIGNING, **changes):
    """What an honest scorer answers, or one that is told to differ."""
    message = read_message(RequestHeader, request)
    asked = message.header
    if body is None:
        body = served.scorer().score(asked.packing, asked.rows, message.body)
    facts = {
        "version": 1,
        "request": message.digest,
        "model": asked.model,
        "key": asked.key,
        "rows": asked.rows,
        "time": asked.time,
        "audit": "0" * 64,
        "body_bytes": len(body),
        "body": sha256(body),
    }
    return write_message(AnswerHeader(**(facts | changes)), body, signing)


class TestKeyFile:
    def test_comes_back_open_and_closed(self, key, tmp_path):
        for passphrase in ("", "correct horse"):
            path = tmp_path / f"{len(passphrase)}.key"
            key.write(path, passphrase)
            assert path.stat().st_mode & 0o777 == 0o600
            again = KeyFile.read(path, passphrase)
            assert again == key
            shown = base64.b64encode(key.signing).decode() in path.read_text()
            assert shown is (passphrase == "")

    def test_a_closed_file_holds_no_secret_and_needs_its_passphrase(self, key, tmp_path):
        path = tmp_path / "closed.key"
        key.write(path, "correct horse")
        with pytest.raises(KeyFileError, match="PENSTOCK_PRIVATE_PASSPHRASE"):
            KeyFile.read(path)
        with pytest.raises(KeyFileError, match="does not open"):
            KeyFile.read(path, "wrong horse")
        open_path = tmp_path / "open.key"
        key.write(open_path)
        assert path.read_text().count(key.key_id) == 0
        secret = open_path.read_text().split('"secret": "')[1][:100]
        assert secret not in path.read_text()

    def test_is_refused_where_others_may_read_it(self, key, tmp_path):
        path = tmp_path / "loose.key"
        key.write(path)
        path.chmod(0o640)
        with pytest.raises(KeyFileError, match="chmod 600"):
            KeyFile.read(path)

    def test_other_files_are_refused(self, key, tmp_path):
        path = tmp_path / "owner.key"
        key.write(path)
        text = path.read_text()
        for wrong in ("", "{}", text.replace('"version": 1', '"version": 2', 1), text[:-40]):
            path.write_text(wrong)
            with pytest.raises(KeyFileError):
                KeyFile.read(path)
        path.write_bytes(b" " * (5 * 2**20))
        with pytest.raises(KeyFileError, match="no key file"):
            KeyFile.read(path)

    def test_a_key_never_shows_its_secret(self, key):
        assert repr(key) == f"KeyFile({key.key_id})"

    def test_is_written_whole_or_not_at_all(self, key, tmp_path, monkeypatch):
        path = tmp_path / "owner.key"
        key.write(path)

        def full(_):
            raise OSError("disk is full")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            replace(key, released=7).write(path)
        assert KeyFile.read(path).released == 0
        assert [one.name for one in tmp_path.iterdir()] == ["owner.key"]

    def test_names_and_times_are_checked(self):
        with pytest.raises(KeyFileError, match="366 days"):
            KeyFile.new("bank-a", "n4096-54", days=400)
        with pytest.raises(ValueError, match="tenant"):
            KeyFile.new("bank a", "n4096-54")
        with pytest.raises(ValueError, match="unknown"):
            KeyFile.new("bank-a", "n512-60")
        assert KeyFile.new("bank-a", "n4096-54").registration.replaces == NOTHING

    def test_a_budget_is_counted_in_the_file_before_anything_is_released(self, key, tmp_path):
        path = tmp_path / "owner.key"
        key.write(path, "pass")
        for used in (3, 6):
            assert KeyFile.spend(path, "pass", 3, 8).released == used
        with pytest.raises(KeyFileError, match="has released 6 values, and its noise hides 8"):
            KeyFile.spend(path, "pass", 3, 8)
        assert KeyFile.read(path, "pass").released == 6

    def test_two_that_count_at_once_do_not_count_once(self, key, tmp_path):
        path = tmp_path / "owner.key"
        key.write(path)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: KeyFile.spend(path, "", 1, 100), range(40)))
        assert KeyFile.read(path).released == 40


class TestSession:
    def test_scores_come_back_in_the_order_of_the_table(self, session, served):
        table = rows(40, 3)
        sealed = session.seal(table)
        request = session.request(sealed)
        found = session.open(sealed, request, answered(served, request))
        np.testing.assert_allclose(found, made("linear").score(table), atol=1e-4)
        assert sealed.sealed.rows == 40 + CANARIES

    def test_rows_that_cannot_be_encrypted_are_told_and_the_others_go_on(self, session, served):
        table = rows(10, 3)
        table[2, 0], table[5, 1], table[7, 2] = np.nan, 1e9, np.inf
        sealed = session.seal(table)
        assert list(sealed.refused) == [2, 5, 7]
        assert sealed.refused[5] == "x1 lies outside what the model was compiled for"
        request = session.request(sealed)
        found = session.open(sealed, request, answered(served, request))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(found[:, 0])), [2, 5, 7])
        kept = [0, 1, 3, 4, 6, 8, 9]
        np.testing.assert_allclose(found[kept], made("linear").score(table[kept]), atol=1e-4)
        with pytest.raises(RowError):
            session.seal(np.full((2, 7), np.nan))

    def test_canaries_lie_at_places_that_change(self, session):
        places = {tuple(session.seal(rows(30)).places) for _ in range(5)}
        assert len(places) == 5
        for one in places:
            assert sum(place < 0 for place in one) == CANARIES
            assert [place for place in one if place >= 0] == list(range(30))

    def test_every_request_is_another(self, session):
        sealed = session.seal(rows(3))
        headers = [read_message(RequestHeader, session.request(sealed)).header for _ in range(2)]
        assert headers[0].nonce != headers[1].nonce

    def test_an_answer_that_is_not_the_scorers_is_refused(self, session, served):
        sealed = session.seal(rows(5))
        request = session.request(sealed)
        body = served.scorer().score(sealed.sealed.packing, 8, sealed.sealed.content)
        wrong = {
            "another key": answered(served, request, body, Ed25519PrivateKey.generate()),
            "another request": answered(served, session.request(sealed), body),
            "another model": answered(served, request, body, model="f" * 64),
            "another owner": answered(served, request, body, key="f" * 64),
            "other rows": answered(served, request, body, rows=7),
            "another body": answered(served, request, body)[:-1] + b"\x00",
            "no answer": b"",
            "a request": request,
        }
        for what, answer in wrong.items():
            with pytest.raises(AnswerError):
                pytest.fail(f"{what}: {session.open(sealed, request, answer)}")
        assert session.open(sealed, request, answered(served, request, body)).shape == (5, 1)

    def test_a_wrong_model_behind_a_right_signature_fails_on_the_canaries(self, session, served):
        sealed = session.seal(rows(5))
        request = session.request(sealed)
        other = compile_model(made("linear", 1), rows(500))
        from tasks.privacy.score import EncryptedScorer

        body = EncryptedScorer(other.plan, other.whole).score(
            sealed.sealed.packing, sealed.sealed.rows, sealed.sealed.content
        )
        with pytest.raises(AnswerError, match="canaries"):
            session.open(sealed, request, answered(served, request, body))

    def test_answers_of_other_rows_fail_on_the_canaries(self, session, served):
        """The answer to a request of the same owner, signed to another one."""
        one, other = session.seal(rows(300, 1)), session.seal(rows(300, 2))
        request = session.request(one)
        body = served.scorer().score(other.sealed.packing, other.sealed.rows, other.sealed.content)
        with pytest.raises(AnswerError, match="canaries"):
            session.open(one, request, answered(served, request, body))

    def test_rows_of_another_key_are_refused(self, session, served):
        sealed = replace(session.seal(rows(5)), key="0" * 64)
        request = session.request(sealed)
        with pytest.raises(AnswerError, match="another key"):
            session.open(sealed, request, answered(served, request))


class TestSealedFile:
    def test_comes_back(self, session, tmp_path):
        table = rows(6)
        table[1, 1] = np.nan
        sealed = session.seal(table)
        write_sealed(tmp_path / "rows.sealed", sealed)
        assert read_sealed(tmp_path / "rows.sealed") == sealed

    def test_other_files_are_refused(self, session, tmp_path):
        path = tmp_path / "rows.sealed"
        write_sealed(path, session.seal(rows(6)))
        content = path.read_bytes()
        for wrong in (b"", b"PSSR", content[:50], b"XXXX" + content[4:]):
            path.write_bytes(wrong)
            with pytest.raises(SealedFileError):
                read_sealed(path)
        path.write_bytes(content.replace(b'"rows": 9', b'"rows": 8'))
        with pytest.raises(SealedFileError, match="changed"):
            read_sealed(path)


class TestRelease:
    def test_noise_has_the_deviation_and_lies_on_a_grid(self):
        scores = np.linspace(-3, 3, 20_000)[:, None]
        found = released(scores, 0.01)
        assert np.std(found - scores) == pytest.approx(
            0.01 * np.sqrt(1 + 1 / 12 * (2**-7 / 0.01) ** 2), rel=0.03
        )
        assert abs((found - scores).mean()) < 3e-4
        np.testing.assert_array_equal(found, np.rint(found * 2**7) / 2**7)

    def test_two_releases_differ(self):
        scores = np.zeros((50, 1))
        assert (released(scores, 1.0) != released(scores, 1.0)).any()

    def test_owner_only_releases_nothing(self):
        with pytest.raises(ReleaseError, match="bands may leave"):
            released(np.zeros((1, 1)), 0.0)

    def test_released_scores_are_within_what_was_proved(self):
        compiled = compile_model(made("linear"), rows(500), CompileOptions(profile="shareable"))
        clear = made("linear").score(rows(500))
        error = np.abs(released(clear, compiled.proof.flooding) - clear).max()
        assert error <= compiled.proof.released


class TestTables:
    def test_columns_are_found_by_name(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("b,more,a\n1,x,2\n\n3,,oops\n5\n")
        found = read_rows(path, ["a", "b"])
        np.testing.assert_array_equal(found, [[2, 1], [np.nan, 3], [np.nan, 5]])
        with pytest.raises(TableError, match="lacks 1 columns of the model, such as 'c'"):
            read_rows(path, ["a", "c"])

    def test_arrays(self, tmp_path):
        np.save(tmp_path / "rows.npy", np.ones((2, 3), np.float32))
        assert read_rows(tmp_path / "rows.npy", "abc").dtype == np.float64
        with pytest.raises(TableError, match=r"not numbers \[n, 2\]"):
            read_rows(tmp_path / "rows.npy", "ab")
        np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(TableError, match="pickle"):
            read_rows(tmp_path / "objects.npy", "ab")

    @pytest.mark.parametrize("values", [True, False])
    def test_scores_are_written_row_by_row(self, tmp_path, values):
        readout = Readout(thresholds=(("review", 0.5),))
        path = tmp_path / "scores.csv"
        scores = np.array([[0.0], [np.nan], [-1.0]])
        write_scores(path, scores, readout, {1: "a is not a finite number"}, values=values)
        with path.open() as file:
            lines = list(csv.DictReader(file))
        assert [one["band"] for one in lines] == ["review", "", ""]
        assert lines[1]["refused"] == "a is not a finite number"
        if values:
            assert float(lines[0]["probability"]) == 0.5
            assert lines[1]["probability"] == ""
        else:
            assert set(lines[0]) == {"row", "band", "refused"}

    def test_classes(self, tmp_path):
        path = tmp_path / "scores.csv"
        write_scores(path, np.array([[0.0, 5.0]]), Readout("class"), {}, values=True)
        assert path.read_text().splitlines()[0] == "row,class_0,class_1,band,refused"
        assert path.read_text().splitlines()[1].split(",")[3] == "1"


class TestBundle:
    def test_both_halves_must_be_of_one_model(self, served, tmp_path):
        compiled = compile_model(made("linear", 2), rows(500))
        write_bundle(tmp_path, compiled, "other")
        (tmp_path / "offer.json").write_text(served.offer.to_json())
        with pytest.raises(BundleError, match="not of one model"):
            read_bundle(tmp_path)

    def test_what_is_none_is_refused(self, tmp_path):
        with pytest.raises(BundleError, match="penstock private compile"):
            read_bundle(tmp_path)
        for wrong in ("[]", "{}", '{"format": "penstock-private-scorer", "version": 9}'):
            (tmp_path / "scorer.json").write_text(wrong)
            with pytest.raises(BundleError):
                read_bundle(tmp_path)
        with pytest.raises(BundleError, match="no name"):
            write_bundle(tmp_path, compile_model(made("linear"), rows(50)), "a/b")

    def test_holds_no_key_of_anyone(self, tmp_path, key):
        write_bundle(tmp_path, compile_model(made("linear"), rows(50)), "small")
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        for word in (b"secret", b"private_key", b"signing"):
            assert word not in content
        assert key.secret[100:140] not in content


class TestScorerAddress:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("http://scorer.example", "clear"),
            ("ftp://127.0.0.1", "no address"),
            ("127.0.0.1:8030", "no address"),
        ],
    )
    def test_tokens_do_not_travel_in_the_clear(self, url, said):
        with pytest.raises(ScorerError, match=said):
            Scorer(url, "token")

    def test_a_token_is_asked_for_and_never_shown(self):
        with pytest.raises(ScorerError, match="PENSTOCK_TOKEN"):
            Scorer("http://127.0.0.1:1", "")
        assert "s3cret" not in repr(Scorer("http://127.0.0.1:1", "s3cret"))

    def test_nobody_there(self):
        with pytest.raises(ScorerError, match="does not answer"):
            Scorer("http://127.0.0.1:9", "token", seconds=2).models()


class TestClassifier:
    def test_modes_agree(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 5))
        y = x[:, 0] + 0.3 * rng.normal(size=400) > 0
        classifier = EncryptedClassifier().fit(x, y)
        with pytest.raises(ModelError, match="compile"):
            classifier.predict(x, "execute")
        proof = classifier.compile(x).proof
        clear = classifier.predict_proba(x)
        for mode in ("simulate", "execute"):
            assert np.abs(classifier.predict_proba(x, mode) - clear).max() <= proof.likely / 4
        assert (classifier.predict(x) == y).mean() > 0.85

    def test_must_be_fitted(self):
        with pytest.raises(ModelError, match="fit"):
            EncryptedClassifier().predict(np.ones((1, 2)))
