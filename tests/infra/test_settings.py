from __future__ import annotations

import pytest

from infra.errors import ConfigurationError
from infra.settings import CHECKOUT, get_settings


@pytest.fixture
def toml(tmp_path, monkeypatch):
    """Writes the configuration file in force."""
    for name in ("PENSTOCK_HOME", "PENSTOCK_PREFECT_PORT", "PENSTOCK_MLFLOW_PORT"):
        monkeypatch.delenv(name)
    path = tmp_path / "some.toml"
    monkeypatch.setenv("PENSTOCK_CONFIG", str(path))

    def write(text: str):
        path.write_text(text)
        return path

    return write


def test_state_lives_in_the_checkout_by_default(toml):
    toml("")
    settings = get_settings()
    assert settings.home == CHECKOUT / ".penstock"
    assert settings.logs == CHECKOUT / ".penstock" / "logs"


def test_variables_win_over_the_file(toml, monkeypatch):
    toml("prefect_port = 4300\nmlflow_port = 5300\nlog_level = 'debug'\n")
    monkeypatch.setenv("PENSTOCK_MLFLOW_PORT", "5400")
    settings = get_settings()
    assert (settings.prefect_port, settings.mlflow_port) == (4300, 5400)
    assert settings.log_level == "DEBUG"


def test_settings_are_read_afresh(toml):
    toml("prefect_port = 4300")
    assert get_settings().prefect_port == 4300
    toml("prefect_port = 4301")
    assert get_settings().prefect_port == 4301


def test_the_file_of_the_working_folder_is_found(toml, tmp_path, monkeypatch):
    monkeypatch.delenv("PENSTOCK_CONFIG")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.toml").write_text("prefect_port = 4305")
    assert get_settings().prefect_port == 4305


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prefect_port = 70000", "prefect_port"),
        ("prefect_prot = 4200", "prefect_prot"),
        ("log_level = 'LOUD'", "log_level"),
        ("prefect_port = ", "not valid TOML"),
        ("mlflow_backend_url = 'mysql://root:hunter2@host/db'", "sqlite:/// or postgresql://"),
    ],
)
def test_a_wrong_file_is_named_with_its_mistake(toml, text, told):
    path = toml(text)
    with pytest.raises(ConfigurationError) as caught:
        get_settings()
    message = str(caught.value)
    assert told in message
    assert str(path) in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_a_file_that_is_not_utf_8_is_named(toml):
    path = toml("")
    path.write_bytes("home = 'Büro'".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"some\.toml: not UTF-8 .*Save it as UTF-8"):
        get_settings()


@pytest.mark.parametrize("home", ["~nosuchuser/x", "circle/x"])
def test_a_home_that_names_no_folder_is_told(toml, monkeypatch, tmp_path, home):
    toml("")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.setenv("PENSTOCK_HOME", home)
    with pytest.raises(ConfigurationError, match=f"home: .*{home} names no folder"):
        get_settings()


def test_a_named_file_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigurationError, match=r"absent\.toml"):
        get_settings()


def test_passwords_do_not_show(toml):
    toml("mlflow_backend_url = 'postgresql://me:hunter2@host/db'")
    settings = get_settings()
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
