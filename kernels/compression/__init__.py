"""Nets made small and portable: ONNX export, int8 quantisation, and the proof that both agree."""
