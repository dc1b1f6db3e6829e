"""The ``penstock`` command line: one file per command group."""
