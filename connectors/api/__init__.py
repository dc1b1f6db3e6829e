"""The fraud API: one transaction in, a score with its reasons out, within milliseconds.

FastAPI describes and serves the routes (``app``); single transactions take a shorter way through
the same functions (``protocol``). ``python -m connectors.api.server`` starts it.
"""
