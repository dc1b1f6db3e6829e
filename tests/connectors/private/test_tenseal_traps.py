"""What TenSEAL does to those who trust it, and why none of it can happen here.

Each trap is shown first: should a version mend one, the test says so and the design may be looked
at again. Programs that die do so in a process of their own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tenseal

from connectors.private.client.seal import Seal
from kernels.ring.packing import WordError
from tasks.privacy.compile import compile_model
from tasks.privacy.encoding import RowError
from tasks.privacy.parameters import parameter_set
from tasks.privacy.score import EncryptedScorer, RequestError
from tests.tasks.privacy.models import made, rows

CRASH = """
import sys, tenseal
context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60])
context.global_scale = 2**40
vector = tenseal.ckks_vector(context, [1.0, 2.0, 3.0])
content = vector.serialize()

def varint(place):
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place

def members():
    place = 0
    while place < len(content):
        start = place
        key, place = varint(place)
        if key & 7 == 0:
            _, place = varint(place)
        elif key & 7 == 1:
            place += 8
        else:
            length, place = varint(place)
            place += length
        yield key >> 3, content[start:place]

parts = list(members())
kept = SIZES b"".join(part for number, part in parts if number in KEEP)
opened = tenseal.ckks_vector_from(context, kept)
print(ACTION)
"""


@pytest.fixture(scope="module")
def context():
    made_context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60])
    made_context.global_scale = 2**40
    return made_context


@pytest.fixture(scope="module")
def scorer():
    compiled = compile_model(made("linear"), rows(200))
    return EncryptedScorer(compiled.plan, compiled.whole)


def run(keep: str, action: str, sizes: str = "") -> subprocess.CompletedProcess[str]:
    """Open a vector of which some members are left out, and do something with it."""
    program = CRASH.replace("KEEP", keep).replace("ACTION", action).replace("SIZES", sizes)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


class TestHostileBytes:
    """Section 4 of what was found by trying: a vector's own fields are believed."""

    @pytest.mark.parametrize(
        ("keep", "action", "ended_by"),
        [
            ("{2, 3}", "opened.decrypt()", signal.SIGSEGV),
            ("{1, 3}", "opened.sum()", signal.SIGFPE),
        ],
        ids=["sizes left out", "ciphertexts left out"],
    )
    def test_a_member_left_out_ends_the_process(self, keep, action, ended_by):
        done = run(keep, action)
        assert done.returncode == -ended_by, done.stderr

    def test_a_size_that_lies_gives_the_heap_away(self):
        """Three values were encrypted; so many come back that nobody ever did."""
        done = run("{2, 3}", "len(opened.decrypt())", r"b'\x0a\x03\xc0\x84\x3d' +")
        assert done.stdout.strip() == "1000000"

    def test_here_nothing_is_left_out_that_a_length_does_not_tell(self, scorer):
        content = bytes(scorer.plan.request_bytes("products", 5))
        for wrong in (content[:-1], content + b"\0", b""):
            with pytest.raises(RequestError, match="bytes, not"):
                scorer.score("products", 5, wrong)

    def test_flipped_bits_load_without_a_word(self, context):
        content = bytearray(tenseal.ckks_vector(context, [1.0]).serialize())
        accepted = 0
        for place in range(2_000, 22_000, 400):
            changed = content.copy()
            changed[place] ^= 1
            try:
                tenseal.ckks_vector_from(context, bytes(changed))
            except (RuntimeError, ValueError):
                continue
            accepted += 1
        assert accepted > 10

    def test_here_a_word_beyond_the_prime_is_refused_and_the_rest_is_signed(self, scorer):
        content = bytearray(scorer.plan.request_bytes("products", 5))
        content[6] = 0xFF
        with pytest.raises(WordError):
            scorer.score("products", 5, bytes(content))


class TestKeys:
    def test_a_vector_under_another_key_is_taken_and_decrypts_to_noise(self, context):
        other = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60])
        other.global_scale = 2**40
        one = tenseal.ckks_vector(context, [1.0])
        stranger = tenseal.ckks_vector_from(context, tenseal.ckks_vector(other, [1.0]).serialize())
        assert abs((one + stranger).decrypt()[0]) > 1e3

    def test_a_context_with_its_secret_key_is_taken_without_a_word(self, context):
        content = context.serialize(save_secret_key=True)
        assert tenseal.context_from(content).has_secret_key()

    def test_here_there_is_no_context_to_send(self, scorer):
        """A registration holds no SEAL object at all, and the scorer has none."""
        assert not [name for name in vars(scorer) if "context" in name or "key" in name]


class TestArithmetic:
    def test_too_large_a_value_wraps_without_a_word(self):
        small = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, -1, [40, 24, 40])
        small.global_scale = 2**24
        found = (tenseal.ckks_vector(small, [1e5] * 2_048) * ([1.0] * 2_048)).decrypt()
        assert abs(found[0] - 1e5) > 1e4

    def test_here_a_value_beyond_its_limit_is_not_encrypted(self):
        with pytest.raises(RowError, match="outside what the model was compiled for"):
            made("linear").encoding.encode(np.full((1, 7), 1e5))

    def test_a_weight_of_zero_raises_on_a_context_without_a_key(self, context):
        public = tenseal.context_from(
            context.serialize(save_public_key=False, save_secret_key=False)
        )
        vector = tenseal.ckks_vector_from(public, tenseal.ckks_vector(context, [1.0]).serialize())
        with pytest.raises((RuntimeError, ValueError)):
            vector * 0.0

    def test_here_zero_is_a_number(self):
        model = made("linear")
        weights = model.weights.copy()
        weights[0, :3] = 0.0
        compiled = compile_model(replace(model, weights=weights), rows(200))
        content = bytes(compiled.plan.request_bytes("rows", 5))
        EncryptedScorer(compiled.plan, compiled.whole).score("rows", 5, content)

    def test_a_vector_longer_than_a_ciphertext_is_cut_with_a_print(self, context, capfd):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tenseal.ckks_vector(context, np.zeros(5_000).tolist())
        assert "WARNING" in "".join(capfd.readouterr())

    def test_copying_a_vector_copies_the_whole_context(self, context):
        vector = tenseal.ckks_vector(context, [1.0])
        began = time.process_time()
        vector.copy()
        copying = time.process_time() - began
        began = time.process_time()
        vector + vector
        assert copying > 10 * (time.process_time() - began)

    def test_parameters_that_are_insecure_are_refused_by_both(self):
        with pytest.raises(ValueError, match="parameters"):
            tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, -1, [60, 40, 60])

    def test_here_a_set_of_one_prime_works(self):
        """TenSEAL's contexts need a second one, for keys that linear scoring does not use."""
        with pytest.raises(RuntimeError, match="keyswitching is not supported"):
            tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, -1, [54])
        assert Seal(parameter_set("n4096-54")).parameters.ring.primes == (18014398509309953,)
