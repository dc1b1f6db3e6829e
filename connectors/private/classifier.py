"""Fit, compile, predict: encrypted scoring of a classifier, in the manner of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from connectors.private.bundle import make_offer
from connectors.private.client.owner import Owner
from connectors.private.client.seal import Seal
from tasks.privacy.compile import Compiled, CompileOptions, compile_model
from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import ModelError, PrivateModel, linear_model
from tasks.privacy.score import EncryptedScorer
from tasks.privacy.simulate import simulate

Reals = NDArray[np.float64]

Mode = Literal["clear", "simulate", "execute"]


class EncryptedClassifier:
    """A logistic regression that also scores what it cannot see.

    Attributes:
        model: Fitted, in the clear; None before `fit`.
        compiled: What runs encrypted; None before `compile`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> made = EncryptedClassifier().fit(x, x[:, 0] > 0)
        >>> made.compile(x).proof.likely < 1e-3
        True
        >>> clear, sealed = (made.predict_proba(x[:5], mode) for mode in ("clear", "execute"))
        >>> bool(abs(clear - sealed).max() < 1e-3)
        True
    """

    def __init__(self, *, penalty: float = 1.0, columns: Sequence[str] | None = None) -> None:
        """Set up.

        Args:
            penalty: Inverse of scikit-learn's ``C``.
            columns: Names of the columns, for messages.
        """
        self._penalty, self._columns = penalty, columns
        self.model: PrivateModel | None = None
        self.compiled: Compiled | None = None
        self._parts: tuple[Owner, EncryptedScorer] | None = None

    def fit(self, x: ArrayLike, y: ArrayLike) -> Self:
        """Fit on rows [n, F] and labels [n], 1 or 0."""
        from sklearn.linear_model import LogisticRegression

        encoding = plain_encoding(x, self._columns, beyond="clip")
        fitted = LogisticRegression(C=1 / self._penalty, max_iter=1_000)
        fitted.fit(encoding.encode(x), np.asarray(y))
        self.model = linear_model(encoding, fitted.coef_[0], fitted.intercept_[0])
        self.compiled, self._parts = None, None
        return self

    def compile(self, x: ArrayLike, options: CompileOptions | None = None) -> Compiled:
        """Compile for encrypted scoring, with rows such as will come.

        Raises:
            ModelError: Before `fit`.
            ParameterError: When no parameter set keeps the tolerance.
        """
        self.compiled = compile_model(self._fitted(), x, options)
        offer = make_offer(self.compiled, "classifier")
        self._parts = (
            Owner(offer, Seal(self.compiled.plan.parameters)),
            EncryptedScorer(self.compiled.plan, self.compiled.whole),
        )
        return self.compiled

    def predict_proba(self, x: ArrayLike, mode: Mode = "clear") -> Reals:
        """Return the probability [n] of each row.

        Args:
            x: [n, F] raw rows.
            mode: ``clear``; ``simulate``: the whole numbers and noise of encryption without it;
                ``execute``: encrypted, scored and decrypted in this process.

        Raises:
            ModelError: Before `fit`, and before `compile` in the other modes.
        """
        return self._fitted().readout.outcome(self._scores(x, mode))[:, 0]

    def predict(self, x: ArrayLike, mode: Mode = "clear") -> NDArray[np.int64]:
        """Return 1 where the probability is at least a half, else 0."""
        return (self.predict_proba(x, mode) >= 0.5).astype(np.int64)

    def _scores(self, x: ArrayLike, mode: Mode) -> Reals:
        if mode == "clear":
            return self._fitted().score(x)
        if self.compiled is None or self._parts is None:
            raise ModelError("compile the classifier before it is simulated or executed")
        if mode == "simulate":
            return simulate(self.compiled, x, np.random.default_rng(0))
        owner, scorer = self._parts
        sealed = owner.encrypt(x)
        return owner.decrypt(sealed, scorer.score(sealed.packing, sealed.rows, sealed.content))

    def _fitted(self) -> PrivateModel:
        if self.model is None:
            raise ModelError("fit the classifier first")
        return self.model
