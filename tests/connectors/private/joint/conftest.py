"""What tests of joint scoring share."""

from __future__ import annotations

import pytest

from tasks.privacy.shares.compile import JointOptions, compile_joint
from tests.connectors.private.joint.houses import FIRST, Houses
from tests.tasks.privacy.models import made, rows


@pytest.fixture(scope="session")
def houses(tmp_path_factory):
    return Houses(tmp_path_factory.mktemp("houses"))


@pytest.fixture(scope="session")
def joint():
    options = JointOptions(holder="shared", receivers="both")
    return compile_joint(made("linear"), FIRST, rows(300), options)
