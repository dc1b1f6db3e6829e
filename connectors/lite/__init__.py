"""Files that were exported, run with numpy and ONNX Runtime alone; ships as ``penstock-lite``."""
