"""The model script that MLflow stores beside a bundle ("models from code").

MLflow copies this file into the model and runs it when the model is loaded; the bundle travels as
plain data files. So nothing is pickled, and the class below is the whole of what runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray

from tasks.fraud.bundle import Bundle


class FraudModel(PythonModel):  # type: ignore[misc]  # mlflow carries no types
    """Scores arrays of features (and mail, mask, embeddings where the head takes them)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle; its hashes are checked here."""
        digest = context.model_config["bundle_sha256"]
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]), digest=digest)

    def predict(
        self,
        context: PythonModelContext,
        # A mapping of names to arrays: MLflow reads hints as schemas and knows none for that.
        model_input: np.ndarray,  # type: ignore[type-arg]  # MLflow compares with the bare class
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float64]:
        """Return probabilities float64 ``[n]`` for named input arrays."""
        del context
        inputs: Any = model_input
        return self.bundle.score(**inputs, head=str((params or {}).get("head", "")))


# MLflow reads the model object that a script declares when it runs.
set_model(FraudModel())
