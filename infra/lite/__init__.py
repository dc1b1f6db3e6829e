"""The distribution ``penstock-lite``: what a machine on the line needs of this checkout."""
