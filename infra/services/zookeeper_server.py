"""ZooKeeper out of the Flink wheel: it lets a new JobManager go on with the jobs of a dead one."""

from __future__ import annotations

from infra.jars import cluster_jars
from infra.services.class_archive import FLINK_CLASSES
from infra.services.java import (
    QUICK_START,
    TEMPLATES,
    class_path,
    java_program,
    logging_options,
    render,
)
from infra.services.process import answers
from infra.services.service import Service, ServiceDefinition
from infra.services.state import ServiceState
from infra.settings import HOST, Settings

MAIN = "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.ZooKeeperServerMain"


def build(settings: Settings, port: int) -> Service:
    """The service on a given port; writes its configuration file.

    Raises:
        MissingToolError: no Java, or no Flink.
    """
    folder = settings.home / "flink" / "zookeeper"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {"data": folder / "data", "port": port}
    file = render(TEMPLATES / "zookeeper" / "zoo.cfg", folder / "zoo.cfg", values)
    options = ("-Xmx64m", *QUICK_START, *FLINK_CLASSES.options())
    quiet = ("-Dzookeeper.jmx.log4j.disable=true", *logging_options(settings, "flink-zookeeper"))
    return Service(
        name="flink-zookeeper",
        command=(
            java_program(),
            *options,
            *quiet,
            "-cp",
            class_path(cluster_jars()),
            MAIN,
            str(file),
        ),
        port=port,
    )


def is_ok(_: Settings, state: ServiceState) -> bool:
    """Whether the server says that it is in order."""
    return answers(state.port, b"ruok", b"imok")


DEFINITION = ServiceDefinition(
    name="flink-zookeeper",
    title="Flink's ZooKeeper",
    usual_port=2181,
    configured_port=lambda settings: settings.flink_zookeeper_port,
    build=build,
    ready=is_ok,
    group="stream",
    address=f"{HOST}:{{port}}",
)
