"""The model script that MLflow stores beside an inspection bundle ("models from code").

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

from tasks.defects.bundle.bundle import DefectBundle


class InspectionModel(PythonModel):  # type: ignore[misc]  # mlflow carries no types
    """Scores images uint8 [n, h, w, 3] by the edge file."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle; its hashes are checked here."""
        digest = context.model_config["bundle_sha256"]
        self.bundle = DefectBundle.load(Path(context.artifacts["bundle"]), digest=digest)

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # type: ignore[type-arg]  # MLflow compares with the bare class
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float64]:
        """Return the scores float64 [n]; the higher, the more likely defective."""
        del context, params
        return self.bundle.score(model_input)


# MLflow reads the model object that a script declares when it runs.
set_model(InspectionModel())
