"""What such pages share: fields of a form, a style, a policy that lets in nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from urllib.parse import parse_qs

from starlette.requests import Request

from connectors.local_page.guard import MAX_DRAINED, drain

MAX_FORM = 1 << 16
MAX_FIELDS = 32


async def form_of(request: Request, max_fields: int = MAX_FIELDS) -> dict[str, str] | None:
    """Return the fields of a form, None where it is none or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        await drain(request.receive)
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_DRAINED:
            return None
    if len(body) > MAX_FORM:
        return None
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=max_fields)
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}


def policy_of(css: str, script: str, *more: str) -> str:
    """Return a content security policy for a page with one style and one script of its own.

    Args:
        css: Text of the style element.
        script: Text of the script element.
        more: Further directives, such as ``img-src 'self'``.
    """
    directives = (
        "default-src 'none'",
        f"style-src '{_hash(css)}'",
        f"script-src '{_hash(script)}'",
        *more,
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return "; ".join(directives)


def own_file(package: str, name: str) -> str:
    """Return a text file that lies in a package."""
    return resources.files(package).joinpath(name).read_text("utf-8").strip()


def base_css() -> str:
    """Return the style that all such pages have: colours, bars, buttons, messages."""
    return own_file("connectors.local_page", "base.css") + "\n"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
