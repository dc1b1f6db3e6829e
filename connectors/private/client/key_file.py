"""The owner's key file: secret and signing key, readable by its owner alone, closed on request.

With a passphrase both keys are sealed (scrypt, AES-256-GCM; RFC 7914, SP 800-38D). The file also
counts how many answers the key has released.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.private.client.documents import VERSION, canonical
from connectors.private.client.registration import NOTHING, Registration
from connectors.private.client.seal import Seal
from tasks.privacy.parameters import parameter_set

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = "penstock-private-key"
MOST_BYTES = 4 * 2**20
DAYS = 90
"""How long a key holds unless told otherwise."""

PASSPHRASE = "PENSTOCK_PRIVATE_PASSPHRASE"  # noqa: S105 - the name of a variable

_SCRYPT = {"n": 2**15, "r": 8, "p": 1}


class KeyFileError(ValueError):
    """A key file cannot be used; says why and what to do."""


@dataclass(frozen=True)
class KeyFile:
    """A key.

    Attributes:
        registration: What a scorer is told about it.
        secret: SEAL's key; whoever has it decrypts everything.
        signing: Ed25519 key that signs requests, 32 bytes.
        released: Values that left their owner as scores.
    """

    registration: Registration
    secret: bytes
    signing: bytes
    released: int = 0

    def __repr__(self) -> str:
        return f"KeyFile({self.registration.key_id})"

    @classmethod
    def new(
        cls, tenant: str, parameters: str, *, days: float = DAYS, replaces: str = NOTHING
    ) -> KeyFile:
        """Make a key.

        Args:
            tenant: Whose key it is; the name of the owner's token at the scorer.
            parameters: Name of the parameter set.
            days: How long it holds.
            replaces: Id of the key that it follows.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if not 0 < days <= 366:
            raise KeyFileError(f"a key holds up to 366 days, not {days:g}")
        signing = Ed25519PrivateKey.generate()
        now = int(time.time())
        registration = Registration(
            VERSION,
            tenant,
            parameters,
            signing.public_key().public_bytes_raw().hex(),
            now,
            now + int(days * 86_400),
            replaces,
            secrets.token_hex(16),
        )
        Registration.decode(registration.encode())  # names are checked where they are read
        seal = Seal(parameter_set(parameters))
        try:
            return cls(registration, seal.secret, signing.private_bytes_raw())
        finally:
            seal.close()

    @property
    def key_id(self) -> str:
        """Id of the key."""
        return self.registration.key_id

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs requests."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.signing)

    def open(self) -> Seal:
        """Return the secret key, ready for use."""
        return Seal(parameter_set(self.registration.parameters), self.secret)

    @classmethod
    def spend(cls, path: Path, passphrase: str, values: int, budget: int) -> KeyFile:
        """Count released values, in the file, before they are released.

        Args:
            path: The key file; one process at a time counts.
            passphrase: That opens it.
            values: How many will be released.
            budget: How many the noise hides in all.

        Raises:
            KeyFileError: When the budget does not reach.
        """
        with _locked(path):
            key = cls.read(path, passphrase)
            if key.released + values > budget:
                raise KeyFileError(
                    f"this key has released {key.released} values, and its noise hides {budget} in"
                    f" all; {values} more are too many: make a new key (keygen --replaces)"
                )
            counted = replace(key, released=key.released + values)
            counted.write(path, passphrase)
        return counted

    def write(self, path: Path, passphrase: str = "") -> None:
        """Write the file, readable by its owner alone, whole or not at all."""
        keys = {"secret": _text(self.secret), "signing": _text(self.signing)}
        data = {
            "format": FORMAT,
            "version": VERSION,
            "registration": asdict(self.registration),
            "released": self.released,
            "keys": _closed(keys, passphrase) if passphrase else keys,
        }
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(data, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path, passphrase: str = "") -> KeyFile:
        """Read a key file.

        Raises:
            KeyFileError: When it is none, others may read it, or the passphrase is wrong.
        """
        about = path.stat()
        if os.name == "posix" and about.st_mode & 0o077:
            raise KeyFileError(f"others may read {path}; take it back: chmod 600 {path}")
        if about.st_size > MOST_BYTES:
            raise KeyFileError(f"{path} has {about.st_size} bytes: no key file")
        try:
            data = json.loads(path.read_text(encoding="ascii"))
            known = (data["format"], data["version"]) == (FORMAT, VERSION)
            registration = Registration.decode(canonical(data["registration"]))
            keys = _opened(data["keys"], passphrase)
            made = cls(
                registration,
                base64.b64decode(keys["secret"], validate=True),
                base64.b64decode(keys["signing"], validate=True),
                int(data["released"]),
            )
        except KeyFileError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise KeyFileError(f"{path} is no key file of this version ({error!r})") from None
        if not known:
            raise KeyFileError(f"{path} is of version {data['version']}, which is not read here")
        return made


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time change a file, where the system can."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _derived(passphrase: str, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, **_SCRYPT).derive(passphrase.encode())


def _closed(keys: Mapping[str, str], passphrase: str) -> dict[str, str]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    sealed = AESGCM(_derived(passphrase, salt)).encrypt(nonce, canonical(keys), FORMAT.encode())
    return {"salt": salt.hex(), "nonce": nonce.hex(), "sealed": _text(sealed)}


def _opened(keys: Mapping[str, Any], passphrase: str) -> Mapping[str, Any]:
    if "sealed" not in keys:
        return keys
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not passphrase:
        raise KeyFileError(f"the key file is closed; set {PASSPHRASE} to open it")
    cipher = AESGCM(_derived(passphrase, bytes.fromhex(keys["salt"])))
    try:
        text = cipher.decrypt(
            bytes.fromhex(keys["nonce"]), base64.b64decode(keys["sealed"]), FORMAT.encode()
        )
    except InvalidTag:
        raise KeyFileError("the passphrase does not open the key file") from None
    opened: dict[str, Any] = json.loads(text)
    return opened
