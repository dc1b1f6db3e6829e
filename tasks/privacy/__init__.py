"""Encrypted scoring, the scorer's side: compile a model, simulate it, score ciphertexts.

Nothing here can decrypt. What holds a secret key is ``connectors.private.client``, the data owner's
side.
"""
