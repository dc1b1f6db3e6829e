"""Block-sparse attention with a learned gate: a two-line swap for dense attention.

The parts, each imported on its own so that this package stays light: ``config`` (what is kept),
``gate`` (which key blocks each query block attends to, and how it learns that), ``dispatch`` (the
kernel with its backends ``reference``, ``cpu`` and ``triton``), ``crossover`` (where dense
attention is faster) and ``module`` (`SparseAttention`, which puts them together).
"""
