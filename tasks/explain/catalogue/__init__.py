"""Reason codes with their wording in two languages, as data that people edit."""
