"""Steps of a job as Prefect tasks: cached by inputs, retried, with time limits.

A task is given its place on disk, whose name is a hash of everything it depends on; the same hash
is its cache key. So a run after a kill finds the finished steps and starts at the first unfinished
one. Only paths and small JSON records travel between tasks.
"""

from __future__ import annotations

import errno
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy

from tasks.workspace import Place

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.context import TaskRunContext

Record = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])

HOUR = 3_600


def key_of_place(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Return the cache key: the task's name, the hash in the name of its folder, and the folder.

    The folder counts because the record names it: in a home that was moved it is another one.
    """
    folder = Path(parameters["place"])
    where = hashlib.sha256(str(folder.parent).encode()).hexdigest()[:8]
    return f"{context.task.name}-{folder.name}-{where}"


def worth_retrying(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Retry what may heal (network, a busy database), not wrong input or a full disk."""
    del task, run
    error = state.result(raise_on_failure=False)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return False
    return not isinstance(error, ValueError | TypeError | KeyError | MemoryError)


def cached_step(name: str, *, timeout: float = HOUR, retries: int = 2) -> Callable[[F], F]:
    """Make a task whose result is kept as JSON under the key of its place.

    A kept result counts only while its folder is there: whoever removes the work folder to free
    the disk gets it made again instead of a record of nothing.
    """
    make = functools.partial(
        task,
        name=name,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=key_of_place),
        persist_result=True,
        result_serializer="json",
        retries=retries,
        retry_delay_seconds=[1, 5],
        retry_condition_fn=worth_retrying,
        timeout_seconds=timeout,
    )

    def decorate(function: F) -> F:
        trusting = make(function)
        renewing = make(function, refresh_cache=True)

        @functools.wraps(function)
        def step(place: str, **inputs: Any) -> Any:
            return (trusting if at(place).done else renewing)(place, **inputs)

        return step  # type: ignore[return-value]  # called like the function it wraps

    return decorate


def at(place: str) -> Place:
    """Return the place a task was given."""
    folder = Path(place)
    return Place(folder, folder.name)
