"""Thresholds by promise: how many defects may escape, with which confidence, at which cost."""
