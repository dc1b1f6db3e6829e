"""Submission: the environment and the configuration of a PyFlink client, remote or local.

The recipe, every part of which was needed:

1. :func:`prepare_client` before pyflink starts its JVM: that JVM then has the connectors and our
   module on its own class path, so that no class loader has to be patched. It is started by the
   first configuration, with its errors read (``client_jvm.py``).
2. :func:`remote_configuration` (or :func:`local_configuration`) for the environment. A remote job
   carries our module in ``pipeline.jars``; the connectors and Flink's Python part are on the
   class path of the cluster (``infra/services/flink_cluster.py``) and must not be carried too.
3. Python workers in process mode, started by the TaskManager with this interpreter.
4. :func:`end_client` when done: a JVM of a killed client would stay.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.flink.client_jvm import client_jvm, end_client_jvm, is_client_jvm_running
from infra.errors import ConfigurationError, ServiceError
from infra.jars import connector_jars, flink_home
from infra.services.class_archive import FLINK_CLASSES
from infra.services.flink_cluster import cluster_environment, flink_address
from infra.services.java import class_path
from infra.settings import Settings

if TYPE_CHECKING:
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment

MODE = "_python_worker_execution_mode"


@dataclass(frozen=True)
class JobOptions:
    """What a job asks of Flink, whether remote or local.

    Args:
        name: name under which the job is found again.
        parallelism: parallel instances of every operator, at least 1.
        checkpoint_ms: time between checkpoints in milliseconds, 0 for none.
        bundle_rows: rows that go to a Python worker together; many for throughput.
        bundle_ms: longest wait for them in milliseconds; few for latency.
        arrow_rows: rows of one Arrow batch, at most ``bundle_rows``.
        restore: savepoint or checkpoint to go on from.
        jars: jars of the job; our own module when empty is not meant, so name it.
        extra: further options of Flink by their names; they win.
    """

    name: str
    parallelism: int = 1
    checkpoint_ms: int = 5_000
    bundle_rows: int = 1_000
    bundle_ms: int = 10
    arrow_rows: int = 1_000
    restore: str | None = None
    jars: tuple[Path, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("a job without a name", "Give JobOptions(name=...)")
        for name in ("parallelism", "bundle_rows", "bundle_ms", "arrow_rows"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}", "Give at least 1")
        if self.checkpoint_ms < 0:
            raise ConfigurationError(f"checkpoint_ms is {self.checkpoint_ms}", "Give 0 for none")


def prepare_client(settings: Settings, jars: Sequence[Path] = ()) -> None:
    """Set the environment variables under which pyflink starts its JVM; call it before that.

    Args:
        settings: the settings.
        jars: jars of the job, which the client's JVM needs to build it.

    Raises:
        ServiceError: pyflink's JVM runs already, so that it is too late.
        MissingToolError: the connectors are not there.
    """
    if is_client_jvm_running():
        raise ServiceError("the JVM of pyflink runs already", "Call prepare_client before any job")
    # pyflink splits them at every blank: a checkout whose path holds one does without the archive.
    archive = (option for option in FLINK_CLASSES.options() if " " not in option)
    environment = cluster_environment(settings) | {
        # To what pyflink finds in the wheel it adds this path, for Hadoop's jars or any others.
        "HADOOP_CLASSPATH": class_path([*connector_jars(), *jars]),
        "JVM_ARGS": " ".join([os.environ.get("JVM_ARGS", ""), *archive]),
        # The wheel's own: the client's configuration is given by the program, not by a file.
        "FLINK_CONF_DIR": str(flink_home() / "conf"),
        # Otherwise a remote job would look for its workers inside this process.
        MODE: "process",
    }
    settings.logs.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment)


def remote_configuration(settings: Settings, options: JobOptions) -> Configuration:
    """Configuration of a job for our session cluster.

    Raises:
        ServiceError: no cluster runs.
    """
    host, port = flink_address(settings)
    values = job_values(settings, options) | {
        "execution.target": "remote",
        "execution.attached": "false",
        "rest.address": host,
        "rest.port": str(port),
        "pipeline.jars": ";".join(jar.resolve().as_uri() for jar in options.jars),
    }
    return as_configuration(values | dict(options.extra))


def local_configuration(settings: Settings, options: JobOptions) -> Configuration:
    """Configuration of a job that runs inside the client's JVM, without any service."""
    values = job_values(settings, options) | {
        "execution.target": "local",
        "execution.attached": "true",
        "rest.port": "0",
        "taskmanager.numberOfTaskSlots": str(options.parallelism),
        "io.tmp.dirs": str(settings.home / "flink" / "tmp" / f"local-{os.getpid()}"),
        # A test or a person waits for the job: it must fail, not try for ever.
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "3",
        "restart-strategy.fixed-delay.delay": "1 s",
    }
    Path(values["io.tmp.dirs"]).mkdir(parents=True, exist_ok=True)
    return as_configuration(values | dict(options.extra))


def job_values(settings: Settings, options: JobOptions) -> dict[str, str]:
    """Options of Flink that do not depend on where the job runs."""
    folder = settings.home / "flink"
    values = {
        "pipeline.name": options.name,
        "pipeline.max-parallelism": "720",
        "pipeline.object-reuse": "true",
        "parallelism.default": str(options.parallelism),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.execution-mode": "process",
        "python.fn-execution.bundle.size": str(options.bundle_rows),
        "python.fn-execution.bundle.time": str(options.bundle_ms),
        "python.fn-execution.arrow.batch.size": str(min(options.arrow_rows, options.bundle_rows)),
        "state.backend.type": "rocksdb" if settings.flink_state == "rocksdb" else "hashmap",
        "execution.checkpointing.dir": (folder / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (folder / "savepoints").as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": "3",
        # A check on RUNNING proves nothing, a checkpoint does: take none while one is overdue.
        "execution.checkpointing.timeout": "60 s",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
    }
    if options.checkpoint_ms:
        values["execution.checkpointing.interval"] = f"{options.checkpoint_ms} ms"
    if options.restore:
        values["execution.state-recovery.path"] = options.restore
    return values


def as_configuration(values: Mapping[str, str]) -> Configuration:
    """Flink's own object; starts the client's JVM."""
    client_jvm()
    from pyflink.common import Configuration

    configuration = Configuration()
    for key, value in values.items():
        if value:
            configuration.set_string(key, value)
    return configuration


def stream_environment(configuration: Configuration) -> StreamExecutionEnvironment:
    """The environment in which a job is built.

    ``StreamExecutionEnvironment.get_execution_environment`` would make a local one whatever
    ``execution.target`` says, and that of a remote address would drop the path to restore from.
    """
    from pyflink.datastream import StreamExecutionEnvironment

    package = client_jvm().jvm.org.apache.flink.streaming.api.environment
    java = package.StreamExecutionEnvironment(configuration._j_configuration)  # noqa: SLF001
    return StreamExecutionEnvironment(java)


def end_client(settings: Settings) -> None:
    """End the JVM of pyflink, if it runs, and remove the files of a local job."""
    import shutil

    end_client_jvm()
    shutil.rmtree(settings.home / "flink" / "tmp" / f"local-{os.getpid()}", ignore_errors=True)
