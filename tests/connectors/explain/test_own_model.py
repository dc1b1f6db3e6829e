"""A stranger's model and tables: every format explains alike, every mistake is told in one line."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from connectors.explain.model_files import open_model
from connectors.explain.own_model import OwnModel
from connectors.explain.own_subject import own_subject
from connectors.explain.own_tables import read_tables
from connectors.files import InputFileError
from tasks.explain.catalogue.files import from_toml
from tasks.explain.errors import (
    BackgroundError,
    ExplanationError,
    ExplanationTimeoutError,
    PlayersError,
    ScoreError,
)

NAMES = ("amount", "age", "city")


class Net(torch.nn.Module):
    """Functional ReLU, used twice, two outputs: what gradient rules get wrong."""

    def __init__(self, features=3):
        super().__init__()
        self.one, self.two = torch.nn.Linear(features, 8), torch.nn.Linear(8, 2)

    def forward(self, rows):
        return self.two(torch.relu(torch.relu(self.one(rows)) - 0.2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    net = Net().eval()
    rows = torch.zeros(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), folder / "net.pt")
        program = torch.export.export(
            net, (rows,), dynamic_shapes=({0: torch.export.Dim("rows")},), strict=False
        )
        program.example_inputs = None
        torch.export.save(program, folder / "net.pt2")
        torch.onnx.export(net, (rows,), folder / "net.onnx", dynamo=True, verbose=False,
                          dynamic_shapes=({0: torch.export.Dim("rows")},),
                          external_data=False)  # fmt: skip
    torch.save({"x": torch.zeros(2)}, folder / "weights.pt")
    rng = np.random.default_rng(0)
    write(folder / "rows.parquet", rng.normal(size=(40, 3)), id=[f"r{i}" for i in range(40)])
    write(folder / "held.parquet", rng.normal(size=(150, 3)))
    return folder


def write(path, rows, names=NAMES, **more):
    columns = dict(zip(names, np.asarray(rows, dtype=float).T, strict=True)) | more
    parquet.write_table(pa.table(columns), path)
    return path


def brought(folder, **changes):
    given = {"model": folder / "net.pt", "data": folder / "rows.parquet",
             "background": folder / "held.parquet", "output": 1}  # fmt: skip
    return OwnModel(**(given | changes))


@pytest.mark.parametrize("name", ["net.pt", "net.pt2", "net.onnx"])
def test_every_format_gives_the_values_of_the_module(folder, name):
    subject = own_subject(brought(folder, model=folder / name, key="id"))
    found = subject.explain(np.arange(10)).found
    torch.manual_seed(0)
    expected = Net().eval()(torch.from_numpy(subject.rows[:10]))[:, 1].detach().numpy()
    assert np.allclose(found.scores, expected, atol=1e-5)
    assert found.contract.gap <= 1e-6
    assert found.keys[3] == "r3"
    assert found.contract.model.name == name
    first = own_subject(brought(folder)).explain(np.arange(10)).found
    assert np.allclose(found.values, first.values, atol=1e-5)


def test_a_misspelt_player_of_a_catalogue_is_told(folder, caplog):
    text = 'format = 1\nname = "orders"\nextends = "house"\n[[entry]]\ncode = "A"\n'
    text += 'groups = ["transaction/{}"]\ncustomer = {{en = "a", zh = "b"}}\n'
    own_subject(brought(folder), words=(from_toml(text.format("amount")), "en"))
    assert caplog.messages == []
    own_subject(brought(folder), words=(from_toml(text.format("amout")), "en"))
    (told,) = caplog.messages
    assert "entry 'A': the model has no group 'transaction/amout'" in told


def test_a_background_is_frozen_by_the_seed(folder):
    one, two = (read_tables(brought(folder, most_background=20, seed=s)) for s in (0, 0))
    assert one.background == two.background
    assert len(one.background.values) == 20
    assert read_tables(brought(folder, most_background=20, seed=1)).background != one.background
    assert len(read_tables(brought(folder, most_background=500)).background.values) == 150


def test_what_a_user_brings_goes_there_and_back_as_json(folder):
    made = brought(folder, key="id", segments=("id",), review_at=0.5, groups=folder / "g.toml")
    assert OwnModel.from_record(json.loads(json.dumps(made.to_record()))) == made
    assert OwnModel.from_record(json.loads(json.dumps(brought(folder).to_record()))).groups is None


def test_constant_columns_explain_nothing_and_are_named(folder, tmp_path):
    rows = np.random.default_rng(1).normal(size=(12, 3))
    rows[:, 1] = 4
    data, held = write(tmp_path / "a.parquet", rows), write(tmp_path / "b.parquet", rows[:5])
    own = brought(folder, data=data, background=held)
    assert read_tables(own).constant == ("age",)
    assert (own_subject(own).explain(np.arange(12)).found.values[:, 1] == 0).all()


def test_files_that_are_no_model_are_told(folder, tmp_path):
    for name in ("bad.pt", "bad.pt2", "bad.onnx"):
        (tmp_path / name).write_bytes(b"no model")
        with pytest.raises(ExplanationError, match="cannot be loaded as a model"):
            open_model(tmp_path / name)
    with pytest.raises(ExplanationError, match="cannot be loaded as a model"):
        open_model(folder / "weights.pt")
    with pytest.raises(InputFileError, match="no such file"):
        open_model(tmp_path / "absent.pt")
    with pytest.raises(ExplanationError, match="must be one of"):
        brought(folder, model=folder / "net.pkl")


def test_several_outputs_need_one_that_is_named(folder):
    for name in ("net.pt", "net.onnx"):
        with pytest.raises(ScoreError, match="output"):
            own_subject(brought(folder, model=folder / name, output=None))
        with pytest.raises(ScoreError, match="output"):
            own_subject(brought(folder, model=folder / name, output=5))


WRONG = {
    "background of other columns": (
        {"background": ("x", "y", "z")}, BackgroundError, "has no column 'x'",
    ),
    "background too wide for the model": (
        {"background": (*NAMES, "extra"), "data": (*NAMES, "extra")}, ScoreError,
        "cannot score rows of the 4 background columns",
    ),
    "an option's column": ({"key": "nr"}, BackgroundError, "has no column 'nr'"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "says"), WRONG.values(), ids=WRONG)
def test_columns_that_do_not_fit_are_told(folder, tmp_path, changes, error, says):
    rng = np.random.default_rng(0)
    made = {
        k: write(tmp_path / f"{k}.parquet", rng.normal(size=(9, len(v))), v)
        if isinstance(v, tuple) else v
        for k, v in changes.items()
    }  # fmt: skip
    with pytest.raises(error, match=says):
        own_subject(brought(folder, **made))


def test_scores_that_are_not_finite_are_told_with_the_row(folder, tmp_path):
    rows = np.ones((6, 3))
    rows[4, 0] = np.nan
    data = write(tmp_path / "rows.parquet", rows)
    with pytest.raises(ScoreError, match="row 4 is nan"):
        own_subject(brought(folder, data=data))


def test_text_columns_twin_keys_and_nothing_that_varies_are_told(folder, tmp_path):
    text = tmp_path / "text.parquet"
    parquet.write_table(pa.table({"amount": ["a"], "age": [1.0], "city": [2.0]}), text)
    with pytest.raises(ExplanationError, match="'amount' holds string"):
        read_tables(brought(folder, data=text))
    twins = write(tmp_path / "twins.parquet", np.eye(3), id=["a", "b", "a"])
    with pytest.raises(ExplanationError, match="key 'a' occurs twice"):
        read_tables(brought(folder, data=twins, key="id"))
    same = write(tmp_path / "same.parquet", np.ones((4, 3)))
    with pytest.raises(ExplanationError, match="all 3 columns have one value"):
        read_tables(brought(folder, data=same, background=same))
    odd = write(tmp_path / "odd.parquet", np.eye(3), y=["yes", "no", "no"], t=["x", "y", "z"])
    with pytest.raises(ExplanationError, match="outcomes are 1, 0"):
        read_tables(brought(folder, data=odd, label="y"))
    with pytest.raises(ExplanationError, match="holds no instants"):
        read_tables(brought(folder, data=odd, time="t"))


def test_five_thousand_features_are_told_to_be_grouped(tmp_path):
    names = tuple(f"f{i}" for i in range(5_000))
    rows = np.random.default_rng(0).normal(size=(60, 5_000))
    data = write(tmp_path / "wide.parquet", rows, names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(5_000, 1).eval()), tmp_path / "wide.pt")
    own = OwnModel(model=tmp_path / "wide.pt", data=data, background=data)
    with pytest.raises(PlayersError, match="group"):
        own_subject(own).explain(np.arange(2))
    (tmp_path / "groups.toml").write_text(
        "\n".join(f"g{g} = {[f'f{i}' for i in range(g, 5_000, 10)]}" for g in range(10))
    )
    grouped = OwnModel(model=tmp_path / "wide.pt", data=data, background=data,
                       groups=tmp_path / "groups.toml", most_background=5)  # fmt: skip
    found = own_subject(grouped).explain(np.arange(2)).found
    assert found.contract.players.names == tuple(f"g{g}" for g in range(10))


def test_time_that_is_over_is_told(folder):
    with pytest.raises(ExplanationTimeoutError, match="allow more seconds"):
        own_subject(brought(folder, seconds=1e-9)).explain(np.arange(5))


@pytest.mark.parametrize(
    ("text", "says"),
    [("place = 3", "write place ="), ("place = [", "no TOML"), ('p = ["nobody"]', "'nobody'")],
)
def test_groups_that_cannot_be_are_told(folder, tmp_path, text, says):
    path = tmp_path / "groups.toml"
    path.write_text(text)
    with pytest.raises(ExplanationError, match=says):
        own_subject(brought(folder, groups=path))


def test_thresholds_out_of_order_are_told(folder):
    with pytest.raises(ExplanationError, match="exchange them"):
        brought(folder, review_at=2.0, block_at=1.0)
