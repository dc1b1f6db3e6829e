"""Reading ahead and writing behind: three steps of a run at once, one item in flight between them.

The work of all three leaves the interpreter (Arrow, Polars), so threads are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
_END: Any = object()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items, the next of which is made while the caller works on the last.

    Args:
        items: Any iterator; what it raises is raised here, in its place.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = pool.submit(next, items, _END)
            yield item


class Behind:
    """Runs calls one after another while the caller goes on; leaving the block waits for the last.

    An exception of a call is raised by the next one, or at the end of the block.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._last: Future[Any] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Wait for the call before, then begin this one."""
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(work, *arguments)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Wait for the last call."""
        self._pool.shutdown(wait=True)
        if kind is None and self._last is not None:
            self._last.result()
