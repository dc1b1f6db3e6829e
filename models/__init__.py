"""Networks and scoring heads: small torch modules, each with its own config dataclass."""
