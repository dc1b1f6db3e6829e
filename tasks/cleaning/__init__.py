"""Checks that route bad records to quarantine instead of dropping them."""
