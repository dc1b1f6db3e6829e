"""The Flink session cluster of the installed wheel: one JobManager and one TaskManager."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import ServiceError
from infra.jars import cluster_jars, flink_home
from infra.services.class_archive import FLINK_CLASSES
from infra.services.java import (
    QUICK_START,
    TEMPLATES,
    class_path,
    java_program,
    logging_options,
    render,
)
from infra.services.process import is_running
from infra.services.service import Service, ServiceDefinition
from infra.services.state import ServiceState, load_state
from infra.settings import HOST, Settings

JOBMANAGER_MAIN = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASKMANAGER_MAIN = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
RESOURCE_ID = "taskmanager.resource-id="
REST_SECONDS = 3.0


LATE_OPTIMISATION = (
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
)
"""Ten times Java's defaults. A job that comes back on the TaskManager in reserve runs code that is
all new there, and the optimising compiler would take a quarter of two cores when they are needed
most. Code that is hot at 100,000 rows a second is so within one of them anyway."""


@dataclass(frozen=True)
class TaskManagerMemory:
    """How the memory of the TaskManager is shared out, in MiB.

    Args:
        total: the whole process, as ``flink_memory_mb`` sets it.
        managed: for RocksDB and Python workers.
        framework: heap of Flink itself, and as much outside the heap.
        network: buffers between tasks.
        task_off_heap: direct memory of user code (Arrow).
        metaspace: classes.
        overhead: threads, code, allocator.
    """

    total: int
    managed: int
    framework: int = 128
    network: int = 96
    task_off_heap: int = 64
    metaspace: int = 256
    overhead: int = 160

    @property
    def task_heap(self) -> int:
        """What is left for the state and objects of jobs."""
        taken = 2 * self.framework + self.network + self.task_off_heap
        return self.total - self.managed - taken - self.metaspace - self.overhead

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the JVM."""
        heap = self.framework + self.task_heap
        direct = self.framework + self.network + self.task_off_heap
        return (
            f"-Xmx{heap}m",
            f"-Xms{heap // 2}m",
            f"-XX:MaxDirectMemorySize={direct}m",
            f"-XX:MaxMetaspaceSize={self.metaspace}m",
            "-XX:+UseG1GC",
            *LATE_OPTIMISATION,
        )


def memory(settings: Settings) -> TaskManagerMemory:
    """Memory of the TaskManager: RocksDB wants it outside the heap, heap state inside."""
    rocksdb = settings.flink_state == "rocksdb"
    return TaskManagerMemory(settings.flink_memory_mb, 512 if rocksdb else 192)


def configuration_folder(settings: Settings) -> Path:
    """Folder of the cluster's configuration."""
    return settings.home / "flink" / "conf"


def java_options() -> tuple[str, ...]:
    """The list of opened modules that Flink needs on Java 17, whole, as the wheel states it.

    Raises:
        ServiceError: the wheel's configuration states none.
    """
    file = flink_home() / "conf" / "config.yaml"
    found = re.search(r"^\s+all:\s*(--add.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ServiceError(f"{file} holds no env.java.opts.all", "Run: make setup")
    return tuple(found.group(1).split())


def cluster_environment(settings: Settings) -> dict[str, str]:
    """Where the distribution and its configuration are; no plugin is wanted, they cost time."""
    home = flink_home()
    plugins = settings.home / "flink" / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    return {
        "FLINK_HOME": str(home),
        "FLINK_BIN_DIR": str(home / "bin"),
        "FLINK_LIB_DIR": str(home / "lib"),
        "FLINK_OPT_DIR": str(home / "opt"),
        "FLINK_PLUGINS_DIR": str(plugins),
        "FLINK_CONF_DIR": str(configuration_folder(settings)),
        "FLINK_LOG_DIR": str(settings.logs),
        # Images forbid Python to keep bytecode; a worker starts in half the time with it, and in a
        # failover every second counts.
        "PYTHONDONTWRITEBYTECODE": "",
    }


def write_configuration(settings: Settings) -> Path:
    """Write the configuration that both processes read.

    Raises:
        ServiceError: ZooKeeper does not run.
    """
    zookeeper = load_state(settings, "flink-zookeeper")
    if zookeeper is None:
        raise ServiceError("flink-zookeeper does not run", "Run: penstock up flink-jobmanager")
    shared = memory(settings)
    values: dict[str, object] = {
        "home_uri": settings.home.as_uri(),
        "zookeeper_port": zookeeper.port,
        "slots": settings.flink_slots,
        "framework_mb": shared.framework,
        "task_heap_mb": shared.task_heap,
        "task_off_heap_mb": shared.task_off_heap,
        "managed_mb": shared.managed,
        "network_mb": shared.network,
        "metaspace_mb": shared.metaspace,
        "overhead_mb": shared.overhead,
        "state_backend": "rocksdb" if settings.flink_state == "rocksdb" else "hashmap",
        "incremental": str(settings.flink_state == "rocksdb").lower(),
        "python": sys.executable,
    }
    folder = configuration_folder(settings)
    return render(TEMPLATES / "flink" / "config.yaml", folder / "config.yaml", values)


def jvm(settings: Settings, name: str, options: tuple[str, ...], main: str) -> tuple[str, ...]:
    """The beginning of the command of one of the two processes."""
    folder = configuration_folder(settings)
    return (
        java_program(),
        *options,
        *FLINK_CLASSES.options(),
        *java_options(),
        *logging_options(settings, name),
        "-cp",
        class_path(cluster_jars()),
        main,
        "--configDir",
        str(folder),
        "-D",
        f"io.tmp.dirs={temporary_folder(settings, name)}",
    )


def temporary_folder(settings: Settings, name: str) -> Path:
    """Folder of files that are of no use after a restart."""
    return settings.home / "flink" / "tmp" / name


def clear_temporary(settings: Settings, service: Service) -> None:
    """Remove what the last run of a process left there."""
    folder = temporary_folder(settings, service.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def build_jobmanager(settings: Settings, port: int) -> Service:
    """The JobManager with its REST interface on a given port.

    Raises:
        MissingToolError: no Java, no Flink, or no connectors.
    """
    write_configuration(settings)
    options = ("-Xmx448m", "-Xms256m", "-XX:MaxMetaspaceSize=256m", *QUICK_START)
    name = "flink-jobmanager"
    return Service(
        name=name,
        command=(*jvm(settings, name, options, JOBMANAGER_MAIN), "-D", f"rest.port={port}"),
        port=port,
        health="/overview",
        environment=cluster_environment(settings),
    )


def taskmanager_builder(name: str) -> Callable[[Settings, int], Service]:
    """Builder of a TaskManager, listening to the JobManager on a given port."""

    def build(settings: Settings, port: int) -> Service:
        write_configuration(settings)
        # Its own name for every start, so that nobody takes it for one that died a moment ago.
        identity = f"{RESOURCE_ID}tm-{secrets.token_hex(4)}"
        named = ("-D", f"taskmanager.rpc.port={port}", "-D", identity)
        return Service(
            name=name,
            command=(*jvm(settings, name, memory(settings).options, TASKMANAGER_MAIN), *named),
            port=port,
            environment=cluster_environment(settings),
        )

    return build


def flink_address(settings: Settings) -> tuple[str, int]:
    """Host and port of the REST interface of our running cluster.

    Raises:
        ServiceError: no JobManager runs.
    """
    state = load_state(settings, "flink-jobmanager")
    if state is None or not is_running(state):
        raise ServiceError("no Flink cluster runs", "Run: penstock up --stream")
    return HOST, state.port


def is_registered(settings: Settings, state: ServiceState) -> bool:
    """Whether the JobManager knows this TaskManager and its slots."""
    try:
        host, port = flink_address(settings)
    except ServiceError:
        return False
    marked = (word for word in state.command if word.startswith(RESOURCE_ID))
    identity = next(marked, "").removeprefix(RESOURCE_ID)
    found = rest_answer(host, port, "/taskmanagers").get("taskmanagers", [])
    return any(each.get("id") == identity and each.get("slotsNumber", 0) > 0 for each in found)


def rest_answer(host: str, port: int, path: str) -> dict[str, Any]:
    """What the REST interface says at a path; {} where it says nothing."""
    connection = http.client.HTTPConnection(host, port, timeout=REST_SECONDS)
    try:
        connection.request("GET", path)
        answer = json.load(connection.getresponse())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


JOBMANAGER = ServiceDefinition(
    name="flink-jobmanager",
    title="Flink JobManager",
    usual_port=8081,
    configured_port=lambda settings: settings.flink_jobmanager_port,
    build=build_jobmanager,
    prepare=clear_temporary,
    needs=("flink-zookeeper",),
    group="stream",
)


def taskmanager(name: str, title: str, group: str, usual_port: int) -> ServiceDefinition:
    """Definition of a TaskManager."""
    return ServiceDefinition(
        name=name,
        title=title,
        usual_port=usual_port,
        configured_port=lambda settings: getattr(settings, f"{name.replace('-', '_')}_port"),
        build=taskmanager_builder(name),
        ready=is_registered,
        prepare=clear_temporary,
        needs=("flink-jobmanager",),
        group=group,
        address=f"{HOST}:{{port}}",
    )


TASKMANAGER = taskmanager("flink-taskmanager", "Flink TaskManager", "stream", 6122)
# A second one with free slots: a job whose TaskManager dies goes on there at once.
STANDBY = taskmanager("flink-standby", "standby TaskManager", "extra", 6123)
