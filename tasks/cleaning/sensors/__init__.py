"""Sensor series: faults of clock, cable and instrument, told from what the process did."""
