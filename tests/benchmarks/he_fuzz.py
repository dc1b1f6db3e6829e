"""Hostile requests against the scorer of ciphertexts: crafted over HTTP, mutated against its core.

Three kinds of enemy. On the way: a signed request that was changed anywhere, by flips, cuts, copies
and splices of two requests; any that is scored is a silent accept. A tenant that signs what it
likes: every header member with hostile values, bodies of other lengths, of words at and beyond the
prime, of noise; what is not of the protocol and scored all the same is a silent accept, and what
is scored must be, to the byte, what whole-number arithmetic says, so that nothing of another
request or of the heap can be in it. A stranger without a token. A crash is a dead process, an
answer of 5xx, or an error that is no refusal. A leak is an answer or a log that holds a secret.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from connectors.api.problem import Problem
from connectors.api.server_settings import TOKENS
from connectors.api.tokens import Token
from connectors.private.bundle import write_bundle
from connectors.private.client.documents import canonical, sha256, sign
from connectors.private.client.key_file import KeyFile
from connectors.private.client.messages import (
    REQUEST_TYPE,
    AnswerHeader,
    Message,
    RequestHeader,
    read_message,
    write_message,
)
from connectors.private.client.registration import write_registration
from connectors.private.client.session import Session
from connectors.private.server.server import build_service
from connectors.private.server.service import PrivateService
from connectors.private.server.settings import private_settings
from kernels.ring.packing import pack, unpack
from kernels.ring.roots import values
from kernels.ring.uniform import uniform
from tasks.privacy.compile import Compiled, compile_model
from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import linear_model
from tests.benchmarks._api_server import PrivateServerProcess, running_private
from tests.benchmarks._harness import emit, parser, run_program

TENANT, SECRET = "bank", "benchmark-0123456789abcdef"
OTHER_SECRET = "another-bank-0123456789abcdef"
TOKEN_TEXT = f"{TENANT}:score:{SECRET},other:score:{OTHER_SECRET}"
COLUMNS = 5
DIGEST = "0" * 64

HOSTILE: dict[str, list[Any]] = {
    "version": [0, 2, -1, 1.0, True, None, "1", 2**64, [], {}],
    "tenant": ["", "other", "a" * 65, "../bank", "bank\0", "bänk", None, 1, ["bank"]],
    "key": ["", DIGEST, "f" * 63, "F" * 64, "g" * 64, None, 1],
    "parameters": ["", "n8192-120", "n1024-27", "n4096-54 ", "*", None, 4096],
    "model": ["", DIGEST, "f" * 65, None, 7],
    "packing": ["", "slots", "ROWS", "rows ", None, 1, ["rows"]],
    "rows": [0, -1, 1.5, 2**31, 2**53, 2**53 + 1, 2**64, 1e308, True, None, "3", [3]],
    "nonce": ["", "0" * 31, "G" * 32, None, 0],
    "time": [0, -1, 2**53, 2**53 + 1, 2**64, None, "now", 1e3],
    "body_bytes": [0, 1, -1, 2**31, 2**53, 2**53 + 1, None, "1"],
    "body": ["", DIGEST, "f" * 63, None],
}
"""Member of a header -> values that none of it may have."""


class Case:
    """A scorer's model and an owner of it, on disk and registered."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.rows = rng.normal(size=(64, COLUMNS))
        model = linear_model(plain_encoding(self.rows), rng.normal(size=COLUMNS), 0.2)
        self.compiled: Compiled = compile_model(model, self.rows)
        self.served = write_bundle(folder, self.compiled, "fuzz")
        self.key = KeyFile.new(TENANT, self.compiled.plan.parameters.name)
        self.session = Session(self.served.offer, self.key)
        self.registration = write_registration(self.key.registration, self.key.signing_key)
        sealed = self.session.seal(self.rows[:3])
        self.base = read_message(RequestHeader, self.session.request(sealed))

    def fresh(self) -> Message[RequestHeader]:
        """Return a request that would be scored: a new nonce and time, nothing encrypted anew."""
        header = replace(
            self.base.header, nonce=os.urandom(16).hex(), time=time.time_ns() // 1_000_000
        )
        content = write_message(header, self.base.body, self.key.signing_key)
        return read_message(RequestHeader, content)

    def signed(self, header: dict[str, Any], body: bytes) -> bytes:
        """Sign any header at all, as a tenant can."""
        text = canonical(header)
        start = b"PSRQ" + len(text).to_bytes(4, "little") + text
        return start + sign(self.key.signing_key, b"PSRQ", start) + body

    def expected(self, body: bytes) -> bytes:
        """Return the answer to ciphertexts in packing ``products``, in whole numbers."""
        plan, ring = self.compiled.plan, self.compiled.plan.parameters.ring
        weights = self.compiled.whole.weights[0].tolist()
        polynomial = np.zeros(ring.degree, np.int64)
        for j, weight in enumerate(weights):
            polynomial[-j] = weight if j == 0 else -weight
        element = values(polynomial, ring).astype(object)
        blocks = np.frombuffer(body, np.uint8).reshape(-1, plan.block_bytes)
        answer = []
        for block in blocks:
            first = unpack(block[None, : ring.poly_bytes], ring)
            second = uniform(block[None, ring.poly_bytes :], ring)
            parts = np.concatenate([first, second]).astype(object) * element
            primes = np.array(ring.primes, dtype=object)[:, None]
            answer.append(pack((parts % primes).astype(np.uint64), ring).tobytes())
        return b"".join(answer)


class Tally:
    """What came of it.

    Attributes:
        cases: Requests sent.
        scored: Requests scored, rightly.
        crashes: See the module.
        silent_accepts: See the module.
        leaks: See the module.
    """

    def __init__(self, secrets: list[bytes]) -> None:
        self.cases = self.scored = self.crashes = self.silent_accepts = self.leaks = 0
        self.examples: list[str] = []
        self._secrets = secrets

    def look(self, content: bytes) -> None:
        """Look for secrets in what came back."""
        if any(secret in content for secret in self._secrets):
            self.leaks += 1
            self.examples.append("leak")

    def crash(self, what: str) -> None:
        """Note a crash."""
        self.crashes += 1
        self.examples.append(f"crash: {what}"[:200])

    def accept(self, what: str) -> None:
        """Note a silent accept."""
        self.silent_accepts += 1
        self.examples.append(f"accepted: {what}"[:200])


def crafted(case: Case, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes, bool]]:
    """Yield name, content and whether it may be scored, of requests a hostile tenant signs."""
    header, body = asdict(case.fresh().header), case.base.body
    for member, hostile in HOSTILE.items():
        for value in hostile:
            yield f"{member}={value!r}", case.signed({**header, member: value}, body), False
        yield (
            f"without {member}",
            case.signed({k: v for k, v in header.items() if k != member}, body),
            False,
        )
    yield "one more member", case.signed({**header, "more": 1}, body), False
    for length in (0, 1, 2**16, 2**31, 2**32 - 1):
        yield (
            f"header length {length}",
            b"PSRQ" + length.to_bytes(4, "little") + os.urandom(200),
            False,
        )
    size = case.compiled.plan.block_bytes
    for n in range(count):
        yield from _body(case, n, size, rng)


def _body(
    case: Case, n: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[str, bytes, bool]]:
    """Yield one request with a body of its own, signed."""
    prime = case.compiled.plan.parameters.ring.primes[0]
    body = bytearray(case.base.body)
    kind, allowed = n % 8, True
    if kind == 0:
        body[:] = rng.bytes(size)
        allowed = False  # one word in four is beyond the prime
    elif kind == 1:
        word, place = prime + int(rng.integers(0, 2**56 - prime)), int(rng.integers(0, 4096)) * 7
        body[place : place + 7] = word.to_bytes(7, "little")
        allowed = False
    elif kind == 2:
        place = int(rng.integers(0, 4096)) * 7
        body[place : place + 7] = (prime - 1 - int(rng.integers(0, 3))).to_bytes(7, "little")
    elif kind == 3:
        body[-64:] = rng.bytes(64)
    elif kind == 4:
        body = body[: int(rng.integers(0, size))]
        allowed = False
    elif kind == 5:
        body += rng.bytes(int(rng.integers(1, 2 * size)))
        allowed = False
    elif kind == 6:
        body[: 7 * 4096] = bytes(7 * 4096)
    else:
        start = int(rng.integers(0, 4000)) * 7
        body[start : start + 56 * 7] = bytes(56 * 7)
    facts = asdict(case.base.header) | {
        "nonce": rng.bytes(16).hex(),
        "time": time.time_ns() // 1_000_000,
        "body_bytes": len(body),
        "body": sha256(bytes(body)),
    }
    yield f"body {kind}", case.signed(facts, bytes(body)), allowed


def mutated(case: Case, rng: np.random.Generator) -> bytes:
    """Return a signed request that someone on the way has changed."""
    message = case.fresh()
    content = bytearray(message.signed + message.signature + message.body)
    head = len(message.signed) + len(message.signature)
    kind = int(rng.integers(0, 7))
    # Half of the changes in header and signature, which are a hundredth of the bytes.
    most = head if rng.integers(0, 2) else len(content)
    place = int(rng.integers(0, most))
    if kind <= 2:
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(0, most))] ^= 1 << int(rng.integers(0, 8))
    elif kind == 3:
        content[place] = (content[place] + int(rng.integers(1, 256))) % 256
    elif kind == 4:
        del content[place : place + int(rng.integers(1, 64))]
    elif kind == 5:
        content[place:place] = content[place : place + int(rng.integers(1, 64))] or b"\0"
    else:
        other = case.fresh()
        spliced = other.signed + other.signature + message.body
        content = bytearray(spliced)
        content[: len(other.signed)] = message.signed[: len(other.signed)].ljust(len(other.signed))
    if bytes(content) == message.signed + message.signature + message.body:
        content[0] ^= 1
    return bytes(content)


def over_http(
    server: PrivateServerProcess, case: Case, count: int, tally: Tally, rng: np.random.Generator
) -> None:
    """Send crafted requests to a server in a process of its own."""
    kind = {"content-type": REQUEST_TYPE}
    for name, content, allowed in crafted(case, count, rng):
        answer = server.call("POST", "/v1/encrypted/score", content, token=SECRET, headers=kind)
        tally.cases += 1
        tally.look(answer.body)
        if answer.status >= 500:
            tally.crash(f"{name}: {answer.status} {answer.body[:80]!r}")
        elif answer.status == 200:
            _judge(tally, case, name, content, answer.body, allowed=allowed)
    for content in (b"", b"PSRQ", os.urandom(5_000)):
        for token in ("", "x" * 30, OTHER_SECRET):
            answer = server.call("POST", "/v1/encrypted/score", content, token=token, headers=kind)
            tally.cases += 1
            tally.look(answer.body)
            if not 400 <= answer.status < 500:
                tally.crash(f"stranger: {answer.status}")


def _judge(
    tally: Tally, case: Case, name: str, content: bytes, answer: bytes, *, allowed: bool
) -> None:
    """Judge an answer that came."""
    body = read_message(AnswerHeader, answer).body
    asked = read_message(RequestHeader, content)
    if not allowed:
        tally.accept(name)
    elif body != case.expected(asked.body):
        tally.leaks += 1
        tally.examples.append(f"another answer: {name}")
    else:
        tally.scored += 1


@contextmanager
def core(folder: Path, home: Path) -> Iterator[PrivateService]:
    """The server's core in this process, with everything but HTTP."""
    before = os.environ.get(TOKENS)
    os.environ[TOKENS] = TOKEN_TEXT
    try:
        service = build_service(
            private_settings(
                models=str(folder), home=home, rows_rate=1e12, rows_burst=1e12, max_rows=1_000
            )
        )
    finally:
        os.environ.pop(TOKENS)
        if before is not None:
            os.environ[TOKENS] = before
    try:
        yield service
    finally:
        service.close()


async def against_core(
    service: PrivateService, case: Case, count: int, tally: Tally, rng: np.random.Generator
) -> None:
    """Send mutated requests to the core."""
    token = Token(TENANT, frozenset({"score"}), b"")
    await service.pool.start()
    try:
        for name, content, allowed in crafted(case, count // 20, rng):
            tally.cases += 1
            try:
                answer = await service.score(token, content)
            except Problem as problem:
                tally.look(problem.body())
                if problem.status >= 500:
                    tally.crash(f"{name}: {problem.status} {problem.what}")
            else:
                _judge(tally, case, name, content, answer, allowed=allowed)
        for _ in range(count):
            content = mutated(case, rng)
            tally.cases += 1
            try:
                answer = await service.score(token, content)
            except Problem as problem:
                tally.look(problem.body())
                if problem.status >= 500:
                    tally.crash(f"{problem.status} {problem.what}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                tally.crash(repr(error))
            else:
                tally.look(answer)
                tally.accept(f"mutated: {content[:64]!r}")
    finally:
        await service.pool.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-fuzz", __doc__.splitlines()[0])
    made.add_argument("--crafted", type=int, default=0, help="crafted bodies (default 10,000)")
    made.add_argument("--mutations", type=int, default=0, help="mutations (default 20,000)")
    args = made.parse_args(argv)
    n_crafted = args.crafted or (150 if args.smoke else 10_000)
    n_mutated = args.mutations or (500 if args.smoke else 20_000)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        case = Case(folder / "model")
        settings = {
            "models": folder / "model",
            "rate": 1e6,
            "burst": 1e6,
            "rows_rate": 1e12,
            "rows_burst": 1e12,
            "max_rows": 1_000,
            "log_level": "ERROR",
        }
        with running_private(folder / "http", settings, TOKEN_TEXT) as server:
            secret = (folder / "http" / "scorer.key").read_text().strip()
            hidden = [SECRET, OTHER_SECRET, secret]
            tally = Tally([one.encode() for one in hidden] + [bytes.fromhex(secret)])
            _register(server, case)
            began = time.perf_counter()
            over_http(server, case, n_crafted, tally, rng)
            http_seconds = time.perf_counter() - began
            tally.look((folder / "http" / "audit.jsonl").read_bytes())
            tally.look(server.log.read_bytes())
            if server.process.poll() is not None:
                tally.crash("the server ended")
        began = time.perf_counter()
        with core(folder / "model", folder / "core") as service:
            service.keys.register(case.registration, TENANT, time.time())
            asyncio.run(against_core(service, case, n_mutated, tally, rng))
            deaths = service.pool.deaths
    emit(
        {
            "cases": tally.cases,
            "crafted": n_crafted,
            "mutations": n_mutated,
            "scored": tally.scored,
            "crashes": tally.crashes + deaths,
            "silent_accepts": tally.silent_accepts,
            "leaks": tally.leaks,
            "http_seconds": http_seconds,
            "core_seconds": time.perf_counter() - began,
            "examples": tally.examples[:10],
        },
        args,
    )


def _register(server: PrivateServerProcess, case: Case) -> None:
    from connectors.private.client.http import Scorer

    Scorer(server.url, SECRET).register(case.registration)


if __name__ == "__main__":
    run_program("he-fuzz", main)
