"""The named parameter sets: an owner and a scorer agree on a name, never on free numbers.

Security is that of the Homomorphic Encryption Standard (Albrecht et al. 2018, ternary secrets,
classical attacks; the tables of "Security Guidelines for Implementing Homomorphic Encryption",
Bossuat et al. 2024, confirm it), judged by all primes, the unused one included. Microsoft SEAL,
with which the owner encrypts, refuses what its own copy of that table does not allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from kernels.ring.ring import Ring

MOST_BITS = {
    2_048: {128: 54, 192: 37, 256: 29},
    4_096: {128: 109, 192: 75, 256: 58},
    8_192: {128: 218, 192: 152, 256: 118},
    16_384: {128: 438, 192: 305, 256: 237},
}
"""Degree -> security in bits -> most bits of the product of all primes."""

NOISE = 21
"""Largest coefficient of fresh noise: SEAL draws it from a centred binomial of 42 coins (or from a
normal cut at 19.2)."""

NOISE_VARIANCE = 10.5
"""Of that binomial, which is also its variance proxy as a sub-Gaussian variable."""


class ParameterError(ValueError):
    """No parameter set fits, or a name is unknown."""


@dataclass(frozen=True)
class ParameterSet:
    """One set.

    Attributes:
        name: What both sides write.
        ring: Degree and primes of ciphertexts.
        spare: A prime that SEAL keeps for operations that are not used here, where more than one
            prime makes it ask for it; 0: none. It counts for the security, not for ciphertexts.
    """

    name: str
    ring: Ring
    spare: int = 0

    @cached_property
    def total_bits(self) -> int:
        """Bits of the product of all primes."""
        return (self.ring.modulus * max(self.spare, 1)).bit_length()

    @cached_property
    def security_bits(self) -> int:
        """Security against classical attacks: 128, 192 or 256.

        Raises:
            ParameterError: When it is below 128.
        """
        table = MOST_BITS.get(self.ring.degree, {})
        reached = [bits for bits, most in table.items() if self.total_bits <= most]
        if not reached:
            raise ParameterError(f"parameter set {self.name} has less than 128 bits of security")
        return max(reached)


_PRIMES = (
    1152921504605962241,
    1152921504606584833,
    1152921504606683137,
    1152921504606748673,
    1152921504606830593,
)
"""The largest of 60 bits that are 1 modulo 2**15, then a larger one that is 1 modulo 2**14."""

SETS = {
    name: ParameterSet(name, Ring(degree, primes), spare)
    for name, degree, primes, spare in (
        ("n4096-54", 4_096, (18014398509309953,), 0),
        ("n8192-120", 8_192, (_PRIMES[3], _PRIMES[4]), 1032193),
        ("n8192-180", 8_192, _PRIMES[2:], 1032193),
        ("n16384-240", 16_384, _PRIMES[:4], 786433),
    )
}
"""Name -> set, from the cheapest to the dearest."""


def parameter_set(name: str) -> ParameterSet:
    """Return a set by its name.

    Raises:
        ParameterError: When there is none.
    """
    try:
        return SETS[name]
    except KeyError:
        raise ParameterError(f"parameter set {name!r} is unknown; there are {list(SETS)}") from None
