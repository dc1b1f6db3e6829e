"""Two houses and a dealer for benchmarks: every session is two processes over TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.private.joint.certificates import make_certificate
from connectors.private.joint.dealer import DealConfig, deal, make_dealer_key
from connectors.private.joint.model_file import write_model
from tasks.privacy.shares.compile import JointModel
from tests.benchmarks._harness import Timing, stopwatch

Reals = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """What both parties' sessions gave, party by party."""

    arrays: tuple[dict[str, Any], dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Wall seconds of the slower side, from agreement to the last result."""
        return max(float(one["online_s"]) for one in self.arrays)

    @property
    def cpu(self) -> float:
        """CPU seconds of both."""
        return sum(float(one["cpu_s"]) for one in self.arrays)

    @property
    def sent(self) -> int:
        """Bytes of both."""
        return sum(int(one["sent"]) for one in self.arrays)


@dataclass(frozen=True)
class Dealt:
    """A model's files and what dealing took."""

    plan: Path
    parts: tuple[Path, Path]
    deals: tuple[Path, Path]
    folder: Path
    timing: Timing
    size: int


class Houses:
    """Certificates, dealer and sessions below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = [make_certificate(folder / f"tls-{i}", f"house {i}") for i in (0, 1)]
        self.dealer_keys = make_dealer_key(folder / "dealer")
        self._made = 0

    def dealt(self, joint: JointModel, rows: int) -> Dealt:
        """Write a model and deal for so many rows."""
        folder = self._next()
        plan, *parts = write_model(joint, folder)
        with stopwatch() as timing:
            made = deal(DealConfig(joint.plan, self.dealer_keys[1], folder, rows))
        size = sum(path.stat().st_size for path in made.files)
        return Dealt(plan, (parts[0], parts[1]), made.files, folder, timing, size)

    def score(self, dealt: Dealt, rows: tuple[Reals, Reals], link: str) -> Ended:
        """Score in two processes."""
        fields = [
            {
                "task": "score",
                "plan": dealt.plan,
                "part": dealt.parts[party],
                "deal": dealt.deals[party],
                "dealer_key": self.dealer_keys[0],
                "ledger": dealt.folder / f"ledger-{party}",
            }
            for party in (0, 1)
        ]
        folder = self._next()
        for party in (0, 1):
            fields[party]["input"] = folder / f"rows-{party}.npy"
            np.save(fields[party]["input"], rows[party])
        return self._run(fields, folder, link)

    def intersect(self, keys: tuple[list[str], list[str]], link: str) -> Ended:
        """Intersect in two processes."""
        folder = self._next()
        fields: list[dict[str, Any]] = []
        for party in (0, 1):
            path = folder / f"keys-{party}.txt"
            path.write_text("\n".join(keys[party]))
            fields.append(
                {"task": "intersect", "input": path, "common": folder / f"common-{party}"}
            )
        return self._run(fields, folder, link)

    def _next(self) -> Path:
        self._made += 1
        folder = self.folder / f"run-{self._made}"
        folder.mkdir()
        return folder

    def _run(self, fields: list[dict[str, Any]], folder: Path, link: str) -> Ended:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes = []
        try:
            for party in (0, 1):
                certificate, key = self.certificates[party]
                door = {
                    "party": party,
                    "certificate": str(certificate),
                    "key": str(key),
                    "peer_certificate": str(self.certificates[1 - party][0]),
                    "port": port,
                    "link": link,
                    "timeout_s": 120.0,
                }
                output = folder / f"out-{party}.npz"
                settings = folder / f"settings-{party}.json"
                whole = {**fields[party], "door": door, "output": output}
                settings.write_text(json.dumps(whole, default=str))
                command = [sys.executable, "-m", "connectors.private.joint", str(settings)]
                processes.append(subprocess.Popen(command, cwd=ROOT, start_new_session=True))
            if any(process.wait(300) for process in processes):
                raise RuntimeError("a party failed; its reason stands above")
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        found = []
        for party in (0, 1):
            with np.load(folder / f"out-{party}.npz", allow_pickle=False) as arrays:
                found.append(dict(arrays))
        return Ended((found[0], found[1]))
