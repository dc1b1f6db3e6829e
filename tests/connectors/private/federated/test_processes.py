"""A coordinator and branches that are processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, suppress

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.private.federated.branch_client import BranchClient, CoordinatorAddress
from connectors.private.federated.branch_folder import (
    IDENTITY,
    BranchFolderError,
    make_identity,
    read_branch,
    read_identity,
)
from connectors.private.federated.channel import ChannelError
from connectors.private.federated.coordinator import Coordinator, CoordinatorSettings
from connectors.private.federated.handshake import RefusedError
from connectors.private.federated.local_branches import LocalBranches
from tasks.privacy.federated.branch_work import BranchWork
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.secure_sum import TooFewBranchesError
from tasks.privacy.federated.simulate import simulation
from tasks.privacy.federated.training import FederatedTraining
from tests.connectors.private.federated.certificates import self_signed
from tests.processes import wait_for

COLUMNS = ("amount", "hour", "risk")
NAMES = [f"branch-{i:03d}" for i in range(4)]


def parts(rows=80):
    rng = np.random.default_rng(1)
    return {
        name: (rng.normal(size=(rows, 3)).astype(np.float32), rng.integers(0, 2, rows))
        for name in NAMES
    }


def plan(**changes):
    return TrainingPlan(**({"columns": COLUMNS, "hidden": (3,), "rounds": 5} | changes))


class Site:
    """A coordinator and four branches."""

    def __init__(self, branches, coordinator, agreed, stack):
        self.branches, self.coordinator, self.leave = branches, coordinator, stack.close
        self.training = FederatedTraining(
            agreed, branches.roster, self.asked, coordinator.present, coordinator.nonce
        )
        self.before = {}

    def asked(self, requests):
        """Do what a test wants done before a stage, once."""
        stage = next(iter(requests.values())).stage
        self.before.pop(stage, lambda: None)()
        return self.coordinator.ask(requests)


@pytest.fixture
def site(tmp_path, end_with_run):
    """Starts one: ``site(plan, settings)``."""
    groups = []

    def started(group):
        groups.append(group)
        end_with_run(group)

    with ExitStack() as stack:

        def start(agreed=None, settings=None, *, authority=None):
            agreed = agreed or plan()
            branches = LocalBranches(tmp_path, parts(), threshold=3, started=started)
            stack.enter_context(branches)
            coordinator = stack.enter_context(Coordinator(agreed, branches.roster, settings))
            branches.start(agreed, CoordinatorAddress("127.0.0.1", coordinator.port, authority))
            coordinator.wait_for(4, 60)
            return Site(branches, coordinator, agreed, stack)

        yield start
    for group in groups:
        end_with_run(-group)


class TestRounds:
    def test_give_the_model_that_one_process_gives(self, site):
        """Bit for bit: the same messages, the same sums."""
        made = site()
        alone = simulation(plan(), list(parts().values()), threshold=3).training
        for _ in range(5):
            report, expected = made.training.step(), alone.step()
            assert report.loss == expected.loss
            np.testing.assert_array_equal(made.training.last.steps, alone.last.steps)
        np.testing.assert_array_equal(made.training.parameters, alone.parameters)
        made.leave()
        assert [process.returncode for process in made.branches.processes.values()] == [0] * 4

    def test_go_on_when_a_branch_dies_in_the_middle_and_comes_back(self, site):
        made = site()
        made.training.step()
        made.before["values"] = lambda: made.branches.kill("branch-002")
        report = made.training.step()
        assert report.left == ("branch-002",)
        assert report.survivors == ("branch-000", "branch-001", "branch-003")
        assert report.rows == 240
        made.branches.start_one("branch-002")
        made.coordinator.wait_for(4, 60)
        assert len(made.training.step().survivors) == 4

    def test_go_on_without_one_that_is_too_slow_which_may_rejoin(self, site):
        made = site(settings=CoordinatorSettings(answer_seconds=2.5))
        made.training.step()
        sleeper = made.branches.processes["branch-001"].pid
        made.before["values"] = lambda: os.kill(sleeper, signal.SIGSTOP)
        report = made.training.step()
        assert report.left == ("branch-001",)
        os.kill(sleeper, signal.SIGCONT)
        made.coordinator.wait_for(4, 30)
        assert len(made.training.step().survivors) == 4

    @pytest.mark.long
    def test_are_no_more_than_the_plan_has_though_a_branch_starts_anew(self, site):
        made = site(plan(rounds=3))
        made.training.step()
        made.before["confirm"] = lambda: made.branches.kill("branch-000")
        made.training.step()
        made.branches.start_one("branch-000")
        made.coordinator.wait_for(4, 60)
        made.training.step()
        with pytest.raises(RefusedError, match="'branch-000' refuses: the plan has 3 sums"):
            made.training.step()
        wait_for(lambda: "the plan has 3 sums" in made.branches.log("branch-000"))

    @pytest.mark.long
    def test_moments_are_told_once_though_all_branches_start_anew(self, site):
        """A second sum without one branch would tell that one's moments."""
        made = site()
        made.training.step()
        for name in NAMES:
            made.branches.kill(name)
        roster = made.branches.roster
        with Coordinator(plan(), roster) as second:
            made.branches.start(plan(), CoordinatorAddress("127.0.0.1", second.port))
            second.wait_for(4, 60)
            again = FederatedTraining(plan(), roster, second.ask, second.present, second.nonce)
            with pytest.raises(RefusedError, match="the plan has 1 sums of task 'moments'"):
                again.step()

    def test_below_the_threshold_are_given_up(self, site):
        made = site()
        made.training.step()
        before = made.training.parameters

        def kill_two():
            made.branches.kill("branch-000")
            made.branches.kill("branch-003")

        made.before["values"] = kill_two
        with pytest.raises(TooFewBranchesError, match="'values': 2 of 4"):
            made.training.step()
        np.testing.assert_array_equal(made.training.parameters, before)

    def test_end_with_the_reason_when_a_branch_refuses(self, site):
        made = site(plan(limit=1e-6))
        with pytest.raises(RefusedError, match=r"'branch-00.' refuses: a value") as told:
            made.training.step()
        # What it is stays with the branch: a value tells of rows.
        wait_for(lambda: "change of layer 0" in made.branches.log("branch-000"))
        assert "layer" not in str(told.value)

    def test_go_over_tls(self, site, tmp_path):
        certificate, key = self_signed(tmp_path)
        made = site(
            settings=CoordinatorSettings(certificate=certificate, key=key), authority=certificate
        )
        assert len(made.training.step().survivors) == 4
        with socket.create_connection(("127.0.0.1", made.coordinator.port), 5) as plain:
            plain.settimeout(0.3)
            with pytest.raises(TimeoutError):
                plain.recv(1)  # the coordinator waits for a handshake, and greets nobody else


class TestDoor:
    @pytest.fixture
    def door(self):
        """A coordinator of three branches, and their identities."""
        made = simulation(plan(), list(parts().values()), threshold=3)
        keys = {branch.work.name: branch._identity for branch in made.branches}
        with Coordinator(plan(), made.training.roster) as coordinator:
            yield coordinator, made.training.roster, keys

    @staticmethod
    def client(coordinator, roster, key, *, name="branch-001", agreed=None):
        agreed = agreed or plan()
        work = BranchWork(agreed, roster, name, *parts()[name])
        address = CoordinatorAddress("127.0.0.1", coordinator.port, retry_seconds=0.1)
        return BranchClient(roster, work, key, address)

    def test_who_is_not_of_the_roster_stays_out(self, door):
        coordinator, roster, _ = door
        with pytest.raises(RefusedError, match="'branch-001' was refused: not an identity"):
            self.client(coordinator, roster, Ed25519PrivateKey.generate()).run()
        assert coordinator.present() == []

    def test_a_branch_with_another_plan_stays_away(self, door):
        coordinator, roster, keys = door
        with pytest.raises(RefusedError, match="has another plan than branch 'branch-001'"):
            self.client(coordinator, roster, keys["branch-001"], agreed=plan(rounds=6)).run()

    @pytest.mark.parametrize(
        "said",
        [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(range(256)),
            struct.pack(">II", 2, 0) + b"{}",
        ],
    )
    def test_noise_is_turned_away_and_others_come_in(self, door, said):
        coordinator, _, _ = door
        with socket.create_connection(("127.0.0.1", coordinator.port), 5) as noisy:
            # Whoever is refused at once may find the line closed already.
            with suppress(OSError):
                noisy.sendall(said)
                noisy.shutdown(socket.SHUT_WR)
            noisy.settimeout(5)
            with suppress(ConnectionError):
                while noisy.recv(4_096):
                    pass
        assert coordinator.present() == []
        with pytest.raises(TimeoutError, match=r"0 of 1 branches came .* missing: \['branch-000'"):
            coordinator.wait_for(1, 0.05)

    def test_a_coordinator_with_another_certificate_is_not_trusted(self, door, tmp_path):
        _, roster, keys = door
        for name in ("own", "other"):
            (tmp_path / name).mkdir()
        certificate, key = self_signed(tmp_path / "own")
        stranger, _ = self_signed(tmp_path / "other")
        settings = CoordinatorSettings(certificate=certificate, key=key)
        with Coordinator(plan(), roster, settings) as coordinator:
            client = self.client(coordinator, roster, keys["branch-001"])
            client._address = CoordinatorAddress(
                "127.0.0.1", coordinator.port, stranger, retry_seconds=0.1
            )
            with pytest.raises(ChannelError, match="certificate verify failed"):
                client.run()

    def test_nobody_there_is_told_after_some_tries(self, door):
        coordinator, roster, keys = door
        lonely = self.client(coordinator, roster, keys["branch-001"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            lonely._address = CoordinatorAddress(
                "127.0.0.1", free.getsockname()[1], retry_seconds=0.3
            )
            with pytest.raises(ChannelError, match="no coordinator at 127"):
                lonely.run()

    def test_a_plan_whose_messages_are_too_long_is_refused_by_both_sides(self, door):
        coordinator, roster, keys = door
        wide = plan(hidden=(1 << 25,))
        with pytest.raises(ValueError, match=r"make plan\.hidden narrower"):
            Coordinator(wide, roster)
        with pytest.raises(ValueError, match=r"make plan\.hidden narrower"):
            self.client(coordinator, roster, keys["branch-001"], agreed=wide)

    def test_other_machines_are_reached_by_tls_alone(self):
        with pytest.raises(ValueError, match="set certificate and key"):
            CoordinatorSettings(host="0.0.0.0")
        with pytest.raises(ValueError, match="go together"):
            CoordinatorSettings(certificate=__file__)
        with pytest.raises(ValueError, match="set authority"):
            CoordinatorAddress("10.0.0.1", 1)
        with pytest.raises(ValueError, match="positive"):
            CoordinatorSettings(answer_seconds=0)
        with pytest.raises(ValueError, match="positive"):
            CoordinatorAddress("127.0.0.1", 1, idle_seconds=0)


class TestFolder:
    def test_the_key_is_for_its_owner_alone(self, tmp_path):
        public = make_identity(tmp_path)
        assert make_identity(tmp_path) == public
        assert read_identity(tmp_path).public_key().public_bytes_raw() == public
        path = tmp_path / IDENTITY
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        with pytest.raises(BranchFolderError, match="can be read by others: chmod 600"):
            read_identity(tmp_path)
        path.chmod(0o600)
        path.write_bytes(b"short")
        with pytest.raises(BranchFolderError, match="5 bytes, not a key of 32"):
            read_identity(tmp_path)
        with pytest.raises(BranchFolderError, match="cannot be read"):
            read_identity(tmp_path / "absent")

    def test_what_is_no_folder_of_a_branch_is_told(self, tmp_path):
        with pytest.raises(BranchFolderError, match="no branch's folder"):
            read_branch(tmp_path)

    def test_a_process_without_one_fails_at_once(self, tmp_path):
        command = [sys.executable, "-m", "connectors.private.federated.branch_process", tmp_path]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert "no branch's folder" in ended.stderr
