"""Pipelines a person schedules or runs, and the command line. Wiring only."""
