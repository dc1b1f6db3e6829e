"""Bearer tokens: who may do what. Secrets are kept as SHA-256 only, and compared in constant time.

A token is long and random, so a plain hash protects it as well as a slow one would, and costs a
microsecond per request.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ConfigurationError

SCOPES = ("score", "label", "read", "admin")
"""``score`` and ``label`` send; ``read`` sees entities, model and page; ``admin`` may do all."""

MIN_SECRET = 20
"""Characters below which a secret could be guessed."""

_HASHED = "sha256="
_PREFIX = b"Bearer "


@dataclass(frozen=True, slots=True)
class Token:
    """One client.

    Attributes:
        name: For metrics and messages.
        scopes: What it may do.
        digest: SHA-256 of the secret.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes

    def allows(self, scope: str) -> bool:
        """Tell whether the token covers a scope."""
        return scope in self.scopes or "admin" in self.scopes


class TokenBook:
    """Every token the API knows."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        """Take the tokens.

        Raises:
            ConfigurationError: When two share a name or a secret.
        """
        self.tokens = tuple(tokens)
        for attribute in ("name", "digest"):
            values = [getattr(token, attribute) for token in self.tokens]
            if len(set(values)) != len(values):
                raise ConfigurationError(
                    f"two tokens share a {'secret' if attribute == 'digest' else 'name'}",
                    "Give each client a name and a secret of its own",
                )

    def __len__(self) -> int:
        return len(self.tokens)

    def find(self, secret: bytes) -> Token | None:
        """Return the token of a secret; takes equally long whichever it is."""
        digest = hashlib.sha256(secret).digest()
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def of_header(self, value: bytes) -> Token | None:
        """Return the token of an Authorization header, None when it names none."""
        if value[: len(_PREFIX)].lower() != _PREFIX.lower():
            return None
        return self.find(value[len(_PREFIX) :].strip())


def read_tokens(text: str, file: Path | None) -> TokenBook:
    """Return the tokens of a setting and of a file.

    Args:
        text: ``NAME:SCOPE+SCOPE:SECRET``, a comma or line break between tokens.
        file: The same one per line, ``#`` for comments; ``sha256=HEX`` may stand for the secret.

    Raises:
        ConfigurationError: On a malformed token; never shows the secret.
    """
    found = list(_tokens(text.replace(",", "\n"), f"{'PENSTOCK_API_TOKENS'}"))
    if file is not None:
        try:
            found += _tokens(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file}: cannot be read ({error})", "Correct it") from error
    return TokenBook(found)


def new_token(name: str, scopes: Iterable[str]) -> tuple[str, str]:
    """Return a fresh secret, and the line for the tokens file that holds only its hash."""
    secret = secrets.token_urlsafe(32)
    joined = "+".join(scopes)
    line = f"{name}:{joined}:{_HASHED}{hashlib.sha256(secret.encode()).hexdigest()}"
    parse_token(line, "new token")
    return secret, line


def parse_token(line: str, place: str) -> Token:
    """Read one ``NAME:SCOPE+SCOPE:SECRET``.

    Raises:
        ConfigurationError: When it is malformed.
    """
    name, _, rest = line.strip().partition(":")
    scopes_text, _, secret = rest.partition(":")
    scopes = frozenset(scope for scope in scopes_text.split("+") if scope)
    if not name or not secret or not scopes:
        raise ConfigurationError(
            f"{place}: a token is not of the form NAME:SCOPE+SCOPE:SECRET", "Correct it"
        )
    unknown = sorted(scopes - set(SCOPES))
    if unknown:
        raise ConfigurationError(
            f"{place}: token {name!r} has scope {unknown[0]!r}", f"Choose from {', '.join(SCOPES)}"
        )
    if secret.startswith(_HASHED):
        try:
            digest = bytes.fromhex(secret.removeprefix(_HASHED))
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise ConfigurationError(
                f"{place}: token {name!r} has no SHA-256 behind {_HASHED}", "Write 64 hex digits"
            )
    elif len(secret) < MIN_SECRET:
        raise ConfigurationError(
            f"{place}: the secret of token {name!r} has fewer than {MIN_SECRET} characters",
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    else:
        digest = hashlib.sha256(secret.encode()).digest()
    return Token(name, scopes, digest)


def _tokens(text: str, place: str) -> Iterator[Token]:
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield parse_token(line, place)
