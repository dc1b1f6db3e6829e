"""An answer on its way out, and the headers that every answer carries."""

from __future__ import annotations

from typing import NamedTuple

from connectors.api.problem import MEDIA_TYPE, Problem

JSON = "application/json"

SECURITY_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer; pages bring a policy of their own."""

TLS_HEADER = ("strict-transport-security", "max-age=31536000")


class Reply(NamedTuple):
    """An answer.

    Attributes:
        status: HTTP status.
        body: Its bytes.
        media_type: Their type.
        headers: Further headers.
    """

    status: int
    body: bytes
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def reply_to(problem: Problem, request_id: str) -> Reply:
    """Return a problem as an answer."""
    headers = tuple(problem.headers.items())
    return Reply(problem.status, problem.body(request_id), MEDIA_TYPE, headers)
