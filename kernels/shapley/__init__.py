"""Shapley values of cooperative games, in matrices: exact, and by paired coalitions."""
