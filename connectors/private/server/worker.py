"""A process that scores ciphertexts: reads jobs from a pipe, with limits, until the pipe ends.

It knows the compiled models and nothing else: no token, no key, no socket. What it reads was
length-checked by its parent. After its models are loaded it may open no more files, write none, and
grow by no more than it was granted; whatever kills it kills one request.

    job     <IQ> header length, content length; header: JSON; content: ciphertexts
    reply   <BQ> 0 answer, 1 refused (UTF-8 text); length; content
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from connectors.private.bundle import read_bundle
from kernels.ring.packing import WordError
from tasks.privacy.score import EncryptedScorer, RequestError

JOB, REPLY = struct.Struct("<IQ"), struct.Struct("<BQ")
ANSWER, REFUSED = 0, 1
MOST_HEADER = 4_096


def main(arguments: Sequence[str]) -> int:
    """Serve jobs; returns the exit code.

    Args:
        arguments: Memory to grow by (MiB), then folders of compiled models.
    """
    granted, folders = int(arguments[0]), arguments[1:]
    scorers = {}
    for folder in folders:
        scorer = read_bundle(Path(folder)).scorer()
        _warm(scorer)
        scorers[scorer.plan.digest] = scorer
    # Files of models and compiled code are read by now.
    _limit(granted)
    jobs, replies = sys.stdin.buffer, sys.stdout.buffer
    _reply(replies, ANSWER, b"ready")
    while (start := jobs.read(JOB.size)) and len(start) == JOB.size:
        header_bytes, content_bytes = JOB.unpack(start)
        if header_bytes > MOST_HEADER:
            return 1
        job = json.loads(jobs.read(header_bytes))
        content = jobs.read(content_bytes)
        asked = scorers.get(job["model"])
        if asked is None:
            _reply(replies, REFUSED, b"the model was replaced since the server started; restart it")
            continue
        try:
            answer = asked.score(job["packing"], job["rows"], content)
        except (RequestError, WordError) as error:
            _reply(replies, REFUSED, str(error).encode())
        else:
            _reply(replies, ANSWER, answer)
    return 0


def _warm(scorer: EncryptedScorer) -> None:
    """Load compiled code and tables before limits hold, by scoring zeros."""
    for packing in scorer.plan.packings:
        scorer.score(packing, 1, bytes(scorer.plan.request_bytes(packing, 1)))


def _limit(granted_mib: int) -> None:
    """Take from this process what scoring does not need."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = held * os.sysconf("SC_PAGE_SIZE") + granted_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def _reply(replies: BinaryIO, status: int, content: bytes) -> None:
    replies.write(REPLY.pack(status, len(content)) + content)
    replies.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
