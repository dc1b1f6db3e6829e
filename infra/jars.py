"""Where the jars of the stream lie: our own module, the Flink connectors and the Kafka broker.

``infra/jars/build.sh`` puts them into the environment (``make setup``).
"""

from __future__ import annotations

import os
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


def kafka_classpath() -> str:
    """Return the class path of the Kafka broker and its tools, for ``java -cp``.

    Raises:
        MissingToolError: When the broker is not there.
    """
    folder = jar_folder() / "kafka"
    _found(folder, "kafka_2.13-*.jar")
    return os.fspath(folder / "*")


def _found(folder: Path, pattern: str) -> list[Path]:
    jars = sorted(folder.glob(pattern))
    if not jars:
        raise MissingToolError(f"{folder / pattern} is missing", "Run 'make setup': it brings it.")
    return jars
