"""Rule sets that stand for a model's decisions: mined, measured, run, compared, exported."""
