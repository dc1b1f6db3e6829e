"""The other side: asks a model server, arrays in and arrays out.

>>> Client("http://127.0.0.1:8020", token).infer("surface", {"pixels": pixels})  # doctest: +SKIP
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping, Sequence
from threading import local
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

import numpy as np
import orjson

from connectors.model_server.messages import BINARY, HEADER_LENGTH, JSON, Limits, pack, unpack
from connectors.model_server.tensors import Array, TensorError

MOST_ELEMENTS = 2**31
_ANSWERS = Limits(MOST_ELEMENTS, nulls=True)


class ModelServerError(RuntimeError):
    """A request that brought no answer.

    Attributes:
        status: HTTP status; 0 where the server was not reached or not understood.
        code: Short stable name of the kind of error; empty where the server gave none.
        retry_after: Seconds after which to come again; None where that does not help.
    """

    def __init__(
        self, what: str, status: int = 0, code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(what)
        self.status, self.code, self.retry_after = status, code, retry_after


class RequestError(ModelServerError):
    """The request is wrong, and stays so: 400, 413, 415, 422."""


class NotAllowedError(ModelServerError):
    """The token is missing, unknown or lacks the right: 401, 403."""


class NotThereError(ModelServerError):
    """There is no such model or version: 404."""


class BusyError(ModelServerError):
    """Too much to do, or too many requests of this token: 429, 503. Come again."""


class NotReachedError(ModelServerError):
    """The server does not answer, or not in its protocol."""


_KINDS: dict[int, type[ModelServerError]] = {
    400: RequestError,
    408: RequestError,
    413: RequestError,
    415: RequestError,
    422: RequestError,
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotThereError,
    429: BusyError,
    503: BusyError,
}


class Client:
    """Asks one server; each thread that uses it has a connection of its own, kept open."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout: float = 30.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Say where and as whom; nothing is sent yet.

        Args:
            url: ``http://HOST:PORT`` or ``https://HOST:PORT``.
            token: Bearer token.
            timeout: Seconds to wait for the server at any step.
            context: Of TLS; None: the system's certificates.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a server: write http://HOST:PORT")
        self._parts, self._timeout, self._context = parts, timeout, context
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._own = local()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection of this thread."""
        self.close()

    def close(self) -> None:
        """Close the connection of this thread."""
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None:
            kept.close()
            self._own.connection = None

    def infer(
        self,
        name: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        binary: bool = True,
        request_id: str = "",
    ) -> dict[str, Array]:
        """Return what a model says.

        Args:
            name: Model.
            inputs: Arrays by name, of the dtypes the model reads.
            version: Number or alias; empty: the one that serves.
            outputs: Those wanted; empty: all.
            binary: Send and get raw bytes, exact and quick; else JSON, where NaN and infinities
                cannot be sent and come back as NaN.
            request_id: Comes back in the answer and in the logs.

        Returns:
            Arrays by name; they can be read, not written.

        Raises:
            ModelServerError: There is no answer; see its kinds.
        """
        arrays = {key: np.asarray(value) for key, value in inputs.items()}
        if not binary:
            _refuse_what_json_lacks(arrays)
        document: dict[str, Any] = {"id": request_id} if request_id else {}
        if outputs:
            document["outputs"] = [
                {"name": output, "parameters": {"binary_data": binary}} for output in outputs
            ]
        elif binary:
            document["parameters"] = {"binary_data_output": True}
        try:
            body, length = pack(document, "inputs", arrays, None if binary else ())
        except TypeError as error:
            raise RequestError(str(error)) from error
        headers = {"content-type": BINARY if length else JSON}
        if length:
            headers[HEADER_LENGTH] = length
        content, length = self._call("POST", f"{_path(name, version)}/infer", body, headers)
        try:
            return unpack(content, length, "outputs", _ANSWERS).tensors
        except TensorError as error:
            raise NotReachedError(f"the answer is not of the protocol: {error}") from error

    def ready(self, name: str = "", version: str = "") -> bool:
        """Tell whether the server, or one model of it, answers now."""
        path = f"{_path(name, version)}/ready" if name else "/v2/health/ready"
        try:
            self._call("GET", path)
        except (BusyError, NotThereError, NotReachedError):
            return False
        return True

    def metadata(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Return what the server says of itself, or of a model: inputs, outputs, versions."""
        content, _ = self._call("GET", _path(name, version) if name else "/v2")
        return _object(content)

    def models(self) -> dict[str, list[str]]:
        """Return the models in service and their versions."""
        content, _ = self._call("GET", "/v2/models")
        return {one["name"]: one["versions"] for one in _object(content)["models"]}

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, str]:
        """Return the body of an answer and its `HEADER_LENGTH`."""
        for fresh in (False, True):
            connection, kept = self._connection(fresh=fresh)
            try:
                connection.request(method, path, body, {**self._headers, **(headers or {})})
                response = connection.getresponse()
                content = response.read()
            except (http.client.HTTPException, OSError) as error:
                self.close()
                # A kept connection may have been closed while it was idle; that is no trouble.
                if kept and isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                    continue
                raise NotReachedError(
                    f"{self._parts.scheme}://{self._parts.netloc} does not answer ({error})"
                ) from error
            if response.status != 200:
                _refused(response.status, content, response.getheader("retry-after"))
            return content, response.getheader(HEADER_LENGTH, "") or ""
        raise NotReachedError("the server closes every connection")

    def _connection(self, *, fresh: bool) -> tuple[http.client.HTTPConnection, bool]:
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None and not fresh and kept.sock is not None:
            return kept, True
        host, port = self._parts.hostname or "", self._parts.port
        made: http.client.HTTPConnection
        if self._parts.scheme == "https":
            made = http.client.HTTPSConnection(
                host, port, timeout=self._timeout, context=self._context
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=self._timeout)
        self._own.connection = made
        return made, False


def _refused(status: int, content: bytes, retry_after: str | None) -> NoReturn:
    try:
        said = orjson.loads(content)
        what, code = str(said["error"]), str(said.get("code", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        what, code = f"the server answers {status}", ""
    kind = _KINDS.get(status, ModelServerError)
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    raise kind(what, status, code, seconds)


def _refuse_what_json_lacks(arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RequestError(f"{name} holds NaN or infinities, which JSON lacks: use binary=True")


def _path(name: str, version: str) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise NotReachedError(f"the answer is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise NotReachedError("the answer is no JSON object")
    return found
