"""Local services: each a definition, all started, watched and stopped the same way."""
