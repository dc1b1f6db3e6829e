"""Pages for one person on this machine: on loopback, behind a token, without any other source."""
