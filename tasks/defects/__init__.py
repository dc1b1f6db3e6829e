"""Few-shot defect detection: samples in, a detector with a promise out."""
