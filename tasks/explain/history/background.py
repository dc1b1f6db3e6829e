"""The frozen histories, or the one frozen event, that histories are compared with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background, narrowed
from tasks.explain.errors import BackgroundError, HistoryError
from tasks.explain.history.layout import checked_histories


@dataclass(frozen=True, eq=False)
class HistoryBackground:
    """Frozen histories without padding, newest event last.

    Attributes:
        names: The F feature names of an event.
        values: float32 ``[B, T, F]``.
        sha256: Digest of names, shape and values; checked when it is given.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    sha256: str = ""
    _frozen: Background = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Freeze the values.

        Raises:
            HistoryError: On another shape, a value that is not finite or that float32 cannot hold,
                or another digest.
        """
        if self.values.ndim != 3 or self.values.shape[2] != len(self.names):
            raise HistoryError(
                f"background of shape {self.values.shape} for {len(self.names)} features; pass "
                "[B, T, F], or make it by HistoryBackground.sequences or .average"
            )
        checked_histories(self.values, None)
        steps = self.values.shape[1]
        try:
            frozen = Background(flat_names(self.names, steps), _flat(self.values), self.sha256)
        except ValueError as error:
            raise HistoryError(str(error)) from error
        object.__setattr__(self, "values", frozen.values.reshape(self.values.shape))
        object.__setattr__(self, "_frozen", frozen)
        object.__setattr__(self, "sha256", frozen.sha256)

    @classmethod
    def sequences(
        cls,
        names: Sequence[str],
        histories: NDArray[np.floating[Any]],
        mask: NDArray[np.bool_] | None = None,
        *,
        ids: Collection[str] = (),
    ) -> HistoryBackground:
        """Compare with histories ``[B, T, F]``; where they are shorter than T, the average event.

        Args:
            names: The F feature names.
            histories: Real histories, oldest event first.
            mask: Where an event stands ``[B, T]``; None: everywhere.
            ids: Features whose average is the most frequent value: codes, flags.

        Raises:
            HistoryError: On a history without events, or an event that is not finite.
        """
        values, there = checked_histories(histories, mask)
        average = _average_event(names, values[there], ids)
        made = np.tile(average, (*there.shape, 1))
        for place, (history, kept) in enumerate(zip(values, there, strict=True)):
            made[place, there.shape[1] - kept.sum() :] = history[kept]
        return cls(tuple(names), _float32(made, names))

    @classmethod
    def average(
        cls,
        names: Sequence[str],
        histories: NDArray[np.floating[Any]],
        mask: NDArray[np.bool_] | None = None,
        *,
        ids: Collection[str] = (),
    ) -> HistoryBackground:
        """Compare with one history, the average event of others T times; arguments as above.

        >>> HistoryBackground.average(["amount"], np.array([[[1.0], [3.0]]])).values.tolist()
        [[[2.0], [2.0]]]
        """
        values, there = checked_histories(histories, mask)
        average = _average_event(names, values[there], ids)
        return cls(tuple(names), _float32(np.tile(average, (1, there.shape[1], 1)), names))

    @cached_property
    def steps(self) -> int:
        """Return T."""
        return int(self.values.shape[1])

    def newest(self, events: int) -> Background:
        """Return the last events of each history as flat rows ``[B, events * F]``."""
        if events == self.steps:
            return self._frozen
        part = self.values[:, self.steps - events :]
        return Background(flat_names(self.names, events), _flat(part))


def flat_names(names: Sequence[str], events: int) -> tuple[str, ...]:
    """Name the cells of the last events, oldest first.

    >>> flat_names(["a"], 2)
    ('a[-1]', 'a[0]')
    """
    return tuple(f"{name}[{back}]" for back in range(1 - events, 1) for name in names)


def _float32(values: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float32]:
    """Return histories ``[B, T, F]`` as float32."""
    events = values.reshape(-1, values.shape[2])
    try:
        return narrowed(events, names, "background event").reshape(values.shape)
    except BackgroundError as error:
        raise HistoryError(str(error)) from error


def _flat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.reshape(len(values), values.shape[1] * values.shape[2])


def _average_event(
    names: Sequence[str], events: NDArray[np.floating[Any]], ids: Collection[str]
) -> NDArray[np.float64]:
    unknown = sorted(set(ids) - set(names))
    if unknown or events.shape[1] != len(names):
        raise HistoryError(
            f"events have {events.shape[1]} features, {len(names)} names are given, and ids name "
            f"{unknown} beside them; name the features in the model's order"
        )
    if not len(events):
        raise HistoryError("background is empty; freeze at least one history")
    average: NDArray[np.float64] = events.mean(axis=0, dtype=np.float64)
    for place, name in enumerate(names):
        if name in ids:
            found, count = np.unique(events[:, place], return_counts=True)
            average[place] = found[count.argmax()]
    return average
