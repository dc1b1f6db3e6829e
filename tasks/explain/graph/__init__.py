"""Explanations of graph networks: who of a node's neighbourhood made its score."""
