"""Where the jars of the stream lie: our own module, Flink with its connectors, the Kafka broker.

Flink comes as a wheel, ``infra/jars/build.sh`` brings the others (``make setup``).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from infra.errors import MissingToolError


def jar_folder() -> Path:
    """Return the folder of all jars, inside the Python environment."""
    return Path(sys.prefix) / "share" / "penstock" / "jars"


def stream_jar() -> Path:
    """Return the jar of the stream's Java module (``kernels/entity_state/jvm``).

    Raises:
        MissingToolError: When it was not built.
    """
    return _found(jar_folder() / "flink", "penstock-stream.jar")[0]


def connector_jars() -> list[Path]:
    """Return the connectors that Flink needs beside its wheel (Kafka).

    Raises:
        MissingToolError: When they are not there.
    """
    return _found(jar_folder() / "flink", "flink-sql-connector-*.jar")


def flink_home() -> Path:
    """Return the folder of the Flink distribution in the installed wheel, without its import.

    Raises:
        MissingToolError: When the wheel is not installed.
    """
    found = importlib.util.find_spec("pyflink")
    if found is None or found.origin is None:
        raise MissingToolError("the package apache-flink is missing", "Run 'make setup'.")
    return Path(found.origin).resolve().parent


def cluster_jars() -> list[Path]:
    """Return the class path of Flink's processes: distribution, Python part, connectors.

    The module of the stream is not among them: every job brings its own version. The distribution's
    jars come as the folder lists them, for so does pyflink: its JVM must begin with the same path
    to share our archive of classes.

    Raises:
        MissingToolError: When they are not there.
    """
    library, optional = flink_home() / "lib", flink_home() / "opt"
    python = _found(optional, "flink-python-*.jar")
    return [*library.glob("*.jar"), *python, *connector_jars()]


def broker_jars() -> list[Path]:
    """Return the class path of the Kafka broker and its tools.

    Raises:
        MissingToolError: When they are not there.
    """
    folder = jar_folder() / "kafka"
    _found(folder, "kafka_2.13-*.jar")
    # Its own lack the binding of slf4j to log4j.
    return [*sorted(folder.glob("*.jar")), *_found(flink_home() / "lib", "log4j-slf4j-impl-*.jar")]


def _found(folder: Path, pattern: str) -> list[Path]:
    jars = sorted(folder.glob(pattern))
    if not jars:
        raise MissingToolError(f"{folder / pattern} is missing", "Run 'make setup': it brings it.")
    return jars
