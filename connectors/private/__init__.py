"""Encrypted and joint scoring between two houses: the owner of the data and the scorer."""
