"""Federated training between processes: a coordinator, and branches that connect to it."""
