"""Transactions: copies, late arrivals, impossible times and places, currencies, check digits."""
