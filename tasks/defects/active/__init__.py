"""Which images to label next, so that few labels go far."""
