"""Pages of explanations: one of a case, one of a model; each a single HTML file."""
