"""Why the network of a bundle says what it says of the transactions that the bundle scores.

The net is read from the bundle (``graph.safetensors``), mail and embeddings are those that serve.
What a transaction brings itself is compared with the bundle's background and entities alone, so the
same transaction has the same explanation whatever rows lie beside it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.bundle.folder import BundleError

if TYPE_CHECKING:
    from models.graph_net import GraphNet
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.graph.explain import Floats, TransactionExplainer
    from tasks.fraud.graph.inputs import Rows
    from tasks.fraud.transactions import Transactions

WEIGHTS = "graph.safetensors"


def served_explainer(
    bundle: Bundle, tx: Transactions, features: FeatureSet
) -> TransactionExplainer:
    """Return what explains ``graph.logit`` as the bundle's active head reads it.

    Args:
        bundle: A bundle whose active head has a network.
        tx: All transactions.
        features: Features of all of them.

    Raises:
        BundleError: When the bundle's weights cannot be read.
    """
    from tasks.fraud.graph.explain import TransactionExplainer, typical
    from tasks.fraud.score import GraphInputs

    given, names = GraphInputs(bundle, tx, features), bundle.feature_names
    values = features.select(names)

    def own(rows: Rows) -> tuple[Floats, Floats]:
        return values[rows], given.embeddings[rows]

    layout = given.mail.layout
    # Medians over the entities: each row stands for one of a kind, the same for both its columns.
    kinds = {e.column: e.kind for e in bundle.config.entities}
    past = [np.median(bundle.embeddings.kinds[kinds[c]].vectors, axis=0) for c in layout.columns]
    background = typical(names, layout, bundle.background(), np.stack(past)[None])
    return TransactionExplainer(read_net(bundle), tx, given.mail, own, background)


def read_net(bundle: Bundle) -> GraphNet:
    """Return the net of a bundle in evaluation mode.

    Raises:
        BundleError: When the file is not there, or holds another net than it says.
    """
    from safetensors import SafetensorError, safe_open

    from models.graph_net import GraphNet, GraphNetConfig
    from models.mail_attention import MailAttentionConfig

    bundle.read_extra(WEIGHTS)  # its digest
    try:
        with safe_open(bundle.folder / WEIGHTS, framework="pt") as file:
            shape: dict[str, Any] = json.loads((file.metadata() or {})["shape"])["net"]
            names = [name for name in file.keys() if name.startswith("net.")]  # noqa: SIM118 - no mapping
            weights = {name.removeprefix("net."): file.get_tensor(name) for name in names}
        net = GraphNet(GraphNetConfig(**shape | {"mail": MailAttentionConfig(**shape["mail"])}))
        net.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{bundle.folder / WEIGHTS}: holds no graph net ({error}); train and publish again"
        ) from error
    return net.eval()
