"""From a table to checked transactions: parsing, identifiers, checks, a proposed config."""
