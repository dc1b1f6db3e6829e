"""The data owner's side of encrypted scoring: keys, encryption, decryption.

It is a distribution of its own, ``penstock-client``: NumPy, TenSEAL (whose build of Microsoft SEAL
does everything that touches a secret), ``cryptography`` and ``zstandard``.
"""
