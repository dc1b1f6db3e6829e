"""Procedural images of surfaces and their defects: deterministic, fast, with masks for free."""
