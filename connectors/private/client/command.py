"""``penstock-client``: have rows scored by someone who never sees them; answers are JSON lines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectors.private.client.http import Scorer
    from connectors.private.client.session import Session

REFUSED, STOPPED = 2, 130
"""Exit codes: something is refused; Ctrl-C."""

_DIGEST_BYTES = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    args = _parsed(argv)
    try:
        args.action(args)
    except Exception as error:  # noqa: BLE001 - one line for whatever goes wrong
        told = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"penstock-client: {told}\n")
        return REFUSED
    except KeyboardInterrupt:
        return STOPPED
    return 0


def models(args: argparse.Namespace) -> None:
    """List what a scorer serves."""
    for one in _scorer(args).models():
        _say(one)


def offer(args: argparse.Namespace) -> None:
    """Fetch the offer of a model: what it takes, and the scorer's key."""
    found = _scorer(args).offer(args.name)
    args.out.write_text(found.to_json(), encoding="utf-8")
    plan = found.plan
    _say(
        {
            "offer": str(args.out),
            "model": found.name,
            "digest": plan.digest,
            "parameters": plan.parameters.name,
            "security_bits": plan.parameters.security_bits,
            "columns": list(found.encoding.columns),
            "error": found.error,
            "scorer": found.scorer,
        }
    )


def keygen(args: argparse.Namespace) -> None:
    """Make a key for a model; it stays in its file."""
    from connectors.private.client.key_file import KeyFile
    from connectors.private.client.offer import Offer
    from connectors.private.client.registration import NOTHING

    parameters = Offer.read(args.offer).plan.parameters.name
    before = NOTHING
    if args.replaces is not None:
        before = KeyFile.read(args.replaces, _passphrase()).key_id
    if args.out.exists():
        raise ValueError(f"{args.out} is there already, and is not written over")
    key = KeyFile.new(args.tenant, parameters, days=args.days, replaces=before)
    key.write(args.out, _passphrase())
    _say({"key": str(args.out), "id": key.key_id, "closed": bool(_passphrase())})


def register(args: argparse.Namespace) -> None:
    """Make a key known to a scorer; the secret stays."""
    from connectors.private.client.key_file import KeyFile
    from connectors.private.client.registration import write_registration

    key = KeyFile.read(args.key, _passphrase())
    _say(_scorer(args).register(write_registration(key.registration, key.signing_key)))


def revoke(args: argparse.Namespace) -> None:
    """End a key at once, wherever it may have got to."""
    from connectors.private.client.key_file import KeyFile

    _say(_scorer(args).revoke(KeyFile.read(args.key, _passphrase()).key_id))


def encrypt(args: argparse.Namespace) -> None:
    """Encrypt the rows of a table."""
    from connectors.private.client.sealed_file import write_sealed
    from connectors.private.client.tables import read_rows

    session = _session(args)
    rows = session.seal(read_rows(args.rows, session.offer.encoding.columns))
    write_sealed(args.out, rows)
    _say(
        {
            "sealed": str(args.out),
            "rows": rows.total - len(rows.refused),
            "refused": len(rows.refused),
            "bytes": len(rows.sealed.content),
        }
    )


def score(args: argparse.Namespace) -> None:
    """Have encrypted rows scored."""
    from connectors.private.client.sealed_file import read_sealed

    asked = _session(args).ask(_scorer(args), read_sealed(args.sealed))
    args.out.write_bytes(asked.request.encode("ascii") + asked.answer)
    _say(
        {
            "answer": str(args.out),
            "up_bytes": asked.sent,
            "down_bytes": len(asked.answer),
            "receipt": asked.receipt,
        }
    )


def decrypt(args: argparse.Namespace) -> None:
    """Check and decrypt an answer."""
    import numpy as np

    from connectors.private.client.key_file import KeyFile
    from connectors.private.client.release import released
    from connectors.private.client.sealed_file import read_sealed
    from connectors.private.client.tables import write_scores

    session = _session(args)
    offered = session.offer
    rows = read_sealed(args.sealed)
    content = args.answer.read_bytes()
    digest = content[:_DIGEST_BYTES].decode("ascii", errors="replace")
    scores = session.open(rows, digest, content[_DIGEST_BYTES:])
    if args.share:
        shared = released(scores, offered.flooding)
        values = int(np.isfinite(scores).sum())
        KeyFile.spend(args.key, _passphrase(), values, offered.releases)
        scores = shared
    shown = args.share or not args.bands
    write_scores(args.out, scores, offered.readout, rows.refused, values=shown)
    _say(
        {
            "scores": str(args.out),
            "rows": rows.total - len(rows.refused),
            "refused": len(rows.refused),
            "may_leave": bool(args.share or args.bands),
        }
    )


def _session(args: argparse.Namespace) -> Session:
    from connectors.private.client.key_file import KeyFile
    from connectors.private.client.offer import Offer
    from connectors.private.client.session import Session

    key = KeyFile.read(args.key, _passphrase())
    return Session(Offer.read(args.offer), key, args.most_error)


def _scorer(args: argparse.Namespace) -> Scorer:
    from connectors.private.client.http import TOKEN, Scorer

    return Scorer(args.url, os.environ.get(TOKEN, ""), args.authority)


def _passphrase() -> str:
    from connectors.private.client.key_file import PASSPHRASE

    return os.environ.get(PASSPHRASE, "")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="penstock-client",
        description=__doc__,
        epilog="PENSTOCK_TOKEN: token for the scorer."
        " PENSTOCK_PRIVATE_PASSPHRASE: closes and opens key files.",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for action, files, out in (
        (models, (), None),
        (offer, ("name",), "offer.json"),
        (keygen, ("offer",), "owner.key"),
        (register, ("key",), None),
        (revoke, ("key",), None),
        (encrypt, ("offer", "key", "rows"), "rows.sealed"),
        (score, ("offer", "key", "sealed"), "rows.answer"),
        (decrypt, ("offer", "key", "sealed", "answer"), "scores.csv"),
    ):
        one = commands.add_parser(action.__name__, help=action.__doc__, description=action.__doc__)
        one.set_defaults(action=action)
        for name in files:
            one.add_argument(name, type=str if name == "name" else Path)
        if out is not None:
            one.add_argument("--out", type=Path, default=Path(out), help=f"default {out}")
        if action in {models, offer, register, revoke, score}:
            one.add_argument("--url", default="http://127.0.0.1:8030", help="address of the scorer")
            one.add_argument("--authority", default="", help="certificates to trust (PEM)")
        if action in {encrypt, score, decrypt}:
            one.add_argument(
                "--most-error", type=float, default=0.01, help="error that a scorer may claim (.01)"
            )
        if action is keygen:
            one.add_argument("--tenant", required=True, help="name of your token at the scorer")
            one.add_argument("--days", type=float, default=90.0, help="how long it holds (90)")
            one.add_argument("--replaces", type=Path, help="key file that it follows")
        if action is decrypt:
            one.add_argument("--share", action="store_true", help="scores that may leave you")
            one.add_argument("--bands", action="store_true", help="bands alone, which may leave")
    return made.parse_args(argv)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
