"""Archives of classes: made for a class path, used by a JVM, never used for another one."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import MissingToolError, ServiceError
from infra.jars import flink_home
from infra.services import class_archive
from infra.services.class_archive import FLINK_CLASSES, KAFKA_CLASSES, ClassArchive
from infra.services.java import class_path, java_program

LISTED = "org/apache/logging/log4j/util/Strings"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive of few classes on a class path of its own, in an environment of its own."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setattr(class_archive, "TEMPLATES", tmp_path)
    found = ClassArchive("small", lambda: sorted(tmp_path.glob("*.jar")))
    jar = next((flink_home() / "lib").glob("log4j-api-*.jar"))
    shutil.copy(jar, tmp_path / "a.jar")
    found.class_list.parent.mkdir(parents=True)
    found.class_list.write_bytes(gzip.compress(f"java/lang/Object\n{LISTED}\n".encode()))
    return found


def loaded_from(archive: ClassArchive, *more: Path) -> str:
    """Where a JVM says that it has the listed class from."""
    main = LISTED.replace("/", ".")
    command = [java_program(), "-Xlog:class+load", "-Xshare:on", *archive.options()]
    command += ["-cp", class_path([*archive.jars(), *more]), main]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next((line for line in done.stdout.splitlines() if f" {main} " in line), done.stdout)


def test_a_jvm_takes_its_classes_from_the_archive(archive, tmp_path):
    assert archive.options() == ()
    archive.make()
    assert archive.options() == (f"-XX:SharedArchiveFile={archive.file()}",)
    assert "source: shared objects file" in loaded_from(archive)
    # A path that goes on further may use it too: that of a client has the job's jar.
    assert "source: shared objects file" in loaded_from(archive, tmp_path / "more.jar")
    assert [path.name for path in archive.file().parent.iterdir()] == [archive.file().name]


def test_another_jar_or_list_asks_for_another_archive(archive):
    archive.make()
    first = archive.file()
    jar = archive.jars()[0]
    os.utime(jar, ns=(0, jar.stat().st_mtime_ns + 1))
    assert archive.options() == ()
    archive.make()
    assert archive.file() != first
    assert not first.exists(), "nobody would ever use it again"
    archive.class_list.write_bytes(gzip.compress(b"java/lang/Object\n"))
    assert archive.options() == ()


def test_a_failing_java_is_quoted_and_leaves_nothing(archive, tmp_path, monkeypatch):
    home = tmp_path / "java"
    (home / "lib" / "server").mkdir(parents=True)
    (home / "lib" / "server" / "libjvm.so").touch()
    (home / "bin").mkdir()
    (home / "bin" / "java").write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    (home / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(home))
    with pytest.raises(ServiceError, match="small's classes: no space left"):
        archive.make()
    assert list(archive.file().parent.iterdir()) == []


def test_without_jars_it_is_told_what_brings_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(MissingToolError, match="make setup"):
        KAFKA_CLASSES.options()
    assert class_archive.main() == 1


def test_the_lists_hold_what_the_services_run():
    for archive, wanted in (
        (FLINK_CLASSES, "org/apache/flink/runtime/taskexecutor/TaskManagerRunner"),
        (FLINK_CLASSES, "org/apache/flink/client/python/PythonGatewayServer"),
        (KAFKA_CLASSES, "kafka/Kafka"),
    ):
        assert wanted in gzip.decompress(archive.class_list.read_bytes()).decode().splitlines()
