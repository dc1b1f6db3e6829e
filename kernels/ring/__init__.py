"""Arithmetic on elements of Z_q[X]/(X^N + 1) in residue form: what encrypted scoring computes with.

Everything here is public: ciphertexts and weights. Nothing here sees a secret key.
"""
