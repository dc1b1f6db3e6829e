"""The model that federated training makes: plain arrays, kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.privacy.encoding import Encoding
from tasks.privacy.federated.network import Network
from tasks.privacy.model import ModelError, PrivateModel, linear_model

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FederatedModel:
    """What was trained.

    Attributes:
        encoding: From raw features to inputs.
        network: Its shape.
        parameters: float64 [d].
    """

    encoding: Encoding
    network: Network
    parameters: Reals

    def logits(self, x: ArrayLike) -> Reals:
        """Return log-odds [n] of raw rows [n, F]."""
        return self.network.logits(self.parameters, self.encoding.encode(x))

    def for_encrypted_scoring(self) -> PrivateModel:
        """Return the model as `tasks.privacy.compile.compile_model` takes it.

        Raises:
            ModelError: When it has hidden layers: their ReLU has no encrypted form.
        """
        if self.network.hidden:
            raise ModelError(
                "a network with ReLU layers cannot be scored encrypted; train it with hidden=()"
            )
        ((weight, bias),) = self.network.layers(self.parameters)
        return linear_model(self.encoding, weight[:, 0], float(bias[0]))

    def to_dict(self) -> dict[str, Any]:
        """Return the model as JSON data."""
        return {
            "encoding": self.encoding.to_dict(),
            "hidden": list(self.network.hidden),
            "parameters": self.parameters.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FederatedModel:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: When the parameters are not those of the network, or not finite.
        """
        encoding = Encoding.from_dict(data["encoding"])
        network = Network(encoding.inputs, tuple(data["hidden"]))
        parameters = np.asarray(data["parameters"], np.float64)
        if parameters.shape != (network.parameters,) or not np.isfinite(parameters).all():
            raise ValueError(f"the network has {network.parameters} finite parameters")
        return cls(encoding, network, parameters)
