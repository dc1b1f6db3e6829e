"""Files of secrets: new ones only, for their owner alone."""

from __future__ import annotations

import pytest

from connectors.private.owner_only import check_owner_only, write_owner_only
from infra.errors import ConfigurationError


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"
    write_owner_only(path, b"secret")
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    check_owner_only(path)
    with pytest.raises(FileExistsError):
        write_owner_only(path, b"another")
    assert path.read_bytes() == b"secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_any_right_of_others_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        check_owner_only(path)
