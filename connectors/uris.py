"""URIs as they may be shown: without the user and password they carry."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(?i)\b(https?://)[^\s/?#]*@|\b(?!https?:)([a-z][a-z0-9+.-]*://)(?!/)\S*@")
_PASSWORD = re.compile(r"(?i)([?&](?:user|pass\w*)=)[^&#\s]*")


def without_login(text: str) -> str:
    """Return a URI, or a text that holds URIs, without user names and passwords.

    A database's password may hold any character (SQLAlchemy takes it unescaped), so everything up
    to the last ``@`` goes.

    >>> without_login("postgresql+psycopg2://user:se/cret@db.example/mlflow")
    'postgresql+psycopg2://db.example/mlflow'
    >>> without_login("no answer from https://user:secret@mlflow.example/api?filter=a@b")
    'no answer from https://mlflow.example/api?filter=a@b'
    """
    return _PASSWORD.sub(r"\1***", _LOGIN.sub(r"\1\2", text))
