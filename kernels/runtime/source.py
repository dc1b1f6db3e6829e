"""Where batches come from: by index, so that the position of a run is one number.

A function of the index makes a killed run go on exactly where it was, with nothing to save. Data
loaders of torch, and whatever else can only be gone through, come in by `from_loader`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

Batch_co = TypeVar("Batch_co", covariant=True)
Batch = TypeVar("Batch")


class Batches(Protocol[Batch_co]):
    """Gives batches by index."""

    def __call__(self, index: int) -> Batch_co:
        """Return batch ``index`` (0-based over the run), always the same for an index."""


class SourceError(RuntimeError):
    """A source of batches that failed or ended; the message says at which batch."""


def batch_at(batches: Batches[Batch], index: int, step: int) -> Batch:
    """Return a batch; whatever goes wrong names it.

    Raises:
        SourceError: When the source ended, with the error as its cause where it raised.
    """
    try:
        return batches(index)
    except (StopIteration, IndexError) as error:
        raise SourceError(
            f"the source ended before batch {index}, which step {step + 1} needs; "
            "give more data or fewer steps, or begin anew at its end"
        ) from error
    except Exception as error:
        error.add_note(f"while batch {index} was read for step {step + 1}")
        raise


class _Loader(Generic[Batch]):
    """Goes through an iterable, over and over; a jump begins anew and skips."""

    def __init__(self, loader: Iterable[Batch]) -> None:
        self._loader = loader
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._epoch = 0

    def __call__(self, index: int) -> Batch:
        """Return batch ``index``, counted over all epochs."""
        if index < self._next or self._iterator is None:
            self._epoch, self._next = 0, 0
            self._iterator = self._begin()
        while True:
            batch = next(self._iterator, _END)
            if batch is _END:
                self._epoch += 1
                self._iterator = self._begin()
                batch = next(self._iterator, _END)
                if batch is _END:
                    raise SourceError(
                        "the data loader gave no batch at all; is the data set empty, or smaller "
                        "than a batch with drop_last=True?"
                    )
            self._next += 1
            if self._next > index:
                found: Batch = batch
                return found

    def _begin(self) -> Iterator[Any]:
        sampler: Any = getattr(self._loader, "sampler", None)
        for each in (self._loader, sampler):
            if callable(found := getattr(each, "set_epoch", None)):
                found(self._epoch)
        if (generator := getattr(self._loader, "generator", None)) is not None:
            generator.manual_seed(self._epoch)
        return iter(self._loader)


_END: Any = object()


def from_loader(loader: Iterable[Batch]) -> Batches[Batch]:
    """Return batches of a data loader, epoch after epoch.

    A loader that shuffles must do so by a ``generator`` of its own, or by a sampler or itself with
    ``set_epoch``: both are seeded with the number of the epoch. Then a run that goes on skips to
    its batch and finds the same. A plain list of batches is a loader, too.

    >>> batches = from_loader([10, 11, 12])
    >>> [batches(i) for i in (0, 1, 2, 3, 1)]
    [10, 11, 12, 10, 11]
    """
    return _Loader(loader)
