"""Profile: what a table shows by itself, before anybody has said what it should be."""
