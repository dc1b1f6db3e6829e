"""What tests of joint scoring share."""

from __future__ import annotations

import pytest

from tests.connectors.private.joint.houses import Houses


@pytest.fixture(scope="session")
def houses(tmp_path_factory):
    return Houses(tmp_path_factory.mktemp("houses"))
