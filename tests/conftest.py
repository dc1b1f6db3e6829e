"""Fixtures shared by every test.

The whole run works in a temporary home, so that no test sees or changes the state of the
checkout, and shares one Prefect and one MLflow server, started when a test first asks.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

from infra.environment import apply_environment
from infra.services.ports import any_free_port, hold, port_variable
from infra.services.registry import (
    SERVICES,
    end_service,
    service_status,
    start_service,
    stop_order,
    with_needs,
)
from infra.settings import get_settings

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("connectors", "flows", "tasks", "kernels")
WATCHDOG = pytest.StashKey["subprocess.Popen[str]"]()
PORTS = pytest.StashKey[list[socket.socket]]()

# Reads process groups from its input (a minus sign takes one back), which closes when this run
# ends in any way, SIGKILL included; then it ends them and the services and removes the home.
WATCHDOG_CODE = """
import os, shutil, signal, sys
from contextlib import suppress

groups = set()
for line in sys.stdin:
    group = int(line)
    groups.add(group) if group > 0 else groups.discard(-group)
from infra.services.registry import SERVICES, end_service
from infra.settings import get_settings

for group in groups:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
for name in reversed(SERVICES):
    end_service(get_settings(), name)
shutil.rmtree(get_settings().home, ignore_errors=True)
"""


def pytest_configure(config: pytest.Config) -> None:
    """Move this process to a temporary home before anything imports prefect or mlflow."""
    for name in [name for name in os.environ if name.startswith(("PENSTOCK_", "PREFECT_"))]:
        if name != "PENSTOCK_DATA":
            del os.environ[name]
    # A shell that starts the suite in the background has Ctrl-C ignored, by all children as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="penstock-tests-"))
    os.environ["PENSTOCK_HOME"] = str(home)
    os.environ["PENSTOCK_CONFIG"] = str(home / "penstock.toml")
    (home / "penstock.toml").touch()
    # Never the usual ports: those belong to the person at this machine.
    # Held until the run ends: other processes of this run choose ports all the time.
    config.stash[PORTS] = held = [hold(any_free_port()) for _ in SERVICES]
    for name, port in zip(SERVICES, held, strict=True):
        os.environ[port_variable(name)] = str(port.getsockname()[1])
    os.environ["MPLBACKEND"] = "Agg"
    # How long an example takes says how busy the machine is.
    hypothesis_settings.register_profile("house", deadline=None)
    hypothesis_settings.load_profile("house")
    # A root handler found when Prefect is imported keeps it from making one of its own, which would
    # hold on to the captured stream of whichever test that was.
    quiet = logging.NullHandler()
    quiet.setFormatter(logging.Formatter())
    logging.getLogger().addHandler(quiet)
    apply_environment(get_settings())
    config.stash[WATCHDOG] = subprocess.Popen(
        [sys.executable, "-c", WATCHDOG_CODE],
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--room``, by which `make test` shares the tests out between processes."""
    parser.addoption("--room", choices=ROOMS, help="collect only the tests of this room")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other rooms."""
    room = config.getoption("--room")
    if room is None or not collection_path.match("test_*.py"):
        return None
    return room_of(collection_path) != room or None


def room_of(path: Path) -> str:
    """Return which tests those of a file share their process with.

    Tests that start services share them: those of connectors one set of them, those of flows and
    the command line another. Flink's gateway to one JVM runs beside the kernels.
    """
    folder = path.relative_to(ROOT / "tests").parts[0]
    if folder in {"kernels", "models", "integrity"} or "flink_gateway" in path.read_text("utf-8"):
        return "kernels"
    return folder if folder in ROOMS else "flows"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the watchdog clean up, and wait for it."""
    watchdog = config.stash.get(WATCHDOG, None)
    if watchdog is not None:
        watchdog.communicate()
    for port in config.stash.get(PORTS, []):
        port.close()


@pytest.fixture(scope="session")
def end_with_run(pytestconfig: pytest.Config) -> Callable[[int], None]:
    """Takes a process group that must not outlive this run, not even if it is killed.

    Once the group is gone, its negative number takes it back.
    """
    watchdog = pytestconfig.stash[WATCHDOG]

    def register(group: int) -> None:
        assert watchdog.stdin is not None
        watchdog.stdin.write(f"{group}\n")
        watchdog.stdin.flush()

    return register


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with the real evaluation data, or a skip that says how to supply it."""
    folder = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "fraud").is_dir():
        pytest.skip("real data absent: set PENSTOCK_DATA to a folder holding fraud/*.parquet")
    return folder


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """URL of a real Prefect API, shared by the run; flows of this process use it."""
    settings = get_settings()
    url = f"{start_service(settings, 'prefect').url}/api"
    try:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        before = os.environ.get("PREFECT_API_URL")
        os.environ["PREFECT_API_URL"] = url  # for subprocesses
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
        os.environ.pop("PREFECT_API_URL")
        if before is not None:
            os.environ["PREFECT_API_URL"] = before
    finally:
        end_service(settings, "prefect")


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[str]:
    """URL of a real MLflow server, shared by the run; this process tracks to it."""
    settings = get_settings()
    url = start_service(settings, "mlflow").url
    try:
        import mlflow

        before, uri = os.environ["MLFLOW_TRACKING_URI"], mlflow.get_tracking_uri()
        os.environ["MLFLOW_TRACKING_URI"] = url
        mlflow.set_tracking_uri(url)
        yield url
        mlflow.set_tracking_uri(uri)
        os.environ["MLFLOW_TRACKING_URI"] = before
    finally:
        end_service(settings, "mlflow")


@pytest.fixture(scope="session")
def flink_gateway(
    end_with_run: Callable[[int], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """PyFlink's gateway to one JVM for the whole run, our jars loaded; jobs run inside it.

    PyFlink starts it as a child that outlives a killed parent and whose standard error nobody
    reads; here it gets a process group of its own and a file.
    """
    with warnings.catch_warnings():
        # PyFlink 2.3 deprecates classes of its own while it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        import pyflink.pyflink_gateway_server as server
        import pyflink.table  # noqa: F401
        from pyflink.java_gateway import get_gateway
        from pyflink.util.java_utils import add_jars_to_context_class_loader

    from infra.jars import connector_jars, stream_jar

    folder = tmp_path_factory.mktemp("flink")
    started: list[subprocess.Popen[bytes]] = []
    with (folder / "stderr.log").open("wb") as errors, pytest.MonkeyPatch.context() as patch:

        def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
            options |= {"stderr": errors, "start_new_session": True}
            started.append(subprocess.Popen(command, **options))
            return started[-1]

        patch.setattr(server, "Popen", start)
        patch.setenv("FLINK_LOG_DIR", str(folder))
        # Jobs of seconds: what the second compiler spends on them they do not give back.
        patch.setenv("JVM_ARGS", "-Xmx2g -XX:+UseParallelGC -XX:TieredStopAtLevel=1")
        gateway = get_gateway()
    # An object is let go from whichever thread collects it, by a connection and so by a Java thread
    # of its own; the next query may get that one, and the planner keeps its state in the thread
    # that made the tables (FLINK-23020). Nothing here is worth letting go before the run ends.
    gateway._gateway_client.gateway_property.enable_memory_management = False
    end_with_run(started[0].pid)
    try:
        add_jars_to_context_class_loader([p.as_uri() for p in (stream_jar(), *connector_jars())])
        yield gateway
    finally:
        gateway.shutdown()
        with suppress(ProcessLookupError):
            os.killpg(started[0].pid, signal.SIGKILL)
        with started[0]:
            end_with_run(-started[0].pid)


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    """Bootstrap address of a real Kafka broker, shared by the run."""
    settings = get_settings()
    require_jars()
    try:
        yield start_service(settings, "kafka").url
    finally:
        end_service(settings, "kafka")


@pytest.fixture(scope="session")
def flink_cluster() -> Iterator[str]:
    """URL of a real Flink session cluster with one TaskManager of four slots, shared by the run."""
    settings = get_settings()
    require_jars()
    names = with_needs(["flink-taskmanager"])
    try:
        start_service(settings, "flink-taskmanager")
        yield service_status(settings, "flink-jobmanager").url
    finally:
        for name in stop_order(names):
            end_service(settings, name)


def require_jars() -> None:
    """Skip where the jars of the stream were not built."""
    from infra import jars
    from infra.errors import MissingToolError

    try:
        jars.broker_jars()
        jars.connector_jars()
    except MissingToolError as error:
        pytest.skip(f"the jars of the stream are absent: {error}")


@pytest.fixture(scope="session")
def linear_head() -> Callable[..., bytes]:
    """Builder of an ONNX head that scores ``sigmoid(features @ weights)``."""
    from onnx import TensorProto, helper, numpy_helper

    def build(weights: Sequence[float], *, name: str = "features") -> bytes:
        column = np.asarray(weights, dtype=np.float32)[:, None]
        nodes = [
            helper.make_node("MatMul", [name, "weights"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ]
        shape = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, len(column)]),
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1]),
        ]
        graph = helper.make_graph(
            nodes, "linear", shape[:1], shape[1:], [numpy_helper.from_array(column, "weights")]
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return bytes(model.SerializeToString())

    return build


@pytest.fixture(scope="session")
def small_bundle(linear_head: Callable[..., bytes]) -> Callable[..., Bundle]:
    """Builder of a bundle with linear heads over four features, for tests of its handling."""
    from tasks.fraud.bundle import BundleParts, write_bundle
    from tasks.fraud.dataset import DatasetConfig, EntityColumn

    def build(folder: Path, *, active: Sequence[float] = (1, 0, 0, 0), **changes: Any) -> Bundle:
        rng = np.random.default_rng(7)
        rows = rng.normal(size=(32, 4)).astype(np.float32)
        entities = (EntityColumn("card"), EntityColumn("shop"))
        parts = BundleParts(
            config=DatasetConfig("tiny", "time", "amount", entities, label="fraud"),
            feature_names=("a", "b", "c", "d"),
            features_version=1,
            heads={"tabular": linear_head(active), "logistic": linear_head((0.5, 0, 0, 0.5))},
            active="tabular",
            thresholds={"fpr": {"0.01": 0.9}},
            metrics={"tabular": {"ap": 0.5, "ap_interval": [0.4, 0.6]}},
            background=rows,
            example={"features": rows},
            trained_until=1_600_000_000_000,
            data_digest="0" * 64,
        )
        return write_bundle(folder, replace(parts, **changes))

    return build
