"""The page of the API: decisions as they are made, entities, and why a transaction was blocked."""
