"""A detector of defects from normal images and none, few or many labelled defects."""
