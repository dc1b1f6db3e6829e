"""The few names of torch_geometric that are used, imported quietly."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # torch_geometric 2.8 decorates functions with torch.jit.script at import; torch 2.14 warns.
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.data import HeteroData
    from torch_geometric.data.storage import EdgeStorage

__all__ = ["EdgeStorage", "HeteroData"]
