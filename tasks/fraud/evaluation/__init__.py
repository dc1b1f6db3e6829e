"""How fraud models are judged: folds, metrics, paired intervals, thresholds, the leak alarm."""
