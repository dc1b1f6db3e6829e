"""Explanations of scores of histories: by event, by feature, and by cell of both."""
