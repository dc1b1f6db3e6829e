"""Small trained additions to a net whose own weights stay as they are."""
