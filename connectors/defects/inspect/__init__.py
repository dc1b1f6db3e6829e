"""Inspecting a line: folders and cameras in, verdicts out, doubtful images to a larger model."""
