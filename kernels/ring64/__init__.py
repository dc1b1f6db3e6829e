"""Arithmetic of two-party computation: words of 64 bits that wrap around, and shared truth tables.

Numbers are uint64 and stand for residues modulo 2**64, or modulo a smaller power of two whose upper
bits are ignored. Every function sees one party's shares, or, where its name says ``deal``, what the
trusted dealer alone may see.
"""
