"""A model's forward pass as one exported graph, for the batches that fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.forward import replaced_forward


class Exported:
    """The forward pass exported at its first call, for arguments of that form.

    Parameters and buffers are the model's own, so that gradients land where the optimizer looks.
    Arguments of another form (a shorter last batch) go to the model itself. Python code between
    the operators is left out of the graph, hooks included.
    """

    def __init__(self, model: nn.Module, failure: type[Exception]) -> None:
        """Prepare.

        Args:
            model: The model.
            failure: Type of the error when it cannot be exported.
        """
        self._model, self._failure = model, failure
        # Bound now: while a replacement is in place, the model's own name is taken.
        self._forward = model.forward
        self._graph: Callable[..., Any] | None = None
        self._form: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute by the graph, or by the model where the graph does not fit.

        Raises:
            Exception: Of the given type, when the model cannot be exported.
        """
        form = form_of([args, kwargs])
        if self._graph is None:
            self._graph, self._form = self._exported(args, kwargs), form
        return (self._graph if form == self._form else self._forward)(*args, **kwargs)

    def _exported(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
        try:
            with replaced_forward(self._model, self._forward):
                return torch.export.export(self._model, args, kwargs).module()
        except Exception as error:
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise self._failure(
                f"torch.export failed ({first[0]}); take compilation.mode 'eager' or 'compile'"
            ) from error


def form_of(value: Any) -> Any:
    """Return what two arguments must share for one graph: shapes, formats, devices, constants."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device, value.requires_grad
    if isinstance(value, Mapping):
        return [(key, form_of(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [form_of(each) for each in value]
    return type(value), value
