"""Fused operators: what several passes over memory do, done in one, where that was measured."""
