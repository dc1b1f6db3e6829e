"""Errors of the API: problem details by RFC 9457 with what, where and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        code: Short stable name of the kind of problem, for programs.
        what: What went wrong, for people.
        fix: How to mend it.
        where: Column, member or header at fault; empty if none.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        what: str,
        fix: str = "",
        *,
        where: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what)
        self.status, self.code = status, code
        self.what, self.fix, self.where = what, fix, where
        self.headers = dict(headers or {})

    def document(self, request_id: str = "") -> dict[str, Any]:
        """Return the problem as plain data."""
        document: dict[str, Any] = {
            "type": f"urn:penstock:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.what,
            "code": self.code,
        }
        if self.fix:
            document["fix"] = self.fix
        if self.where:
            document["where"] = self.where
        if request_id:
            document["request_id"] = request_id
        return document

    def body(self, request_id: str = "") -> bytes:
        """Return the problem as JSON."""
        return orjson.dumps(self.document(request_id))


def unauthorised() -> Problem:
    """No token, or one that nobody was given."""
    return Problem(
        401,
        "unauthorised",
        "the request carries no token that is known here",
        "Send the header 'Authorization: Bearer TOKEN' with a token of PENSTOCK_API_TOKENS",
        where="authorization",
        headers={"www-authenticate": 'Bearer realm="penstock"'},
    )


def forbidden(name: str, scope: str) -> Problem:
    """A token without the right."""
    return Problem(
        403,
        "forbidden",
        f"token {name!r} lacks the scope {scope!r}",
        f"Use a token with scope {scope!r}",
        where="authorization",
        headers={"www-authenticate": f'Bearer realm="penstock", scope="{scope}"'},
    )


def too_many(seconds: float) -> Problem:
    """A client that sends faster than agreed."""
    return Problem(
        429,
        "rate-limit",
        "this token sends more transactions than its rate allows",
        "Wait as long as Retry-After says, or ask for a higher rate (PENSTOCK_API_RATE)",
        headers={"retry-after": str(max(1, round(seconds + 0.5)))},
    )


def overloaded() -> Problem:
    """More work than can be answered in time."""
    return Problem(
        503,
        "overloaded",
        "requests wait longer than an answer may take; this one was not looked at",
        "Send it again after a second, and spread the load",
        headers={"retry-after": "1"},
    )


def too_large(
    limit: int, where: str = "body", fix: str = "Send fewer transactions at a time"
) -> Problem:
    """A body above the limit."""
    return Problem(
        413,
        "too-large",
        f"the body has more than {limit} bytes",
        fix,
        where=where,
        headers={"connection": "close"},  # the rest of the body is not read
    )


def failed() -> Problem:
    """A failure that is ours."""
    return Problem(
        500,
        "failed",
        "the request failed here, not by anything you sent",
        "Report the request id to the operator",
    )
