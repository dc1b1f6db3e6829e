"""What the batch says of every row, to compare with."""

from __future__ import annotations

import numpy as np

from kernels.entity_state import entity_features, read_mail
from tasks.fraud.features import state_specs


def raw_states(tx, config):
    """Raw state of every row by column."""
    found = {}
    for kind, spec in state_specs(config).items():
        keys = np.stack([tx.entities[c] for c in config.kinds[kind]], axis=1)
        block, _ = entity_features(
            *(tx.time, tx.event_id, tx.amount, tx.label, tx.label_time, keys),
            spec=spec,
            n_entities=len(tx.index[kind]),
        )
        for role, column in enumerate(config.kinds[kind]):
            found[column] = block[:, role]
    return found


def check_mail(view, rows, tx, vectors):
    """The newest messages of all sections are those of the rows, -1 for none."""
    mail = read_mail(view.block, spec=view.spec)
    present = rows >= 0
    np.testing.assert_array_equal(mail.present, present)
    np.testing.assert_array_equal(mail.time[present], tx.time[rows[present]])
    np.testing.assert_array_equal(mail.amount[present], tx.amount[rows[present]])
    width = vectors.shape[1]
    np.testing.assert_array_equal(mail.vector[present][:, :width], vectors[rows[present]])
    assert not mail.vector[..., width:].any()
