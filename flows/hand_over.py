"""Hands a placement policy over to Prefect: work pool, queues, and slots of every device.

Prefect queues, starts and retries; the policy decides. `apply_limits` sets the pool's queues with
their priorities and limits, and three global concurrency limits per device (jobs, GiB,
hundredths of its time). `submit` puts a run into the queue that the policy says. Inside the run,
`on_devices` chooses devices by what is taken now and holds their slots, or waits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from infra.errors import ConfigurationError, ServiceError
from kernels.scheduling.jobs import Request
from kernels.scheduling.limits import Limits, limits_of, parts_of, queue_of
from kernels.scheduling.occupancy import Occupancy
from kernels.scheduling.policy import Policy
from kernels.scheduling.policy_file import PolicyFile

logger = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 2.0
SLOT_SECONDS = 5.0  # for slots that somebody else may take between looking and taking
PAGE = 100


def apply_limits(content: PolicyFile, pool: str, *, most: int | None = None) -> Limits:
    """Set pool, queues and slots on the Prefect server; safe to repeat.

    Args:
        content: The policy.
        pool: Name of the work pool; made as one of processes if it is not there.
        most: Most jobs that the workers' hosts can hold, None if only the devices limit them.

    Returns:
        What was set.
    """
    limits = limits_of(content, most=most)
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=limits.most))
        known = {queue.name: queue for queue in client.read_work_queues(work_pool_name=pool)}
        for queue in limits.queues:
            if queue.name in known:
                client.update_work_queue(
                    known[queue.name].id, concurrency_limit=queue.most, priority=queue.priority
                )
            else:
                client.create_work_queue(
                    queue.name,
                    concurrency_limit=queue.most,
                    priority=queue.priority,
                    work_pool_name=pool,
                )
        for device in range(content.cluster.devices):
            for part, slots in _slots(limits).items():
                client.upsert_global_concurrency_limit_by_name(_name(pool, device, part), slots)
    logger.info(
        "pool %s: %d jobs at most, %d queues, slots of %d devices",
        *(pool, limits.most, len(limits.queues), content.cluster.devices),
    )
    return limits


def submit(
    deployment: str,
    request: Request,
    content: PolicyFile,
    *,
    parameters: Mapping[str, Any] | None = None,
) -> FlowRun:
    """Create a run of a deployment in the queue for a job.

    Args:
        deployment: ``FLOW/DEPLOYMENT``; its pool is one of `apply_limits`.
        request: What the job needs.
        content: The policy.
        parameters: Of the flow.

    Raises:
        ConfigurationError: There is no such deployment.
    """
    queue = queue_of(content, content.make(), request)
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise ConfigurationError(
                f"no deployment {deployment!r} on the Prefect server", "Run: penstock deploy"
            ) from error
        return client.create_flow_run_from_deployment(
            found.id,
            parameters=dict(parameters or {}),
            work_queue_name=queue,
            tags=[f"kind:{request.kind}", f"devices:{request.devices}"],
        )


@contextmanager
def on_devices(
    request: Request, content: PolicyFile, pool: str, *, timeout: float = 3_600.0
) -> Iterator[tuple[int, ...]]:
    """Hold devices for a job in the block; waits until it fits.

    The slots are leased: those of a run that dies are free again within five minutes.

    Args:
        request: What the job needs.
        content: The policy.
        pool: Pool whose slots were set by `apply_limits`.
        timeout: Seconds to wait at most.

    Yields:
        Numbers of the devices, for ``CUDA_VISIBLE_DEVICES`` or the like.

    Raises:
        ConfigurationError: The pool has no slots on the server, or can never hold the job.
        ServiceError: The job did not fit in time.
    """
    if request.devices > content.cluster.devices or request.memory > content.cluster.memory:
        raise ConfigurationError(
            f"job {request.number} needs {request.devices} devices of {request.memory} GiB, more "
            f"than {pool} has",
            "Ask for less, or tune the policy for a larger cluster",
        )
    policy, limits = content.make(), limits_of(content)
    deadline = time.monotonic() + timeout
    while True:
        found = policy.place(request, _occupancy(policy, pool, limits))
        if found is not None:
            with ExitStack() as held:
                if _take(held, request, policy, limits, pool, found):
                    yield found
                    return
        if time.monotonic() > deadline:
            raise ServiceError(
                f"job {request.number} did not fit on the devices of {pool} in {timeout:.0f} s",
                "See who holds them: prefect global-concurrency-limit ls",
            )
        time.sleep(min(ASK_AGAIN_SECONDS, timeout))


def _take(
    held: ExitStack,
    request: Request,
    policy: Policy,
    limits: Limits,
    pool: str,
    devices: tuple[int, ...],
) -> bool:
    """Take all slots of a job, or none."""
    wanted = {
        "jobs": 1,
        "gib": min(limits.gib, max(1, math.ceil(request.memory))),
        "parts": parts_of(policy.utilization(request), limits),
    }
    try:
        for part, count in wanted.items():
            names = [_name(pool, device, part) for device in devices]
            held.enter_context(
                concurrency(names, occupy=count, timeout_seconds=SLOT_SECONDS, strict=True)
            )
    except TimeoutError:
        held.close()
        return False
    return True


def _occupancy(policy: Policy, pool: str, limits: Limits) -> Occupancy:
    """Read from the server what lies on each device.

    Slots are whole GiB: what a device has beyond them counts as taken once a job lies on it.
    """
    taken: dict[str, int] = {}
    with get_client(sync_client=True) as client:
        for limit in _all_limits(client):
            taken[limit.name] = limit.active_slots
    made = policy.occupancy()
    for device in range(policy.cluster.devices):
        slots = [taken.get(_name(pool, device, part)) for part in ("jobs", "gib", "parts")]
        jobs, gib, parts = slots
        if jobs is None or gib is None or parts is None:
            raise ConfigurationError(
                f"device {device} of pool {pool!r} has no slots on the Prefect server",
                "Run: penstock schedule apply",
            )
        beyond = policy.cluster.memory - limits.gib if jobs else 0.0
        made.set_levels(device, load=parts / 100, memory=gib + beyond, tenants=jobs)
    return made


def _all_limits(client: SyncPrefectClient) -> Iterator[Any]:
    start = 0
    while page := client.read_global_concurrency_limits(limit=PAGE, offset=start):
        yield from page
        start += len(page)


def _slots(limits: Limits) -> dict[str, int]:
    return {"jobs": limits.jobs, "gib": limits.gib, "parts": limits.parts}


def _name(pool: str, device: int, part: str) -> str:
    return f"{pool}.device-{device}.{part}"
