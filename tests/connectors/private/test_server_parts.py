"""What the scorer's server consists of: key registry, replay window, audit log, processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from connectors.private.bundle import write_bundle
from connectors.private.client.documents import canonical
from connectors.private.client.registration import NOTHING, Registration, write_registration
from connectors.private.server.audit import FIRST, AuditLog, verify_log
from connectors.private.server.key_registry import DAY, KeyRefusedError, KeyRegistry
from connectors.private.server.pool import BusyError, GoneError, Pool, PoolConfig, ScoringError
from connectors.private.server.replay import ReplayError, ReplayWindow
from connectors.private.server.server import signing_key
from connectors.private.server.settings import private_settings
from infra.errors import ConfigurationError
from tasks.privacy.compile import compile_model
from tests.processes import alive, wait_for
from tests.tasks.privacy.models import made, rows

NOW = 1_700_000_000.0
SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(32))


def registration(**changes) -> bytes:
    facts = {
        "version": 1,
        "tenant": "bank-a",
        "parameters": "n4096-54",
        "public": SIGNING.public_key().public_bytes_raw().hex(),
        "created": int(NOW),
        "expires": int(NOW) + 90 * DAY,
        "replaces": NOTHING,
        "salt": "d" * 32,
    }
    return write_registration(Registration(**(facts | changes)), SIGNING)


class TestKeyRegistry:
    @pytest.fixture
    def keys(self, tmp_path):
        return KeyRegistry(tmp_path / "keys.jsonl", overlap_days=7, max_keys=3)

    def test_a_key_holds_from_registration_to_its_end(self, keys):
        key = keys.register(registration(), "bank-a", NOW).registration.key_id
        assert keys.find(key, NOW + 89 * DAY).registration.tenant == "bank-a"
        with pytest.raises(KeyRefusedError, match="expired") as refused:
            keys.find(key, NOW + 90 * DAY)
        assert refused.value.code == "expired-key"
        with pytest.raises(KeyRefusedError, match="not registered"):
            keys.find("0" * 64, NOW)

    def test_registering_twice_is_once(self, keys, tmp_path):
        first = keys.register(registration(), "bank-a", NOW)
        assert keys.register(registration(), "bank-a", NOW + 5) == first
        assert len((tmp_path / "keys.jsonl").read_text().splitlines()) == 1

    def test_a_replaced_key_goes_on_for_a_while(self, keys):
        old = keys.register(registration(), "bank-a", NOW).registration.key_id
        new = registration(replaces=old, salt="e" * 32)
        new_id = keys.register(new, "bank-a", NOW + 100).registration.key_id
        assert keys.find(old, NOW + 100 + 7 * DAY - 1)
        assert keys.find(new_id, NOW + 100 + 8 * DAY)
        with pytest.raises(KeyRefusedError):
            keys.find(old, NOW + 100 + 7 * DAY)

    def test_a_revoked_key_ends_at_once_and_stays_ended(self, keys, tmp_path):
        key = keys.register(registration(), "bank-a", NOW).registration.key_id
        keys.revoke(key, NOW)
        keys.revoke(key, NOW)
        for one in (keys, KeyRegistry(tmp_path / "keys.jsonl")):
            with pytest.raises(KeyRefusedError) as refused:
                one.find(key, NOW)
            assert refused.value.code == "revoked-key"
        # and cannot be brought back by registering it again
        assert keys.register(registration(), "bank-a", NOW).revoked

    def test_everything_is_there_after_a_restart(self, keys, tmp_path):
        old = keys.register(registration(), "bank-a", NOW).registration.key_id
        keys.register(registration(replaces=old, salt="e" * 32), "bank-a", NOW)
        again = KeyRegistry(tmp_path / "keys.jsonl", overlap_days=7)
        assert again.look(old) == keys.look(old)

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"tenant": "bank-b"}, "other-tenant"),
            ({"parameters": "n512-60"}, "no-registration"),
            ({"created": int(NOW) + 301}, "from-the-future"),
            ({"created": int(NOW) - 9, "expires": int(NOW)}, "expired-key"),
            ({"expires": int(NOW) + 367 * DAY}, "too-long"),
            ({"replaces": "1" * 64}, "unknown-key"),
        ],
    )
    def test_what_may_not_be_registered(self, keys, changes, code):
        with pytest.raises(KeyRefusedError) as refused:
            keys.register(registration(**changes), "bank-a", NOW)
        assert refused.value.code == code

    def test_nobody_replaces_the_key_of_another(self, keys):
        theirs = keys.register(registration(tenant="bank-b"), "bank-b", NOW).registration.key_id
        with pytest.raises(KeyRefusedError, match="not known"):
            keys.register(registration(replaces=theirs), "bank-a", NOW)
        assert keys.find(theirs, NOW + 80 * DAY)

    def test_keys_of_one_tenant_are_limited(self, keys):
        made_keys = [
            keys.register(registration(salt=str(i) * 32), "bank-a", NOW).registration.key_id
            for i in range(3)
        ]
        with pytest.raises(KeyRefusedError, match="revoke some"):
            keys.register(registration(salt="9" * 32), "bank-a", NOW)
        keys.revoke(made_keys[0], NOW)
        keys.register(registration(salt="9" * 32), "bank-a", NOW)

    def test_a_line_that_was_not_written_whole_never_counted(self, keys, tmp_path):
        keys.register(registration(), "bank-a", NOW)
        path = tmp_path / "keys.jsonl"
        whole = path.read_text()
        path.write_text(whole + whole[:50])
        again = KeyRegistry(path)
        again.register(registration(salt="e" * 32), "bank-a", NOW)
        assert len(KeyRegistry(path)._entries) == 2

    def test_what_a_tenant_may_ever_register_is_limited(self, tmp_path):
        keys = KeyRegistry(tmp_path / "keys.jsonl", max_keys=1)
        for i in range(20):
            entry = keys.register(registration(salt=f"{i:032x}"), "bank-a", NOW)
            keys.revoke(entry.registration.key_id, NOW)
        with pytest.raises(KeyRefusedError, match="ask an operator"):
            keys.register(registration(salt="f" * 32), "bank-a", NOW)
        keys.register(registration(tenant="bank-b"), "bank-b", NOW)

    def test_an_overlap_that_is_set_anew_brings_no_key_back(self, tmp_path):
        path = tmp_path / "keys.jsonl"
        keys = KeyRegistry(path, overlap_days=0)
        old = keys.register(registration(), "bank-a", NOW).registration.key_id
        keys.register(registration(replaces=old, salt="e" * 32), "bank-a", NOW)
        with pytest.raises(KeyRefusedError):
            KeyRegistry(path, overlap_days=30).find(old, NOW + 1)

    def test_a_file_changed_by_hand_is_told_with_its_line(self, keys, tmp_path):
        keys.register(registration(), "bank-a", NOW)
        path = tmp_path / "keys.jsonl"
        path.write_text(path.read_text().replace(b"bank-a".hex(), b"bank-b".hex()))
        with pytest.raises(ConfigurationError, match="line 1: no event"):
            KeyRegistry(path)


class TestReplayWindow:
    def test_a_request_counts_once(self):
        window = ReplayWindow(300, NOW)
        window.take("a", "n", NOW + 1, NOW + 2)
        window.take("b", "n", NOW + 1, NOW + 2)
        with pytest.raises(ReplayError, match="came before"):
            window.take("a", "n", NOW + 1, NOW + 250)

    def test_times_outside_of_the_window_are_refused(self):
        window = ReplayWindow(300, NOW)
        for made_at, now in ((NOW, NOW + 301), (NOW + 301, NOW)):
            with pytest.raises(ReplayError, match="300 s at most"):
                window.take("a", "n", made_at, now)

    def test_what_is_older_than_the_server_is_refused(self):
        """It cannot know whether it answered it before it stopped."""
        with pytest.raises(ReplayError, match="older than this server"):
            ReplayWindow(300, NOW).take("a", "n", NOW - 1, NOW + 1)

    def test_what_the_server_before_may_have_taken_is_refused(self):
        """By a clock that was ahead: the new server opens when that can no longer be."""
        window = ReplayWindow(300, NOW, NOW - 1)
        with pytest.raises(ReplayError, match="older than this server"):
            window.take("a", "n", NOW + 4, NOW + 4)
        window.take("a", "n", NOW + 4.5, NOW + 4.5)

    def test_memory_is_given_back(self):
        window = ReplayWindow(10, NOW)
        for i in range(1, 101):
            window.take("a", str(i), NOW + i, NOW + i)
        assert len(window) <= 12

    @given(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(-9, 9), st.integers(0, 4), st.booleans()),
            max_size=40,
        )
    )
    def test_nothing_ever_counts_twice(self, steps):
        """Whatever clocks say, and restarts forget: a nonce with one date is taken once."""
        window, now, taken, last = ReplayWindow(10, NOW - 1_000), NOW, set(), 0
        for nonce, off, wait, restarted in steps:
            now += wait
            if restarted:
                window = ReplayWindow(10, now, last)
            for made_at in {int(now) + off, *(then for other, then in taken if other == nonce)}:
                try:
                    window.take("a", str(nonce), made_at, now)
                except ReplayError:
                    continue
                assert (nonce, made_at) not in taken
                taken.add((nonce, made_at))
                last = now


class TestAudit:
    def written(self, tmp_path, n=5):
        log = AuditLog(tmp_path / "audit.jsonl")
        digests = [log.note("scored", rows=i) for i in range(n)]
        log.close()
        return tmp_path / "audit.jsonl", digests

    def test_an_untouched_log_is_sound_and_holds_its_receipts(self, tmp_path):
        path, digests = self.written(tmp_path)
        found = verify_log(path, digests)
        assert found.sound
        assert (found.lines, found.head) == (5, digests[-1])
        assert verify_log(path, ["f" * 64]).missing == ("f" * 64,)

    def test_its_end_is_the_latest_time_in_its_last_lines(self, tmp_path):
        """A slow request that began early may be the last to be written."""
        path = tmp_path / "slow.jsonl"
        log = AuditLog(path)
        assert log.ended == 0
        log.note("scored", at=139_000)
        log.note("scored", at=100_000)
        log.close()
        log = AuditLog(path)
        log.close()
        assert log.ended == 139

    def test_goes_on_after_a_restart(self, tmp_path):
        path, digests = self.written(tmp_path)
        log = AuditLog(path)
        assert log.head == digests[-1]
        log.note("started")
        log.close()
        assert verify_log(path).lines == 6
        assert verify_log(path).sound

    @pytest.mark.parametrize(
        "changed",
        [
            lambda lines: [lines[0], lines[1].replace('"rows":1', '"rows":9'), *lines[2:]],
            lambda lines: [lines[0], *lines[2:]],
            lambda lines: [lines[1], lines[0], *lines[2:]],
            lambda lines: [*lines[:2], lines[1], *lines[2:]],
            lambda lines: [*lines[:4], lines[4][:20]],
            lambda lines: ["[]", *lines],
        ],
    )
    def test_any_change_is_found(self, tmp_path, changed):
        path, _ = self.written(tmp_path)
        path.write_text("\n".join(changed(path.read_text().splitlines())) + "\n")
        assert verify_log(path).trouble.startswith("line ")

    def test_a_tail_that_was_cut_off_is_found_by_a_receipt(self, tmp_path):
        path, digests = self.written(tmp_path)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
        assert verify_log(path).sound
        assert verify_log(path, digests).missing == tuple(sorted(digests[3:]))

    def test_a_chain_that_was_made_anew_is_found_by_a_receipt(self, tmp_path):
        _, digests = self.written(tmp_path)
        (tmp_path / "forged").mkdir()
        forged = AuditLog(tmp_path / "forged" / "audit.jsonl")
        for i in range(5):
            forged.note("scored", rows=i + (i == 1))
        forged.close()
        found = verify_log(tmp_path / "forged" / "audit.jsonl", digests)
        assert not found.trouble
        assert set(found.missing) == set(digests[1:])

    def test_a_second_spelling_of_a_member_is_found(self, tmp_path):
        path, _ = self.written(tmp_path)
        text = path.read_text()
        path.write_text(text.replace('{"before"', '{"rows":999999,"before"', 1))
        assert verify_log(path).trouble.startswith("line 1")

    def test_a_broken_end_is_not_gone_on_from(self, tmp_path):
        path, _ = self.written(tmp_path)
        whole = path.read_text()
        for wrong in (whole[:-5], whole.replace('"rows":4', '"rows":5'), whole + "x\n"):
            path.write_text(wrong)
            with pytest.raises(ConfigurationError, match="last line"):
                AuditLog(path)

    def test_lines_are_in_one_form(self, tmp_path):
        path, _ = self.written(tmp_path, 1)
        line = path.read_text().strip()
        assert canonical(json.loads(line)).decode() == line
        assert json.loads(line)["before"] == FIRST


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("compiled")
    write_bundle(place, compile_model(made("linear"), rows(300)), "small")
    return place


def with_pool(folder, work, **config):
    """Run something with processes, and end them whatever happens."""

    async def run():
        pool = Pool([folder], PoolConfig(**config))
        try:
            await pool.start()
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


class TestPool:
    @pytest.fixture(scope="class")
    @classmethod
    def plan(cls, folder):
        return compile_model(made("linear"), rows(300)).plan

    def test_scores_and_refuses(self, folder, plan):
        async def work(pool):
            content = bytes(plan.request_bytes("products", 1))
            answer = await pool.score(plan.digest, "products", 1, content)
            with pytest.raises(ScoringError, match="not below prime") as refused:
                await pool.score(plan.digest, "products", 1, b"\xff" * len(content))
            again = await pool.score(plan.digest, "products", 1, content)
            return answer, refused.value.refused, again, pool.deaths

        answer, refused, again, deaths = with_pool(folder, work)
        assert answer == again
        assert len(answer) == plan.answer_bytes("products", 1)
        assert (refused, deaths) == (True, 0)

    def test_one_that_dies_costs_one_request(self, folder, plan):
        async def work(pool):
            (process,) = pool._all
            content = bytes(plan.request_bytes("rows", 4096 * 40))
            asked = asyncio.create_task(pool.score(plan.digest, "rows", 4096 * 40, content))
            await asyncio.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ScoringError) as died:
                await asked
            small = bytes(plan.request_bytes("products", 1))
            answer = await pool.score(plan.digest, "products", 1, small)
            return died.value.refused, len(answer), pool.deaths

        refused, length, deaths = with_pool(folder, work)
        assert (refused, deaths) == (False, 1)
        assert length == plan.answer_bytes("products", 1)

    def test_one_that_takes_too_long_is_killed(self, folder, plan):
        async def work(pool):
            (process,) = pool._all
            os.kill(process.pid, signal.SIGSTOP)
            content = bytes(plan.request_bytes("products", 1))
            with pytest.raises(ScoringError, match=r"more than 0\.5 seconds"):
                await pool.score(plan.digest, "products", 1, content)
            answer = await pool.score(plan.digest, "products", 1, content)
            return process.pid, len(answer)

        pid, length = with_pool(folder, work, seconds=0.5)
        assert length == plan.answer_bytes("products", 1)
        wait_for(lambda: not alive(pid))

    def test_one_that_wants_too_much_memory_costs_one_request(self, folder, plan):
        async def work(pool):
            content = bytes(plan.request_bytes("rows", 4096 * 600))
            with pytest.raises(ScoringError, match="want of memory"):
                await pool.score(plan.digest, "rows", 4096 * 600, content)
            small = bytes(plan.request_bytes("products", 1))
            return len(await pool.score(plan.digest, "products", 1, small))

        length = with_pool(folder, work, memory_mib=64)
        assert length == plan.answer_bytes("products", 1)

    def test_a_client_that_goes_away_leaves_nothing_behind(self, folder, plan):
        """The answer to a request that was given up must not become that of the next."""

        async def work(pool):
            content = bytes(plan.request_bytes("rows", 4096 * 20))
            asked = asyncio.create_task(pool.score(plan.digest, "rows", 4096 * 20, content))
            await asyncio.sleep(0.02)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            small = bytes(plan.request_bytes("products", 1))
            return len(await pool.score(plan.digest, "products", 1, small))

        assert with_pool(folder, work) == plan.answer_bytes("products", 1)

    def test_one_whose_client_went_while_it_waited_takes_no_process(self, folder, plan):
        async def work(pool):
            asked = []

            async def gone():
                asked.append(pool._idle.qsize())
                return True

            small = bytes(plan.request_bytes("products", 1))
            with pytest.raises(GoneError):
                await pool.score(plan.digest, "products", 1, small, gone)
            return asked, len(await pool.score(plan.digest, "products", 1, small))

        asked, length = with_pool(folder, work)
        assert (asked, length) == ([0], plan.answer_bytes("products", 1))

    def test_too_many_that_wait_are_turned_away(self, folder, plan):
        async def work(pool):
            content = bytes(plan.request_bytes("rows", 4096 * 20))
            asked = [
                asyncio.create_task(pool.score(plan.digest, "rows", 4096 * 20, content))
                for _ in range(3)
            ]
            await asyncio.sleep(0)
            with pytest.raises(BusyError, match="2 requests wait"):
                await pool.score(plan.digest, "rows", 4096 * 20, content)
            return [len(await one) for one in asked]

        assert with_pool(folder, work, waiting=2) == [plan.answer_bytes("rows", 4096 * 20)] * 3

    def test_a_process_knows_no_secret_and_may_open_nothing(self, folder, plan, monkeypatch):
        monkeypatch.setenv("PENSTOCK_API_TOKENS", "bank-a:score:0123456789abcdef0123456789")

        async def work(pool):
            (process,) = pool._all
            about = psutil.Process(process.pid)
            return (
                about.environ(),
                about.rlimit(psutil.RLIMIT_NOFILE),
                about.rlimit(psutil.RLIMIT_FSIZE),
                about.net_connections(),
                [m.path for m in about.memory_maps() if "tenseal" in m.path],
            )

        environment, files, size, sockets, tenseal = with_pool(folder, work)
        assert not any(name.startswith("PENSTOCK") for name in environment)
        assert (files, size) == ((3, 3), (0, 0))
        assert not sockets
        assert not tenseal

    def test_none_is_left_when_it_closes(self, folder, plan):
        async def work(pool):
            return [process.pid for process in pool._all]

        for pid in with_pool(folder, work, workers=2):
            assert not alive(pid)

    def test_a_model_that_was_replaced_is_refused_and_costs_no_process(self, folder):
        async def work(pool):
            with pytest.raises(ScoringError, match="replaced since the server started") as refused:
                await pool.score("f" * 64, "products", 1, b"")
            return refused.value.refused, pool.deaths

        assert with_pool(folder, work) == (True, 0)

    def test_waiting_for_a_process_has_an_end(self, folder, plan):
        async def work(pool):
            content = bytes(plan.request_bytes("rows", 4096 * 60))
            asked = asyncio.create_task(pool.score(plan.digest, "rows", 4096 * 60, content))
            await asyncio.sleep(0)
            with pytest.raises(BusyError, match="no process was free"):
                await pool.score(plan.digest, "rows", 4096 * 60, content)
            return len(await asked)

        assert with_pool(folder, work, queue_seconds=0.05) == plan.answer_bytes("rows", 4096 * 60)

    def test_a_folder_without_a_model_does_not_start(self, tmp_path):
        with pytest.raises(ScoringError, match="does not start"):
            with_pool(tmp_path, lambda pool: None)


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"host": "0.0.0.0"}, "tls_certificate and tls_key"),
            ({"bodies_mib": 1}, "at least max_body_mib"),
            ({"tokens_file": "nowhere"}, "is not a file"),
            ({"workers": 0}, "workers"),
        ],
    )
    def test_name_the_fix(self, changes, said):
        with pytest.raises(ConfigurationError, match=said):
            private_settings(**changes)

    def test_the_signing_key_is_made_once_and_kept_close(self, tmp_path):
        path = tmp_path / "home" / "scorer.key"
        made_key = signing_key(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert signing_key(path).private_bytes_raw() == made_key.private_bytes_raw()
        path.chmod(0o644)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            signing_key(path)
        path.chmod(0o600)
        path.write_text("no key")
        with pytest.raises(ConfigurationError, match="no signing key"):
            signing_key(path)
