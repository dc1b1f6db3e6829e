"""Programs that tests of the store run beside themselves: ``python -m ... NAME FOLDER``."""

from __future__ import annotations

import resource
import sys
from itertools import count

import numpy as np

from connectors.online_store import Answer, Record, StoreFullError, open_store
from connectors.online_store.record import encode_key, encode_value

ENTITIES = 64
SIZE = 3608


def made(entity: int, version: int) -> Record:
    """A record whose every byte tells its version."""
    content = np.full(SIZE, version % 251, np.uint8).tobytes()
    return Record(encode_key("card", f"e{entity}", 0), encode_value(1, version, 0, content))


def is_whole(record: Record) -> bool:
    """Whether all bytes are of one version."""
    content = np.frombuffer(record.content, np.uint8)
    return len(content) == SIZE and bool((content == record.version % 251).all())


def tell(what: object) -> None:
    """Write a line to whoever started this."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def write_on(url: str) -> None:
    """Raise the version of all entities together, for ever; tell each one that was committed."""
    with open_store(url) as store:
        for version in count(1):
            answers = {version: Answer(b"%d" % version, 2**52)}
            store.commit([made(e, version) for e in range(ENTITIES)], answers)
            tell(version)


def grow(url: str) -> None:
    """Write more than the map holds, then wait for the end of input."""
    with open_store(url) as store:
        for version in (1, 2):
            store.write(made(e, version) for e in range(3000))
            tell(version)
            sys.stdin.readline()


def fill(url: str) -> None:
    """Write until files may grow no more; then what is there must still be read."""
    with open_store(url) as store:
        store.write([made(0, 1)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, resource.RLIM_INFINITY))
        written = 1
        try:
            for entity in range(1, 10_000):
                store.write([made(entity, 1)])
                written += 1
        except StoreFullError as error:
            tell(f"full: {error}")
        found = [record for record in store.iterate() if is_whole(record)]
        assert len(found) == written, (len(found), written)
        assert store.counts() == {"card": written}
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert store.write([made(20_000, 1)]) == 1
        tell("ok")


def hold(url: str) -> None:
    """Look at a moment of the store for ever."""
    with open_store(url, read_only=True) as store:
        moment = store.iterate()
        tell(next(moment).version)
        sys.stdin.readline()


if __name__ == "__main__":
    {"write-on": write_on, "grow": grow, "fill": fill, "hold": hold}[sys.argv[1]](sys.argv[2])
