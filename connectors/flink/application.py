"""Application mode: Flink's own driver calls the submitter, and the deployment owns the cluster.

``org.apache.flink.client.python.PythonDriver`` runs ``-m connectors.flink.submit`` beside the
JobManager and lends it that JVM. So no JVM is started or ended here, and where state lies, how much
runs in parallel and what is restored is said by the deployment (``infra/k8s``), not by the spec.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from connectors.flink.remote import MODE, JobOptions, as_configuration, job_values
from infra.errors import ServiceError
from infra.settings import Settings

if TYPE_CHECKING:
    from pyflink.datastream import StreamExecutionEnvironment

GATEWAY_PORT = "PYFLINK_GATEWAY_PORT"
"""Variable by which Flink's driver tells the process it starts where its JVM listens."""

OWNED_BY_DEPLOYMENT = frozenset(
    {
        "parallelism.default",
        "python.executable",
        "python.client.executable",
        "state.backend.type",
        "execution.checkpointing.dir",
        "execution.checkpointing.savepoint-dir",
        "execution.state-recovery.path",
    }
)
"""Options of Flink that a job would win with over its deployment, and must not."""


def application_values(settings: Settings, options: JobOptions) -> dict[str, str]:
    """Return the options of Flink that the job adds to those of its deployment."""
    values = job_values(settings, options) | dict(options.extra)
    return {key: value for key, value in values.items() if key not in OWNED_BY_DEPLOYMENT}


def application_environment(
    settings: Settings, options: JobOptions, variables: Mapping[str, str] = os.environ
) -> StreamExecutionEnvironment:
    """Return the environment of the driver that runs this process.

    Args:
        settings: The settings.
        options: What the job asks of Flink.
        variables: Variables of this process.

    Raises:
        ServiceError: Nobody's driver runs it; Flink would start a small cluster of its own here.
    """
    if GATEWAY_PORT not in variables:
        raise ServiceError(
            "target application, but this process was not started by Flink's driver",
            "Apply infra/k8s with the Flink operator, or set target to remote or local",
        )
    # Otherwise a parallelism of one would look for its workers inside this process, which ends.
    os.environ[MODE] = "process"
    from pyflink.datastream import StreamExecutionEnvironment

    configuration = as_configuration(application_values(settings, options))
    return StreamExecutionEnvironment.get_execution_environment(configuration)
