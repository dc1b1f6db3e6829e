"""How a branch joins: both sides name plan and roster, the branch proves its identity.

    coordinator -> branch   digests of roster and plan, nonce of the session, challenge
    branch -> coordinator   its name, a signature of session, challenge and name
    coordinator -> branch   welcome, or why not

No secret crosses the line, and a proof is worth nothing in another connection.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.private.federated.channel import Channel, ChannelError, Message, hex_of, text_of
from tasks.privacy.federated.branch import NONCE_BYTES, session_of
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.roster import Roster

VERSION = 1
CHALLENGE_BYTES = 32
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64


class RefusedError(RuntimeError):
    """The other side does not want to go on, and says why."""


def admit(
    channel: Channel, plan: TrainingPlan, roster: Roster, nonce: bytes, *, seconds: float
) -> str:
    """Let a branch prove who it is; the coordinator's side.

    Returns:
        Its name.

    Raises:
        ChannelError: When it is nobody of the roster.
    """
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    hello = {
        "version": VERSION,
        "roster": roster.digest.hex(),
        "plan": plan.digest.hex(),
        "nonce": nonce.hex(),
        "challenge": challenge.hex(),
    }
    channel.send(Message(hello), seconds=seconds)
    answer = channel.receive(most=0, seconds=seconds).header
    name = text_of(answer, "name")
    proof = hex_of(answer, "proof", SIGNATURE_BYTES)
    if not _proves(proof, roster, session_of(roster, plan, nonce), challenge, name):
        channel.send(Message({"refused": "not an identity of the roster"}), seconds=seconds)
        raise ChannelError(f"{name!r} did not prove an identity of the roster")
    return name


def join(
    channel: Channel,
    plan: TrainingPlan,
    roster: Roster,
    name: str,
    identity: Ed25519PrivateKey,
    *,
    seconds: float,
) -> bytes:
    """Prove who this is; a branch's side.

    Returns:
        The nonce of the session.

    Raises:
        RefusedError: When the coordinator has another plan or roster, or does not want this branch.
        ChannelError: When it sends what is no greeting.
    """
    hello = channel.receive(most=0, seconds=seconds).header
    if hello.get("version") != VERSION:
        raise RefusedError(f"the coordinator speaks version {hello.get('version')}, not {VERSION}")
    for what, own in (("roster", roster.digest), ("plan", plan.digest)):
        if hex_of(hello, what, DIGEST_BYTES) != own:
            raise RefusedError(
                f"the coordinator has another {what} than branch {name!r}; give both the same file"
            )
    nonce = hex_of(hello, "nonce", NONCE_BYTES)
    challenge = hex_of(hello, "challenge", CHALLENGE_BYTES)
    proof = identity.sign(_proved(session_of(roster, plan, nonce), challenge, name))
    channel.send(Message({"name": name, "proof": proof.hex()}), seconds=seconds)
    welcome = channel.receive(most=0, seconds=seconds).header
    if welcome.get("welcome") is not True:
        raise RefusedError(f"branch {name!r} was refused: {text_of(welcome, 'refused')}")
    return nonce


def welcome(channel: Channel, *, seconds: float) -> None:
    """Tell a branch that it is in."""
    channel.send(Message({"welcome": True}), seconds=seconds)


def _proves(proof: bytes, roster: Roster, session: bytes, challenge: bytes, name: str) -> bool:
    if name not in roster.identities:
        return False
    key = roster.identity(roster.names.index(name))
    try:
        key.verify(proof, _proved(session, challenge, name))
    except InvalidSignature:
        return False
    return True


def _proved(session: bytes, challenge: bytes, name: str) -> bytes:
    return b"penstock/join/" + session + challenge + name.encode()
