"""Two houses and a dealer on the disk: certificates, a model, a deal; parties in threads."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from connectors.private.joint.certificates import make_certificate
from connectors.private.joint.dealer import DealConfig, deal, make_dealer_key
from connectors.private.joint.door import Door
from connectors.private.joint.model_file import write_model
from connectors.private.joint.party import PartyConfig, run_party
from tasks.privacy.shares.compile import JointModel

BATCH = 32
FIRST = ("x0", "x1", "x2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Houses:
    """Everything that two parties need, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = [make_certificate(folder / f"tls-{i}", f"house {i}") for i in (0, 1)]
        self.dealer_keys = make_dealer_key(folder / "dealer")
        self._made = 0

    def doors(self, **changes: Any) -> tuple[Door, Door]:
        port = free_port()
        made = []
        for party in (0, 1):
            certificate, key = self.certificates[party]
            peer = self.certificates[1 - party][0]
            door = Door(party, certificate, key, peer, port, timeout_s=10.0)
            made.append(replace(door, **changes))
        return made[0], made[1]

    def parties(self, model: JointModel, rows: int, **changes: Any) -> list[PartyConfig]:
        """Both parties' settings for a model, with a new deal for so many rows."""
        self._made += 1
        folder = self.folder / f"model-{self._made}"
        plan, *parts = write_model(model, folder)
        config = DealConfig(model.plan, self.dealer_keys[1], folder, rows, batch_rows=BATCH)
        dealt = deal(config)
        return [
            PartyConfig(
                door,
                plan,
                parts[door.party],
                dealt.files[door.party],
                self.dealer_keys[0],
                folder / f"ledger-{door.party}",
            )
            for door in self.doors(**changes)
        ]


def both(*runs: Callable[[], Any]) -> list[Any]:
    """Run parties in threads; returns results, or the exceptions that they ended with."""
    found: list[Any] = [None] * len(runs)

    def kept(place: int, run: Callable[[], Any]) -> None:
        try:
            found[place] = run()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            found[place] = error

    threads = [threading.Thread(target=kept, args=one) for one in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a party hangs"
    return found


def session(configs, raw):
    """Run both parties; returns what each ended with."""
    return both(
        partial(run_party, configs[0], raw[:, :3]), partial(run_party, configs[1], raw[:, 3:])
    )


def start(config, folder, raw):
    """Start a party as a process, in a group of its own."""
    party = config.door.party
    np.save(folder / f"rows-{party}.npy", raw)
    plain = dataclasses.asdict(config)
    settings = {
        **{name: value for name, value in plain.items() if value is not None},
        "task": "score",
        "input": folder / f"rows-{party}.npy",
        "output": folder / f"out-{party}.npz",
    }
    path = folder / f"settings-{party}.json"
    path.write_text(json.dumps(settings, default=str))
    command = [sys.executable, "-m", "connectors.private.joint", str(path)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def end(processes):
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stderr.close()
