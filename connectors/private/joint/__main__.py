"""One party as a process of its own: ``python -m connectors.private.joint settings.json``.

Settings are JSON: ``task`` (``score`` or ``intersect``), ``door`` and, to score, the other fields
of `PartyConfig`; ``input``, an ``.npy`` file of rows, or a text file with a key on each line;
``output``, a new ``.npz`` file; to intersect also ``common``, a new file for scoring. What went
wrong is written to standard error, and the exit status is 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from connectors.private.joint.common_rows import write_common_rows
from connectors.private.joint.door import Door
from connectors.private.joint.errors import JointError
from connectors.private.joint.intersection import run_intersection
from connectors.private.joint.key_list import read_keys
from connectors.private.joint.party import PartyConfig, run_party
from infra.errors import PenstockError


def main(arguments: list[str]) -> int:
    """Run one session; returns the exit status."""
    settings: dict[str, Any] = json.loads(Path(arguments[0]).read_bytes())
    task, output = settings.pop("task"), Path(settings.pop("output"))
    source, door = Path(settings.pop("input")), _door(settings.pop("door"))
    try:
        if task == "intersect":
            found = run_intersection(door, read_keys(source))
            write_common_rows(Path(settings["common"]), found.common)
            arrays = {"rows": found.found.rows, "alignment": np.array(found.found.alignment)}
            figures = {"sent": found.sent, "online_s": found.online_s, "cpu_s": found.cpu_s}
        else:
            rows = np.load(source, allow_pickle=False)
            result = run_party(_config(door, settings), rows)
            outcome = np.zeros((0, 0)) if result.outcome is None else result.outcome
            arrays = {
                "outcome": outcome,
                "places": result.places,
                "first_batch": np.array(result.first_batch),
            }
            figures = {"sent": result.sent, "online_s": result.online_s, "cpu_s": result.cpu_s}
    except (JointError, PenstockError, ValueError, OSError) as error:
        sys.stderr.write(f"{getattr(error, 'code', type(error).__name__)}: {error}\n")
        return 1
    np.savez(output, **arrays, **{name: np.array(value) for name, value in figures.items()})
    return 0


def _door(fields: dict[str, Any]) -> Door:
    return Door(**_paths(fields, ("certificate", "key", "peer_certificate")))


def _config(door: Door, fields: dict[str, Any]) -> PartyConfig:
    names = ("plan", "part", "deal", "dealer_key", "ledger", "common")
    return PartyConfig(door, **_paths(fields, names))


def _paths(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: Path(v) if name in names and v else v for name, v in fields.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
