"""Scoring one transaction at a time, or a stream of them: parsing, features, score, reasons."""
