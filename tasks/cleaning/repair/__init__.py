"""Repair: suggestions sorted into tiers, carried out in a fixed order, every cell on record."""
