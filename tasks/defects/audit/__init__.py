"""The audit record of a detector: one page that says what was promised, measured, and by whom."""
