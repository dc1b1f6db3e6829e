"""A small convolutional network on images of 28 pixels, scored encrypted."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.private.bundle import make_offer
from connectors.private.client.owner import Owner
from connectors.private.client.seal import Seal
from tasks.privacy.compile import CompileOptions, compile_model
from tasks.privacy.encoding import Encoding
from tasks.privacy.model import ModelError, convolution_weights, power_model
from tasks.privacy.score import EncryptedScorer

SIZE = 28


def images() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits of 8 pixels, enlarged to 28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    large = digits.images.repeat(4, axis=1).repeat(4, axis=2)[:, 2:30, 2:30] / 16
    return large.reshape(len(large), -1), digits.target


def test_a_convolution_is_its_matrix():
    from scipy.signal import correlate2d

    rng = np.random.default_rng(0)
    kernels, image = rng.normal(size=(2, 5, 5)), rng.normal(size=(SIZE, SIZE))
    weights, bias = convolution_weights(kernels, SIZE, 3, [0.5, -0.5])
    found = (weights @ image.ravel() + bias).reshape(2, 8, 8)
    for kernel, offset, one in zip(kernels, (0.5, -0.5), found, strict=True):
        expected = correlate2d(image, kernel, mode="valid")[::3, ::3] + offset
        np.testing.assert_allclose(one, expected, atol=1e-12)
    with pytest.raises(ModelError, match="k up to 28"):
        convolution_weights(np.ones((1, 29, 29)), SIZE)


@pytest.mark.long
def test_digits_are_told_apart_encrypted():
    """Convolution of 5 x 5, square, one linear layer: fitted to the squares, in closed form."""
    x, y = images()
    rng = np.random.default_rng(1)
    weights, bias = convolution_weights(rng.normal(size=(2, 5, 5)) / 5, SIZE, 3)
    hidden = (x @ weights.T + bias) ** 2
    train, test = slice(0, 1_400), slice(1_400, None)
    design = np.c_[hidden[train], np.ones(1_400)]
    ridge = design.T @ design + 0.1 * np.eye(design.shape[1])
    output = np.linalg.solve(ridge, design.T @ np.eye(10)[y[train]]).T

    width = SIZE * SIZE
    pixels = Encoding(
        tuple(f"p{i}" for i in range(width)), np.zeros(width), np.ones(width), np.ones(width)
    )
    model = power_model(pixels, [(weights, bias), (output[:, :-1], output[:, -1])], 2)
    compiled = compile_model(model, x[train], CompileOptions(tolerance=1e-2))
    owner = Owner(make_offer(compiled, "digits"), Seal(compiled.plan.parameters))
    scorer = EncryptedScorer(compiled.plan, compiled.whole)
    sealed = owner.encrypt(x[test])
    scores = owner.decrypt(sealed, scorer.score(sealed.packing, sealed.rows, sealed.content))
    clear = model.score(x[test])
    assert np.abs(scores - clear).max() <= compiled.proof.likely_calibration
    assert (scores.argmax(axis=1) == clear.argmax(axis=1)).all()
    assert (scores.argmax(axis=1) == y[test]).mean() > 0.85
