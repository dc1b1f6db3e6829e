"""What a page tells a person after a decision, kept until the next page is asked for."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

MAX_TOLD = 100


@dataclass(frozen=True, slots=True)
class Told:
    """A message to the person.

    Attributes:
        text: What happened.
        kind: ``good``, or ``bad`` where nothing was done.
    """

    text: str
    kind: str = "good"


class Messages:
    """The last messages, each under a random name; used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: OrderedDict[str, Told] = OrderedDict()

    def tell(self, told: Told) -> str:
        """Keep a message for the next page; returns its name."""
        name = secrets.token_hex(8)
        with self._lock:
            self._told[name] = told
            if len(self._told) > MAX_TOLD:
                self._told.popitem(last=False)
        return name

    def told(self, name: str) -> Told | None:
        """Return a message, None where there is none of that name (any more)."""
        return self._told.get(name)
