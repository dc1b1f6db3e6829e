"""The first request must not be the slow one: everything is run once before any is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from connectors.api.load_control import Level
from tasks.fraud.online.rows import OnlineMail, OnlineRows

if TYPE_CHECKING:
    from connectors.api.served_model import ServedModel
    from connectors.api.service import Service

NOBODY = "-"
"""Id of the entity that is rehearsed with; one that is really called so loses nothing by it."""


def warm_up(service: Service) -> None:
    """Run every compiled function and every head once, on blocks nobody owns."""
    engine = service.engine
    columns = service.state.columns
    for column in columns:
        blocks = column.blocks
        slot = blocks.load(NOBODY, [None] * len(blocks.parts))
        blocks.await_label(slot, column.role, (0, 0, -1, 0))
        blocks.release_due(slot, column.role, 1, 1)
        blocks.read(slot, column.role, 0, 0, np.zeros(blocks.width))
    engine.rehearse([NOBODY] * len(columns))
    for column in columns:
        column.blocks.forget(NOBODY)
    raw = np.zeros((1, len(columns), columns[0].blocks.width))
    for model in (engine.model, service.models.challenger):
        if model is not None:
            for rows in (1, 2):
                _score(model, rows, raw)


def _score(model: ServedModel, n: int, raw: NDArray[np.float64]) -> None:
    online, config = model.online, model.bundle.config
    layout = online.layout
    shape = (n, layout.groups, layout.slots)
    zeros = np.zeros(shape, np.int64)
    mail = OnlineMail(
        np.zeros(shape, np.bool_),
        zeros,
        zeros,
        zeros,
        np.zeros((*shape, len(layout.features)), np.float32),
    )
    rows = OnlineRows(
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.repeat(raw, n, axis=0),
        np.zeros((n, len(config.numeric))),
        [[None] * n for _ in config.categorical],
        np.zeros((n, len(config.entities)), np.int64),
        mail if model.needs_mail else None,
    )
    features = online.features(rows)
    model.score(rows, features, Level.FULL, explain=True)
    model.score(rows, features, Level.TABULAR, explain=False)
