"""The flow that builds weights of the small net: tracked, continued, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.pretrain_defects import pretrain_defects, recipe_key
from tasks.defects.pretrain.recipe import PretrainConfig
from tasks.defects.weights import digest, load_mask_head, load_net

TINY = {"steps": 3, "surfaces": 2, "crop": 32}


def test_the_flow_builds_weights_that_load(tmp_path, prefect_server, mlflow_server):
    out = tmp_path / "net.safetensors"
    record = pretrain_defects(TINY, out=str(out), folder=str(tmp_path / "run"))
    assert record["finished"] == 3
    assert record["digest"] == digest(out)
    load_net(out)
    load_mask_head(out)
    run = MlflowClient().get_run(record["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.crop"] == "32"
    names = {file.path for file in MlflowClient().list_artifacts(record["run_id"])}
    assert "net.safetensors" in names
    # Once more, and there is nothing left to do.
    again = pretrain_defects(TINY, out=str(out), folder=str(tmp_path / "run"))
    assert (again["steps"], again["digest"]) == (0, record["digest"])
    assert json.loads(json.dumps(record))["weights"] == str(Path(out).resolve())


def test_a_recipe_and_its_sources_name_the_run():
    assert recipe_key(PretrainConfig()) == recipe_key(PretrainConfig())
    assert recipe_key(PretrainConfig()) != recipe_key(PretrainConfig(seed=1))


def test_a_setting_that_is_not_there_is_refused_before_anything_starts():
    from flows.cli.defects_pretrain import pretrain

    with pytest.raises(ValueError, match="stepz"):
        pretrain(settings=["stepz=3"])
