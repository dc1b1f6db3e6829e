"""Microsoft SEAL, as TenSEAL ships it, behind arrays: keys, encryption, decryption.

Everything that touches a secret happens in SEAL. It reads and writes files only, so its objects
pass through one file in memory.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.private.client.serial import SEED_BYTES, read_seeded, write_ciphertext
from kernels.ring.packing import Words, pack, unpack
from tasks.privacy.parameters import ParameterSet

Slots = NDArray[np.complex128]


class SealError(RuntimeError):
    """SEAL is missing, or refuses a key or parameters."""


class Seal:
    """One secret key and what it can do. An object serves one thread at a time.

    Attributes:
        parameters: The parameter set of the key.
    """

    def __init__(self, parameters: ParameterSet, secret: bytes | None = None) -> None:
        """Open a key, or make one.

        Args:
            parameters: The set.
            secret: A key as `secret` returned it; None: a new one.

        Raises:
            SealError: Where TenSEAL is missing, SEAL finds the parameters insecure, or the key is
                of others.
        """
        api = self._api = _sealapi()
        self.parameters = parameters
        self._file = _MemoryFile()
        settings = api.EncryptionParameters(api.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(parameters.ring.degree)
        primes = [*parameters.ring.primes, *([parameters.spare] if parameters.spare else [])]
        settings.set_coeff_modulus([api.Modulus(prime) for prime in primes])
        self._context = api.SEALContext(settings, True, api.SEC_LEVEL_TYPE.TC128)  # noqa: FBT003
        if not self._context.parameters_set():
            raise SealError(
                f"SEAL refuses parameter set {parameters.name}:"
                f" {self._context.parameters_error_name()}"
            )
        key = api.KeyGenerator(self._context).secret_key() if secret is None else api.SecretKey()
        if secret is not None:
            try:
                key.load(self._context, self._file.write(secret))
            except RuntimeError as error:
                raise SealError(f"this is no key of {parameters.name} ({error})") from error
        self._key = key
        self._encoder = api.CKKSEncoder(self._context)
        self._encryptor = api.Encryptor(self._context, key)
        self._decryptor = api.Decryptor(self._context, key)
        self._parms_id = np.array(self._context.first_parms_id(), dtype="<u8").tobytes()

    @property
    def secret(self) -> bytes:
        """The key as SEAL saves it; whoever has it can decrypt everything."""
        self._key.save(self._file.path)
        return self._file.read()

    @property
    def block_bytes(self) -> int:
        """Bytes of one fresh ciphertext: half of it, and the seed of the other half."""
        return self.parameters.ring.poly_bytes + SEED_BYTES

    def encrypt(self, slots: Slots | NDArray[np.float64], scale: float) -> bytes:
        """Encrypt one vector.

        Args:
            slots: float64 or complex128 [N / 2].
            scale: Steps per unit.

        Returns:
            The words of the first half, packed, then the seed of the second.
        """
        plain = self._api.Plaintext()
        self._encoder.encode(slots.tolist(), scale, plain)
        self._encryptor.encrypt_symmetric(plain).save(self._file.path)
        ring = self.parameters.ring
        fresh = read_seeded(self._file.read(), ring)
        return pack(fresh.first[None], ring).tobytes() + fresh.seed

    def decrypt(self, packed: bytes, scale: float) -> Slots:
        """Decrypt one vector.

        Args:
            packed: The parts of a ciphertext, packed one after the other.
            scale: Steps per unit.

        Returns:
            complex128 [N / 2].

        Raises:
            WordError: When the bytes are no ciphertext of these parameters.
        """
        ring = self.parameters.ring
        rows = np.frombuffer(packed, np.uint8)
        if len(rows) % ring.poly_bytes == 0:
            rows = rows.reshape(-1, ring.poly_bytes)
        return self.decrypt_words(unpack(rows, ring), scale)

    def decrypt_words(self, parts: Words, scale: float) -> Slots:
        """Decrypt one vector, given as uint64 [P, K, N]."""
        ciphertext, plain = self._api.Ciphertext(), self._api.Plaintext()
        written = write_ciphertext(parts, self._parms_id, scale)
        ciphertext.load(self._context, self._file.write(written))
        self._decryptor.decrypt(ciphertext, plain)
        return np.array(self._encoder.decode_complex(plain))

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _sealapi() -> Any:
    try:
        import tenseal.sealapi as api
    except ImportError as error:
        raise SealError(f"TenSEAL cannot be loaded ({error}); install tenseal==0.3.18") from error
    return api


class _MemoryFile:
    """A path that SEAL writes to and reads from: in memory where the system can, else private."""

    def __init__(self) -> None:
        self._temporary = ""
        if hasattr(os, "memfd_create"):
            self._handle = os.memfd_create("seal", os.MFD_CLOEXEC)
            self.path = f"/proc/self/fd/{self._handle}"
        else:
            self._handle, self._temporary = tempfile.mkstemp()
            self.path = self._temporary

    def read(self) -> bytes:
        """Return what was written last, and forget it."""
        content = os.pread(self._handle, os.fstat(self._handle).st_size, 0)
        os.ftruncate(self._handle, 0)
        return content

    def write(self, content: bytes) -> str:
        """Keep a content and return the path to read it from."""
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, content, 0)
        return self.path

    def close(self) -> None:
        """Give the memory or the file back."""
        if self._handle < 0:
            return
        os.close(self._handle)
        self._handle = -1
        if self._temporary:
            Path(self._temporary).unlink()

    def __del__(self) -> None:
        self.close()
