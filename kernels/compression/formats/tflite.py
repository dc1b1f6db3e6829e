"""LiteRT, formerly TensorFlow Lite (.tflite)."""

from __future__ import annotations

from kernels.compression.formats.handed import HandedFormat

TFLITE = HandedFormat("tflite", ".tflite", "tflite_worker.py")
