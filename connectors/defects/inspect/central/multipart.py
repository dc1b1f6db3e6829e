"""The file of a ``multipart/form-data`` body (RFC 7578), as browsers and curl send it."""

from __future__ import annotations

import re

from connectors.api.problem import Problem

MAX_PARTS = 16
MAX_HEAD = 4_096
_BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="?image"?(?:;|\r|$)', re.IGNORECASE)


def file_of_form(content_type: str, body: bytes) -> bytes:
    """Return the content of the part ``image``; the only part may have any name.

    Args:
        content_type: The header, with its boundary.
        body: The whole body.

    Raises:
        Problem: 400 where it is no form, 422 where it has no image.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise _no_form("the header names no boundary")
    mark = b"--" + (found[1] or found[2]).encode("latin-1")
    parts = list(_parts(b"\r\n" + body, b"\r\n" + mark))
    named = [content for head, content in parts if _NAME.search(head)]
    chosen = named or ([content for _, content in parts] if len(parts) == 1 else [])
    if len(chosen) != 1:
        raise Problem(
            422,
            "no-image",
            f"the form has {len(parts)} parts, {len(named)} of them named 'image'",
            "Send one part named 'image', or the bytes of the file as the body",
            where="image",
        )
    return chosen[0]


def _parts(body: bytes, mark: bytes) -> list[tuple[bytes, bytes]]:
    parts: list[tuple[bytes, bytes]] = []
    at = body.find(mark)
    while at >= 0:
        at += len(mark)
        if body[at : at + 2] == b"--":
            return parts
        if body[at : at + 2] != b"\r\n":
            raise _no_form("a boundary does not end its line")
        end = body.find(mark, at)
        head_end = body.find(b"\r\n\r\n", at, at + MAX_HEAD)
        if end < 0 or head_end < 0 or head_end > end:
            raise _no_form("a part is cut off")
        parts.append((body[at:head_end], body[head_end + 4 : end]))
        if len(parts) > MAX_PARTS:
            raise _no_form(f"it has more than {MAX_PARTS} parts")
        at = end
    raise _no_form("the boundary does not occur, or not at the end")


def _no_form(why: str) -> Problem:
    return Problem(
        400,
        "no-form",
        f"the body is no multipart form: {why}",
        "Send multipart/form-data, or the bytes of the file as application/octet-stream",
        where="body",
    )
