"""Which ring: degree and primes, and how many bytes a polynomial takes on the wire."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

MAX_PRIME_BITS = 60
"""Products of a word with a weight are summed in halves of 30 bits (`kernels.ring.weighted`)."""


@dataclass(frozen=True)
class Ring:
    """Z_q[X]/(X^N + 1) with q a product of primes, elements kept modulo each prime.

    Attributes:
        degree: N, a power of two.
        primes: Distinct primes below 2**60, each 1 modulo 2N (so that X^N + 1 splits).

    Example:
        >>> Ring(4096, (18014398509309953,)).word_bytes
        (7,)
    """

    degree: int
    primes: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check what arithmetic relies on.

        Raises:
            ValueError: When degree or a prime is none that fits.
        """
        if self.degree < 2 or self.degree & (self.degree - 1):
            raise ValueError(f"degree {self.degree} is no power of two")
        if not self.primes or len(set(self.primes)) != len(self.primes):
            raise ValueError("the primes of a ring must be distinct, and at least one")
        for prime in self.primes:
            if prime.bit_length() > MAX_PRIME_BITS or prime % (2 * self.degree) != 1:
                raise ValueError(
                    f"{prime} does not fit a ring of degree {self.degree}: below 2**60 and"
                    f" 1 modulo {2 * self.degree}"
                )
            if not _is_prime(prime):
                raise ValueError(f"{prime} is not prime")

    @cached_property
    def modulus(self) -> int:
        """q, the product of the primes."""
        return math.prod(self.primes)

    @cached_property
    def word_bytes(self) -> tuple[int, ...]:
        """Bytes of one coefficient, for each prime."""
        return tuple((prime.bit_length() + 7) // 8 for prime in self.primes)

    @cached_property
    def poly_bytes(self) -> int:
        """Bytes of one packed polynomial."""
        return self.degree * sum(self.word_bytes)


def _is_prime(number: int) -> bool:
    """Tell primes below 2**64: strong test to twelve bases (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if number < 2 or any(number % base == 0 for base in bases):
        return number in bases
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    odd = (number - 1) >> twos
    for base in bases:
        power = pow(base, odd, number)
        if power in {1, number - 1}:
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True
