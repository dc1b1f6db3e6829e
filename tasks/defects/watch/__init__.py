"""Watching a line: scores, exposure, camera and unknown defects, with a stated false-alarm rate."""
