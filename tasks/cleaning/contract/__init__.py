"""Contracts: what a table must look like, written as TOML, inferred or by hand."""
