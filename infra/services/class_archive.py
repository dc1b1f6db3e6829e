"""Archives of classes, which a JVM maps instead of reading, checking and linking them anew.

A TaskManager that takes over a job loads 15,000 classes, on two cores that have better to do.
Class data sharing for applications (JEP 310) puts them into a file beforehand. ``make setup`` makes
one for Flink's processes and one for the Kafka broker, from lists of what these load
(``infra/java/classes``; ``make class-lists`` records them anew). The file's name holds a digest of
all that it depends on: where none fits, a JVM starts as it always did.

Run as a program, it makes the archives that are missing.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from infra import jars
from infra.errors import PenstockError, ServiceError
from infra.services.java import TEMPLATES, class_path, java_program, last_words

DUMP_SECONDS = 300.0


@dataclass(frozen=True)
class ClassArchive:
    """The archive of one class path.

    Args:
        name: name of its file, and of the list of its classes.
        jars: the class path that it holds for, or for one that only goes on further.
    """

    name: str
    jars: Callable[[], list[Path]]

    @property
    def class_list(self) -> Path:
        """What is archived: class files, lambdas and forms, in the words of the JVM."""
        return TEMPLATES / "java" / "classes" / f"{self.name}.txt.gz"

    def file(self) -> Path:
        """Where the archive for the present jars and JVM is, or would be.

        Raises:
            MissingToolError: no Java, or no jars.
        """
        library = Path(java_program()).resolve().parent.parent / "lib" / "server" / "libjvm.so"
        digest = hashlib.sha256(self.class_list.read_bytes())
        for path in (library, *self.jars()):
            found = path.stat()
            digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
        return jars.jar_folder() / "archives" / f"{self.name}-{digest.hexdigest()[:16]}.jsa"

    def options(self) -> tuple[str, ...]:
        """Options of a JVM that is to use the archive; none where there is no archive.

        Raises:
            MissingToolError: no Java, or no jars.
        """
        file = self.file()
        return (f"-XX:SharedArchiveFile={file}",) if file.is_file() else ()

    def make(self) -> None:
        """Make the archive, in some 20 seconds, and remove those it replaces.

        Raises:
            MissingToolError: no Java, or no jars.
            ServiceError: Java did not make it; quotes it.
        """
        file = self.file()
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=file.parent) as folder:
            self._dump(Path(folder)).replace(file)
        for old in file.parent.glob(f"{self.name}-*.jsa"):
            if old != file:
                old.unlink(missing_ok=True)

    def _dump(self, folder: Path) -> Path:
        """Let Java write the archive into a folder."""
        wanted, draft = folder / "classes.txt", folder / "classes.jsa"
        wanted.write_bytes(gzip.decompress(self.class_list.read_bytes()))
        options = (f"-XX:SharedClassListFile={wanted}", f"-XX:SharedArchiveFile={draft}")
        # Only G1 archives objects beside the classes; a JVM with another collector does without.
        command = [java_program(), "-Xshare:dump", *options, "-Xmx512m", "-XX:+UseG1GC"]
        try:
            done = subprocess.run(
                [*command, "-cp", class_path(self.jars())],
                capture_output=True,
                text=True,
                timeout=DUMP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(
                f"no archive of {self.name}'s classes in {DUMP_SECONDS:.0f} s",
                "Wait until the machine is less busy, then run: make setup",
            ) from error
        if done.returncode or not draft.is_file():
            raise ServiceError(
                f"no archive of {self.name}'s classes: {last_words(done)}",
                "Is the disk full? Services start without it, only slower",
            )
        return draft


FLINK_CLASSES = ClassArchive("flink", jars.cluster_jars)
KAFKA_CLASSES = ClassArchive("kafka", jars.broker_jars)


def main() -> int:
    """Make what is missing; says so, for it takes a while."""
    try:
        absent = [one for one in (FLINK_CLASSES, KAFKA_CLASSES) if not one.file().is_file()]
        for archive in absent:
            sys.stdout.write(f"jars: archiving {archive.name}'s classes for quick starts\n")
        sys.stdout.flush()
        with ThreadPoolExecutor() as beside:
            list(beside.map(ClassArchive.make, absent))
    except PenstockError as error:
        sys.stderr.write(f"jars: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
