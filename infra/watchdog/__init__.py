"""The watchdog of the stream: keeps its processes alive and its job making checkpoints."""
