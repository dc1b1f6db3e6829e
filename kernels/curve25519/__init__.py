"""Which numbers are x-coordinates of Curve25519: public arithmetic that hashing to the curve needs.

Nothing here sees a secret scalar; multiplication of points is ``cryptography``'s X25519.
"""
