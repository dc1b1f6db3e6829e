"""The compute core: entity state, graph operators, training runtime. Knows nothing of fraud."""
