"""What the services on the JVM share: the program, its class path, its logging."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from string import Template

from infra.errors import MissingToolError, ServiceError
from infra.files import write_atomically
from infra.settings import CHECKOUT, Settings

TEMPLATES = CHECKOUT / "infra"
JAVA_FIX = "Run: sudo apt-get install -y openjdk-17-jdk-headless"


def java_program() -> str:
    """Path of ``java``: that of JAVA_HOME, else the first on the PATH.

    Raises:
        MissingToolError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = f"{home}/bin/java" if home else shutil.which("java")
    if not found or not Path(found).exists():
        raise MissingToolError("Java is missing", JAVA_FIX)
    return found


QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For a JVM that computes little and must be there soon: no threads beside it that collect or
optimise."""


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a program of Java's said, which tells why it failed."""
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else "no message"


def class_path(jars: Iterable[Path]) -> str:
    """The value of ``-cp``, in the order given.

    Raises:
        ServiceError: no jar at all, or a path that Java would split.
    """
    paths = [str(jar) for jar in jars]
    if not paths:
        raise ServiceError("a class path without jars", "Run: make setup")
    split = next((path for path in paths if os.pathsep in path), None)
    if split:
        raise ServiceError(f"{split} holds {os.pathsep!r}", "Move the checkout to another folder")
    return os.pathsep.join(paths)


def logging_options(settings: Settings, service: str) -> tuple[str, ...]:
    """JVM options for logging.

    Warnings go to the service's log, everything to ``NAME-details.log``, which rolls.
    """
    return (
        f"-Dlog.file={settings.logs / f'{service}-details.log'}",
        f"-Dlog4j2.configurationFile=file:{TEMPLATES / 'java' / 'log4j2.properties'}",
        "-Dlog4j2.disableJmx=true",
    )


def render(template: Path, target: Path, values: dict[str, object]) -> Path:
    """Fill in a template's ``${name}`` and write it, readable by this user only.

    Raises:
        KeyError: the template names a value that is not given.
    """
    text = Template(template.read_text(encoding="utf-8")).substitute(values)
    write_atomically(target, text)
    return target
