"""Federated training, all that is computed: secure sums, averaging, privacy accounting.

Branches keep their rows. What leaves a branch is masked so that a coordinator learns the sum over
many branches and nothing else. Sockets and processes are in ``connectors.private.federated``.
"""
