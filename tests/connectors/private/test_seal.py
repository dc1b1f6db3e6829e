"""What is computed here and what Microsoft SEAL computes are the same, word for word."""

from __future__ import annotations

import numpy as np
import pytest
from tenseal import sealapi

from connectors.private.client import seal as seal_module
from connectors.private.client.embedding import coefficients_of, slots_of
from connectors.private.client.seal import Seal, SealError
from connectors.private.client.serial import (
    SEED_BYTES,
    SerialError,
    read_seeded,
    write_ciphertext,
)
from kernels.ring.blake2xb import stream
from kernels.ring.powers import power_sum
from kernels.ring.ring import Ring
from kernels.ring.roots import values
from kernels.ring.uniform import uniform
from kernels.ring.weighted import weighted_sums
from kernels.ring.words import unpack
from tasks.privacy.parameters import SETS, ParameterError, ParameterSet, parameter_set

SMALL = parameter_set("n4096-54")


def context(ring: Ring, spare: int = 0, level=sealapi.SEC_LEVEL_TYPE.TC128):
    """SEAL's own context of a ring."""
    settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(ring.degree)
    primes = [*ring.primes, *([spare] if spare else [])]
    settings.set_coeff_modulus([sealapi.Modulus(prime) for prime in primes])
    return sealapi.SEALContext(settings, True, level)


def second_halves(made, ring: Ring, folder):
    """Return a seed and the second half that SEAL draws from it."""
    key = sealapi.KeyGenerator(made).secret_key()
    plain, path = sealapi.Plaintext(), str(folder / "ciphertext")
    sealapi.CKKSEncoder(made).encode(1.0, 2.0**20, plain)
    sealapi.Encryptor(made, key).encrypt_symmetric(plain).save(path)
    saved = (folder / "ciphertext").read_bytes()
    ciphertext = sealapi.Ciphertext()
    ciphertext.load(made, path)
    count = len(ring.primes) * ring.degree
    words = [ciphertext[count + i] for i in range(count)]
    seeded = read_seeded(saved, ring)
    first = [ciphertext[i] for i in range(count)]
    np.testing.assert_array_equal(seeded.first.ravel(), np.array(first, np.uint64))
    return seeded.seed, np.array(words, np.uint64).reshape(len(ring.primes), ring.degree)


class TestSeeds:
    @pytest.mark.parametrize("name", SETS)
    def test_expand_as_seal_expands_them(self, name, tmp_path):
        parameters = SETS[name]
        made = context(parameters.ring, parameters.spare)
        seed, expected = second_halves(made, parameters.ring, tmp_path)
        seeds = np.frombuffer(seed, np.uint8)[None]
        np.testing.assert_array_equal(uniform(seeds, parameters.ring)[0], expected)

    def test_words_drawn_again_are_those_that_seal_draws(self, tmp_path):
        """A prime of which every third word is refused: none of the sets has such a one."""
        prime = next(
            p
            for p in range((3 << 58) // 4096 * 4096 // 2 + 1, 1 << 60, 2048 * 4)
            if _fits(p) and (1 << 64) % p > p // 2
        )
        ring = Ring(1024, (prime,))
        made = context(ring, level=sealapi.SEC_LEVEL_TYPE.NONE)
        seed, expected = second_halves(made, ring, tmp_path)
        bound = (1 << 64) - 1 - ((1 << 64) - 1) % prime - 1
        drawn = np.frombuffer(stream(seed, 8 * ring.degree), "<u8")
        assert (drawn >= np.uint64(bound)).any()
        np.testing.assert_array_equal(
            uniform(np.frombuffer(seed, np.uint8)[None], ring)[0], expected
        )

    def test_of_other_lengths_are_refused(self):
        with pytest.raises(ValueError, match=r"\[n, 64\]"):
            uniform(np.zeros((1, 63), np.uint8), SMALL.ring)
        with pytest.raises(ValueError, match="64 bytes"):
            stream(bytes(63), 10)

    def test_a_string_begins_like_a_longer_one(self):
        seed = bytes(range(64))
        assert stream(seed, 9_000)[:100] == stream(seed, 100)
        assert stream(seed, 100) != stream(bytes(64), 100)


def _fits(prime: int) -> bool:
    try:
        Ring(1024, (prime,))
    except ValueError:
        return False
    return True


class TestValuesAtRoots:
    def test_lie_where_seal_puts_them(self, tmp_path):
        made = context(SMALL.ring)
        plain = sealapi.Plaintext()
        coefficients = np.zeros(4096, np.int64)
        coefficients[[0, 1, 4095]] = 5, -7, 1 << 20
        sealapi.CKKSEncoder(made).encode(slots_of(coefficients).tolist(), 1.0, plain)
        expected = [plain[i] for i in range(4096)]
        found = values(coefficients, SMALL.ring)[0]
        np.testing.assert_array_equal(found, np.array(expected, np.uint64))


class TestEmbedding:
    @pytest.mark.parametrize("degree", [4096, 16384])
    def test_coefficients_come_back(self, degree):
        steps = np.rint(np.random.default_rng(0).normal(size=degree) * 2.0**30)
        np.testing.assert_allclose(coefficients_of(slots_of(steps)), steps, atol=1e-4)


@pytest.fixture(scope="module")
def seal():
    return Seal(SMALL)


class TestSeal:
    def test_rows_come_back_with_noise_of_a_few_steps(self, seal):
        steps = np.rint(np.random.default_rng(1).normal(size=4096) * 2.0**22)
        block = seal.encrypt(slots_of(steps), 1.0)
        assert len(block) == seal.block_bytes == 4096 * 7 + SEED_BYTES
        parts = self.opened(block, SMALL.ring)
        found = coefficients_of(seal.decrypt_words(parts, 1.0))
        noise = found - steps
        assert 0 < np.abs(noise).max() <= 21.01
        assert 2.5 < noise.std() < 4.0

    def opened(self, block, ring):
        rows = np.frombuffer(block, np.uint8)[None]
        first = unpack(rows[:, :-SEED_BYTES], ring)
        return np.concatenate([first, uniform(rows[:, -SEED_BYTES:], ring)])

    def test_two_encryptions_of_one_vector_have_nothing_in_common(self, seal):
        slots = np.zeros(2048)
        one, other = seal.encrypt(slots, 1.0), seal.encrypt(slots, 1.0)
        same = np.frombuffer(one, np.uint8) == np.frombuffer(other, np.uint8)
        assert same.mean() < 0.02  # the top two bits of 56 are always 0

    def test_sums_and_squares_decrypt_to_sums_and_squares(self):
        parameters = parameter_set("n8192-120")
        seal, ring = Seal(parameters), parameters.ring
        slots = np.random.default_rng(2).normal(size=(2, 4096))
        parts = np.stack([self.opened(seal.encrypt(row, 2.0**30), ring) for row in slots])
        weights = np.array([[3, -2], [1, 1]], np.int32)
        sums = np.stack([weighted_sums(parts[:, p].copy(), weights, ring) for p in (0, 1)], axis=1)
        found = seal.decrypt_words(sums[0], 2.0**30).real
        np.testing.assert_allclose(found, 3 * slots[0] - 2 * slots[1], atol=1e-4)
        squared = power_sum(sums, np.array([1, -1], np.int8), 2, ring)
        found = seal.decrypt_words(squared, 2.0**60).real
        expected = (3 * slots[0] - 2 * slots[1]) ** 2 - (slots[0] + slots[1]) ** 2
        np.testing.assert_allclose(found, expected, atol=1e-3)

    def test_a_key_comes_back_and_opens_what_it_closed(self, seal):
        block = seal.encrypt(np.full(2048, 3.0), 2.0**30)
        again = Seal(SMALL, seal.secret)
        parts = self.opened(block, SMALL.ring)
        np.testing.assert_allclose(again.decrypt_words(parts, 2.0**30).real, 3.0, atol=1e-4)
        np.testing.assert_array_less(1e3, np.abs(Seal(SMALL).decrypt_words(parts, 2.0**30)).max())

    def test_a_key_of_other_parameters_is_refused(self, seal):
        with pytest.raises(SealError, match="no key of n8192-120"):
            Seal(parameter_set("n8192-120"), seal.secret)
        with pytest.raises(SealError, match="no key"):
            Seal(SMALL, b"not a key")

    def test_insecure_parameters_are_refused_by_seal_itself(self):
        weak = ParameterSet("weak", Ring(2048, SETS["n8192-120"].ring.primes[:1]))
        with pytest.raises(SealError, match=r"refuses parameter set weak: .*insecure"):
            Seal(weak)
        with pytest.raises(ParameterError, match="less than 128 bits"):
            _ = weak.security_bits

    def test_tenseal_missing_is_told_with_the_fix(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "tenseal.sealapi", None)
        with pytest.raises(SealError, match="install tenseal"):
            Seal(SMALL)

    def test_without_files_in_memory_a_private_file_is_used_and_removed(self, monkeypatch):
        monkeypatch.delattr(seal_module.os, "memfd_create")
        seal = Seal(SMALL)
        path = seal_module.Path(seal._file.path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(seal.encrypt(np.zeros(2048), 1.0)) == seal.block_bytes
        seal.close()
        assert not path.exists()


class TestSecurity:
    @pytest.mark.parametrize("name", SETS)
    def test_what_a_set_claims_is_what_seal_grants(self, name):
        parameters = SETS[name]
        levels = {
            128: sealapi.SEC_LEVEL_TYPE.TC128,
            192: sealapi.SEC_LEVEL_TYPE.TC192,
            256: sealapi.SEC_LEVEL_TYPE.TC256,
        }
        granted = [
            bits
            for bits, level in levels.items()
            if context(parameters.ring, parameters.spare, level).parameters_set()
        ]
        assert parameters.security_bits == max(granted)

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ParameterError, match="n4096-54"):
            parameter_set("n1024-60")


class TestSerialForm:
    def test_other_bytes_are_refused(self):
        with pytest.raises(SerialError, match="less than a header"):
            read_seeded(b"", SMALL.ring)
        with pytest.raises(SerialError, match="another form"):
            read_seeded(bytes(40), SMALL.ring)
        written = write_ciphertext(np.zeros((2, 1, 4096), np.uint64), bytes(32), 1.0)
        with pytest.raises(SerialError, match=r"fresh|another form"):
            read_seeded(written, SMALL.ring)
        with pytest.raises(SerialError, match="another form"):
            read_seeded(written[:16] + written[16:60], SMALL.ring)

    def test_an_unknown_compression_is_refused(self):
        written = bytearray(write_ciphertext(np.zeros((2, 1, 4096), np.uint64), bytes(32), 1.0))
        written[5] = 9
        with pytest.raises(SerialError, match="unknown here"):
            read_seeded(bytes(written), SMALL.ring)
