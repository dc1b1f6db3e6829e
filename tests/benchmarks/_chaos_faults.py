"""Kill -9 of one part of a running stream, and the moment at which everything is well again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from connectors.flink import operate
from connectors.online_store.errors import StoreError
from connectors.online_store.store import OnlineStore
from connectors.online_store.view import read_views
from infra.environment import service_environment
from infra.services.process import group_members
from infra.services.registry import SERVICES, service_status
from infra.services.state import load_state
from infra.settings import CHECKOUT, Settings
from infra.watchdog.config import load_config
from kernels.entity_state.spec import StateSpec
from tests.benchmarks._chaos_traffic import HOT, Traffic
from tests.benchmarks.stream_e2e import Reader

TASKMANAGER, WORKER, FLOW = "flink-taskmanager", "python-worker", "upgrade-flow"
TARGETS = (
    TASKMANAGER,
    "flink-jobmanager",
    "kafka",
    "api",
    "redis",
    WORKER,
    FLOW,
    "store-writer",
    "watchdog",
)
FLOW_SECONDS = (0.0, 12.0)
"""How long after its beginning an upgrade, which takes some 15 to 20 s, is killed."""

GIVE_UP_S = 120.0
RECENT = 4_000
"""As many of the newest transactions are looked through: 20 s of traffic."""


@dataclass
class Faults:
    """Kills parts of one stream.

    Attributes:
        settings: Home of the services.
        stream: Name of the stream.
        rng: Decides on moments.
        flows: Upgrades that were killed; their orphans are ended with the run.
    """

    settings: Settings
    stream: str
    rng: random.Random
    flows: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kill(self, target: str) -> float:
        """Kill a part; returns the moment, monotonic seconds."""
        if target == FLOW:
            self._kill_flow()
        victims = self._victims(target)
        if not victims and target != FLOW:
            raise RuntimeError(f"there is no {target} to kill")
        for process in victims:
            with suppress(psutil.Error):
                process.kill()
        killed = time.monotonic()
        psutil.wait_procs(victims, timeout=5)  # a large one takes its time to go
        if target == "watchdog":  # nobody watches it but the flow that runs on a schedule
            operate.repair(self.settings, self.stream)
        return killed

    def close(self) -> None:
        """End what killed flows left."""
        for flow in self.flows:
            with suppress(ProcessLookupError):
                os.killpg(flow.pid, signal.SIGKILL)
            flow.wait()

    def _kill_flow(self) -> None:
        """Begin an upgrade as a flow, and kill its process, not its children, on the way."""
        code = f"from flows.stream import upgrade_stream; upgrade_stream({self.stream!r})"
        with (self.settings.logs / "upgrade-flow.log").open("ab") as log:
            flow = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=CHECKOUT,
                env={
                    **os.environ,
                    **service_environment(self.settings),
                    "PENSTOCK_HOME": str(self.settings.home),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.flows.append(flow)
        deadline = time.monotonic() + GIVE_UP_S
        while load_config(self.settings).holder != flow.pid:
            if flow.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the upgrade did not begin; see upgrade-flow.log")
            time.sleep(0.05)
        time.sleep(self.rng.uniform(*FLOW_SECONDS))
        flow.kill()

    def _victims(self, target: str) -> list[psutil.Process]:
        if target == FLOW:
            return []
        if target not in (WORKER, TASKMANAGER):
            return self._members(target)
        # Of the two TaskManagers the one that runs the job: it has the Python workers.
        for name in (TASKMANAGER, "flink-standby"):
            members = self._members(name)
            workers = [p for p in members if "pyflink.fn_execution" in " ".join(p.cmdline())]
            if workers:
                return workers if target == WORKER else members
        return []

    def _members(self, name: str) -> list[psutil.Process]:
        state = load_state(self.settings, name)
        return group_members(state) if state else []


@dataclass
class Health:
    """Tells whether everything that a stream is for works again.

    Attributes:
        settings: Home of the services.
        traffic: What is sent.
        reader: What is read, committed.
        store: The online store.
        specs: Spec per kind.
        services: Those that must run.
    """

    settings: Settings
    traffic: Traffic
    reader: Reader
    store: OnlineStore
    specs: dict[str, StateSpec]
    services: list[str]

    def recover(self, killed: float) -> dict[str, float]:
        """Return seconds after which each thing was well for the first time; inf if it never was.

        A transaction sent after the kill has a committed score; the API has answered another
        one; the store holds a state published after the kill; every service runs.
        """
        moment = time.time() - (time.monotonic() - killed)
        waiting: dict[str, Callable[[], bool]] = {
            "scores": lambda: self._scored(killed),
            "api": lambda: self._answered(killed),
            "store": lambda: self._fresh(moment),
            "services": self._running,
        }
        found = dict.fromkeys(waiting, float("inf"))
        while waiting and time.monotonic() < killed + GIVE_UP_S:
            for name in list(waiting):
                if waiting[name]():
                    found[name] = time.monotonic() - killed
                    del waiting[name]
            time.sleep(0.1)
        return found

    def _scored(self, killed: float) -> bool:
        newest = list(self.traffic.sent.items())[-RECENT:]
        return any(sent > killed and event in self.reader.seen for event, sent in newest)

    def _answered(self, killed: float) -> bool:
        newest = list(self.traffic.api.answered.values())[-RECENT:]
        return any(moment > killed for _, moment in newest)

    def _fresh(self, moment: float) -> bool:
        try:
            (view,) = read_views(self.store, [("customer", HOT)], self.specs)
        except StoreError:
            return False
        return view.emitted_at > moment * 1_000

    def _running(self) -> bool:
        return all(
            service_status(self.settings, name).state == "running"
            for name in self.services
            if name in SERVICES
        )
