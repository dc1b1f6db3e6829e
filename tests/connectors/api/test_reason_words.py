"""The reasons of answers have the codes and words of the catalogue the operator names."""

from __future__ import annotations

import pytest

from connectors.api.model_source import ModelSource
from connectors.api.served_model import ModelError
from tests.connectors.api.calls import admin, get, score
from tests.connectors.api.conftest import SECRETS

OWN = """
format = 1
name = "bank"
extends = "house"

[[entry]]
code = "{code}"
groups = ["transaction/amount"]
[entry.customer]
en = "Amount of the payment"
zh = "{words}"
[entry.analyst]
en = "the amount"
zh = "{words}"
"""


def write(path, *, code="AMT", words="金额偏高"):
    path.write_text(OWN.format(code=code, words=words))
    return path


def dear(events):
    """Return a payment whose amount is its foremost reason."""
    return events(amount_cents=9_000_000)


def reasons(api, events):
    return {r["code"]: r["text"] for r in score(api, dear(events)).data["reasons"]}


def test_codes_and_language_follow_the_settings_and_a_reload(start, bundle, events, tmp_path):
    own = write(tmp_path / "bank.toml")
    settings = {"model": bundle.folder, "ui": "false", "catalogue": own, "language": "zh"}
    # What is late is left out: on a busy machine, what is asked here would be.
    api = start(settings | {"budget_ms": 20_000, "reasons_ms": 20_000})
    assert reasons(api, events)["AMT"] == "金额偏高"
    told = api.call("POST", "/v1/explain", dear(events), token=SECRETS["reader"]).data
    assert {"code": "AMT", "text": "金额偏高"}.items() <= told["reasons"][0].items()

    write(own, code="A9", words="此笔金额")
    assert admin(api, "POST", "/v1/model/reload").data["changed"]
    assert reasons(api, events)["A9"] == "此笔金额"
    assert not admin(api, "POST", "/v1/model/reload").data["changed"]

    write(own, words="")
    refused = admin(api, "POST", "/v1/model/reload")
    assert (refused.status, refused.data["code"]) == (409, "model-refused")
    assert "PENSTOCK_API_CATALOGUE" in refused.data["fix"]
    assert "reasons" in get(api, "/v1/model").data["trouble"]
    assert reasons(api, events)["A9"] == "此笔金额"


def test_without_one_codes_are_those_of_the_bundle(api, events):
    found = reasons(api, events)
    assert found
    assert all("/" not in code for code in found)


def test_a_misspelt_group_of_the_file_is_told_once_when_a_model_loads(bundle, tmp_path, caplog):
    path = write(tmp_path / "bank.toml")
    ModelSource(str(bundle.folder), "champion", tmp_path, catalogue=path).load()
    assert not [r for r in caplog.records if "no group" in r.message]
    path.write_text(path.read_text(encoding="utf-8").replace("/amount", "/amuont"), "utf-8")
    ModelSource(str(bundle.folder), "champion", tmp_path, catalogue=path).load()
    (told,) = [r.message for r in caplog.records if "no group" in r.message]
    assert "catalogue 'bank', entry 'AMT': the model has no group 'transaction/amuont'" in told
    assert "the nearest is 'transaction/amount'" in told


@pytest.mark.parametrize("content", [None, "format = 1", "not toml ["])
def test_a_catalogue_that_is_none_keeps_the_model_from_loading(content, bundle, tmp_path):
    path = tmp_path / "wrong.toml"
    if content is not None:
        path.write_text(content)
    source = ModelSource(str(bundle.folder), "champion", tmp_path, catalogue=path)
    with pytest.raises(ModelError, match=r"reasons of .* cannot be told"):
        source.load()
