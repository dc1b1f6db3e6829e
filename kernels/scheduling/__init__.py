"""Jobs on shared devices: forecasts, a placement policy, its file, and a simulator to judge it."""
