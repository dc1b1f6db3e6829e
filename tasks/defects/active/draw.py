"""Images drawn at random, by name: only labels of these may bound error rates.

Ranked images are chosen because they are hard, so what is measured on them says nothing of the
line. The draw is an order by a hash of the names: the same on every machine and day, and a new
image takes a place as random as all others. Its first images, up to the last one that was labelled
because the draw came to it, are a random sample, whoever labelled the others before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray


def drawn(names: Sequence[str]) -> NDArray[np.int64]:
    """Return places of the names in the order of the draw: int64 [n].

    >>> drawn(["a.png", "b.png", "c.png"]).tolist()
    [2, 1, 0]
    """
    keys = [hashlib.sha256(f"draw:{name}".encode("utf-8", "surrogateescape")) for name in names]
    return np.array(sorted(range(len(names)), key=lambda i: keys[i].digest()), np.int64)


def random_sample(
    names: Sequence[str], labelled: Container[str], asked: Container[str]
) -> list[str]:
    """Return the labelled names that may calibrate: the first of the draw.

    The sample ends with the last name that was asked for by the draw: the one behind it may have
    a label just because it was hard. It ends before the first gap, too.

    Args:
        names: All images of the line, each part and each copy once.
        labelled: Names of those with a label.
        asked: Names that were labelled because the draw came to them.
    """
    order = (names[place] for place in drawn(names))
    first = list(takewhile(lambda name: name in labelled, order))
    while first and first[-1] not in asked:
        first.pop()
    return first
