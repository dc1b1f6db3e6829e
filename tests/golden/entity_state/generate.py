"""Golden vectors of the state block: run ``python tests/golden/entity_state/generate.py``.

``vectors.json`` next to this file holds, for any implementation in any language to meet:

- ``spec``: the spec, times in milliseconds;
- ``layout``: every field of a block as [name, byte offset, type, length];
- ``batch``: rows in event-time mode, the features each row sees (from the plain reference) and
  the final blocks as hexadecimal text;
- ``script``: operations on one block in arrival order (late, duplicate and replayed events,
  labels, messages), what each returns, and the block's bytes at the end.

Writing it anew is right only when the definition or the layout version changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kernels.entity_state import (
    StateSpec,
    Window,
    apply_event,
    days,
    deposit,
    describe,
    entity_features,
    feature_names,
    new_block,
    read_mail,
    read_state,
    release_label,
)
from kernels.entity_state.spec import DAY, HOUR

FILE = Path(__file__).with_name("vectors.json")
ENTITIES = 3
SPEC = StateSpec(
    windows=(Window("1d", DAY, 6 * HOUR), days(3), days(7)),
    delay=2 * DAY,
    roles=2,
    mail_slots=3,
    mail_width=3,
    recent_ids=4,
)


def rows() -> dict[str, list]:
    """Return 40 rows over 16 days with ties, a gap, unknown labels and labels known late."""
    rng = np.random.default_rng(20180401)
    n = 40
    time = np.sort(rng.integers(0, 16 * 24, n)) * HOUR
    time[n // 2 :] += 9 * DAY
    time = time + 1_522_540_800_000 - 2 * HOUR
    label = rng.choice([-1, 0, 1], n, p=[0.15, 0.25, 0.6])
    label_time = time + SPEC.delay + rng.choice([0, 0, 5 * HOUR, 4 * DAY], n)
    return {
        "time": time.tolist(),
        "event_id": (np.arange(n) * 7 + 1000).tolist(),
        "amount": rng.integers(1, 90_000, n).tolist(),
        "label": label.tolist(),
        "label_time": label_time.tolist(),
        "keys": rng.integers(0, ENTITIES, (n, 2)).tolist(),
    }


def batch(backend: str) -> dict:
    """Return the features and final blocks of `rows` by one backend."""
    table = rows()
    features, state = entity_features(
        **table, spec=SPEC, n_entities=ENTITIES, backend=backend, keep_state=True
    )
    return {
        "rows": table,
        "features": features.tolist(),
        "blocks": [bytes(block).hex() for block in state.blocks],
        "pending": [list(map(int, label.tolist())) for label in state.pending],
    }


def script() -> dict:
    """Return operations in arrival order, their results, and the block they leave."""
    rng = np.random.default_rng(11)
    block, steps = new_block(SPEC), []
    for number in range(60):
        role = int(rng.integers(0, 2))
        time = int(rng.integers(0, 12 * 24) * HOUR + number * HOUR)
        amount = int(rng.integers(1, 90_000))
        kind = number % 4
        if kind < 2:
            event_id = int(rng.integers(0, 30))
            seen = read_state(block, role, time, amount, spec=SPEC).tolist()
            applied = bool(apply_event(block, role, event_id, time, amount, spec=SPEC))
            steps.append(["apply", role, event_id, time, amount, seen, applied])
        elif kind == 2:
            label = int(rng.integers(0, 2))
            release_label(block, role, time, label, spec=SPEC)
            steps.append(["release", role, time, label])
        else:
            vector = np.round(rng.random(3), 3).astype(np.float32)
            deposit(block, role, time, amount, number, 1 - role, vector, spec=SPEC)
            steps.append(["deposit", role, time, amount, number, 1 - role, vector.tolist()])
    mail = {name: value.tolist() for name, value in read_mail(block, spec=SPEC)._asdict().items()}
    return {"steps": steps, "mail": mail, "block": bytes(block).hex()}


def vectors(backend: str = "reference") -> dict:
    """Return everything that ``vectors.json`` holds."""
    return {
        "spec": asdict(SPEC),
        "layout": [list(field) for field in describe(SPEC)],
        "features": list(feature_names(SPEC)),
        "batch": batch(backend),
        "script": script(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), separators=(",", ":")) + "\n", encoding="utf-8")
