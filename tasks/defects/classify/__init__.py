"""Types of defects, learned from a few labelled images by texture and by the small net."""
