"""Doors of the inspection: folders of images, the edge, the central model, results."""
