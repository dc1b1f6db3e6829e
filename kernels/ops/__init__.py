"""Graph operators: past-only sampling and aggregation."""
