"""Pre-training of the small net on generated surfaces alone."""
