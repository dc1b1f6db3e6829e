"""The edge file: a detector with its preprocessing and thresholds inside one ONNX file."""
