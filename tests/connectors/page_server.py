"""A command that serves a page, in a process of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import httpx


class PageServer:
    """The command and a client of its page.

    Attributes:
        process: The command, leader of a process group of its own.
        url: Address that it printed, with the token.
        port: Its port.
        client: Asks for paths below the address.
    """

    def __init__(self, *words: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **variables},
        )
        ready = select.select([self.process.stdout], [], [], 60)[0]
        self.url = self.process.stdout.readline().strip() if ready else ""
        if not self.url.startswith("http"):
            self.process.kill()
            raise AssertionError(self.url + self.process.communicate()[0])
        self.port = httpx.URL(self.url).port
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def post(self, path, fields, **headers):
        """Send a form as the page itself sends it; returns the answer that follows."""
        headers = {"origin": f"http://127.0.0.1:{self.port}"} | headers
        return self.client.post(path, data=fields, headers=headers, follow_redirects=True)

    def close(self):
        """End it as Ctrl-C does; returns its exit code and what it said."""
        self.client.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            said = self.process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            said = self.process.communicate()[0] + "\nhad to be killed"
        return self.process.returncode, said
