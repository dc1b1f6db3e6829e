"""Explanations by a network that learned them, behind a gate that falls back to the engine."""
