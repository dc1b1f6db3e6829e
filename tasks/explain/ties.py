"""When two reasons are as good as each other within their errors."""

from __future__ import annotations

import math

TIE_ERRORS = 2.0
"""Standard errors of a difference below which another background may turn it around.

Another background moves the difference by sqrt(2) standard errors, as both have an error of their
own. At two standard errors it turns the order around in eight of a hundred cases, at one in 24; of
all that are turned around, nine in ten lie below two, two in three below one (normal errors)."""


def tied(stronger: float, weaker: float, error: float, other_error: float) -> bool:
    """Tell whether two contributions are no further apart than their standard errors explain.

    >>> tied(1.0, 0.9, 0.05, 0.05), tied(1.0, 0.7, 0.05, 0.05)
    (True, False)
    """
    return stronger - weaker <= TIE_ERRORS * math.hypot(error, other_error)
