"""Where models lie: folders, bundles, the registry; and what is not served, with the reason."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from connectors.api.problem import Problem
from connectors.model_server.addresses import parse_address, parse_addresses
from connectors.model_server.batching import BatchConfig
from connectors.model_server.metrics import ModelMetrics
from connectors.model_server.onnx_model import ModelFileError, OnnxModel
from connectors.model_server.repository import Repository
from connectors.model_server.sources import SourceError, open_source
from infra.errors import ConfigurationError
from tests.onnx_files import dense, model, put, scaled


def found(address, uri=""):
    return list(open_source(parse_address(str(address)), uri).load())


def repository(*addresses, uri=""):
    made = Repository(
        [open_source(parse_address(str(address)), uri) for address in addresses],
        BatchConfig(),
        ModelMetrics(),
        ThreadPoolExecutor(1),
        threads=1,
        concurrency=1,
    )
    made.start()
    return made


def factor(version):
    made = version.model.run({"x": np.ones((1, 4), np.float32)})
    return made["y"][0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/fraud-bank@champion", ("fraud-bank", "fraud-bank", "champion", "")),
        ("models:/fraud-bank", ("fraud-bank", "fraud-bank", "champion", "")),
        ("f=models:/fraud-bank/7", ("f", "fraud-bank", "", "7")),
    ],
)
def test_addresses_of_the_registry(text, expected):
    address = parse_address(text)
    assert (address.name, address.model, address.alias, address.version) == expected
    assert address.path is None


def test_addresses_of_folders():
    first, second = parse_addresses("a=/srv/a=b#heads/both.onnx, models")
    assert (first.name, str(first.path), first.file) == ("a", "/srv/a=b", "heads/both.onnx")
    assert (second.name, str(second.path)) == ("", "models")


@pytest.mark.parametrize(
    "text", ["", " , ", "models:/", "models:/a/x", "models:/a@", "models:/a b@c", "=x", "a b=x"]
)
def test_addresses_that_say_nothing_are_refused(text):
    with pytest.raises(ConfigurationError):
        parse_addresses(text)


def test_a_folder_holds_models_and_versions(tmp_path):
    for number in (1, 2, 10):
        put(tmp_path, "scaled", number, scaled(number))
    (tmp_path / "other.onnx").write_bytes(scaled(5))
    (tmp_path / "notes").mkdir()
    served = repository(tmp_path)
    assert served.names() == ["other", "scaled"]
    assert served.versions("scaled") == ["1", "2", "10"]
    assert factor(served.find("scaled")) == 10
    assert factor(served.find("scaled", "2")) == 2
    assert factor(served.find("other", "1")) == 5
    for name, version in (("nosuch", ""), ("scaled", "3"), ("scaled", "champion")):
        with pytest.raises(Problem) as problem:
            served.find(name, version)
        assert problem.value.status == 404


def test_a_file_and_one_models_folder(tmp_path):
    path = put(tmp_path, "scaled", 3, scaled(3))
    assert [(one.name, one.version) for one in found(path)] == [("model", "1")]
    assert [(one.name, one.version) for one in found(f"s={path}")] == [("s", "1")]
    assert [(one.name, one.version) for one in found(tmp_path / "scaled")] == [("scaled", "3")]


def test_folders_that_cannot_be_served_say_why(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        found(tmp_path / "nosuch")
    with pytest.raises(SourceError, match="holds no NAME/VERSION"):
        found(tmp_path)
    put(tmp_path, "a", 1, scaled(1))
    put(tmp_path, "b", 1, scaled(1))
    with pytest.raises(SourceError, match="cannot all be called x"):
        found(f"x={tmp_path}")
    put(tmp_path, "odd name", 1, scaled(1))
    with pytest.raises(SourceError, match="'odd name' cannot be the name"):
        found(tmp_path)
    with pytest.raises(ConfigurationError, match="from another address, too"):
        repository(f"m={put(tmp_path, 'a', 1, scaled(1))}", f"m={put(tmp_path, 'b', 1, scaled(2))}")


def external() -> bytes:
    tensor = helper.make_tensor("factor", TensorProto.FLOAT, [], [2.0])
    del tensor.float_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    ends = [("x", "FP32", ["n"])], [("y", "FP32", ["n"])]
    return model([node], *ends, [tensor])


def foreign() -> bytes:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return model([node], [("x", "FP32", ["n"])], [("y", "FP32", ["n"])], opsets=opsets)


def of_sequences() -> bytes:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    made = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no whole ONNX file"),
        (b"not an onnx file at all", "ONNX file"),
        (scaled(2.0)[:-9], "ends early"),
        (external(), "weights in another file"),
        (foreign(), "com.microsoft"),
        (of_sequences(), "no datatype"),
        (
            model(
                [helper.make_node("NoSuchOperator", ["x"], ["y"])],
                [("x", "FP32", ["n"])],
                [("y", "FP32", ["n"])],
            ),
            "ONNX Runtime does not open",
        ),
    ],
    ids=["empty", "text", "cut", "external", "foreign", "sequence", "unknown operator"],
)
def test_files_that_must_not_or_cannot_be_run(content, said):
    with pytest.raises(ModelFileError, match=said):
        OnnxModel(content, "m")


def test_a_folder_moves_whole_or_not_at_all(tmp_path):
    async def run():
        served = repository(tmp_path)
        old = served.find("scaled")
        assert await served.reload() is False
        put(tmp_path, "scaled", 2, scaled(2)[:-5])
        assert await served.reload() is False
        assert "ends early" in served.troubles()[0]
        assert served.find("scaled") is old
        put(tmp_path, "scaled", 2, scaled(2))
        put(tmp_path, "more", 1, dense((4, 4)))
        assert await served.reload() is True
        assert served.troubles() == []
        assert served.names() == ["more", "scaled"]
        assert served.find("scaled", "1") is old
        assert factor(served.find("scaled")) == 2
        (tmp_path / "scaled" / "2" / "model.onnx").unlink()
        assert await served.reload() is True
        assert served.find("scaled") is old

    put(tmp_path, "scaled", 1, scaled(1))
    asyncio.run(run())


def test_fraud_models_of_a_folder_and_of_the_registry(small_bundle, mlflow_uri, tmp_path):
    from connectors.fraud_models import fraud_registry
    from tasks.fraud.dataset import DatasetConfig, EntityColumn

    config = DatasetConfig("served", "time", "amount", (EntityColumn("card"),), label="fraud")
    bundle = small_bundle(tmp_path / "b", config=config)
    rows = bundle.example()[0]["features"]
    registry = fraud_registry(mlflow_uri)
    versions = [registry.publish(bundle)]
    other = small_bundle(tmp_path / "other", active=(0, 1, 0, 0), config=config)
    versions.append(registry.publish(other))
    name = versions[0].name
    registry.set_alias(name, "champion", versions[0].version)

    async def run():
        served = repository(tmp_path / "b", f"models:/{name}", uri=mlflow_uri)
        assert served.names() == ["b", "b.logistic", name, f"{name}.logistic"]
        one = served.find(name)
        (output,) = one.model.outputs
        for each in (one, served.find("b"), served.find(name, "champion")):
            got = each.model.run({"features": rows})[output]
            np.testing.assert_allclose(got.ravel(), bundle.score(rows), atol=1e-6)
        assert (one.version, one.together) == (versions[0].version, True)
        assert await served.reload() is False
        registry.set_alias(name, "champion", versions[1].version)
        assert await served.reload() is True
        moved = served.find(name)
        got = moved.model.run({"features": rows})[output]
        np.testing.assert_allclose(got.ravel(), other.score(rows), atol=1e-6)
        assert served.versions(name) == [versions[1].version]
        registry.drop_alias(name, "champion")
        assert await served.reload() is False
        assert "has no champion" in served.troubles()[0]
        assert served.find(name) is moved

    asyncio.run(run())
    manifest = tmp_path / "b" / "heads" / "tabular.onnx"
    manifest.write_bytes(manifest.read_bytes() + b"x")
    with pytest.raises(SourceError, match=r"tabular\.onnx"):
        found(tmp_path / "b")


def test_defect_models_are_served_by_their_edge_file(tmp_path):
    from tasks.defects.bundle.bundle import write_bundle
    from tests.tasks.defects.bright import parts, plate

    bundle = write_bundle(tmp_path / "line", parts(1.0, dataset="line"))
    served = repository(bundle.folder)
    assert served.names() == ["line"]
    model = served.find("line").model
    (fed,) = model.inputs
    image = np.repeat(plate(5, 220)[:, :, None], 3, axis=2)
    spec = model.inputs[fed]
    assert spec.datatype == "UINT8"
    feeds = {fed: image if len(spec.shape) == 3 else image[None]}
    model.check(feeds, ())
    assert model.run(feeds).keys() == model.outputs.keys()


def test_plain_onnx_models_of_the_registry(mlflow_uri, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
    client.create_registered_model("plain")
    experiment = client.create_experiment("plain", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment)
    (tmp_path / "model.onnx").write_bytes(scaled(7))
    client.log_artifact(run.info.run_id, str(tmp_path / "model.onnx"), "exported")
    source = f"{run.info.artifact_uri}/exported"
    made = client.create_model_version("plain", source, run.info.run_id)
    served = repository(f"seven=models:/plain/{made.version}", uri=mlflow_uri)
    assert factor(served.find("seven", str(made.version))) == 7
    with pytest.raises(SourceError, match="no version 99"):
        found("models:/plain/99", mlflow_uri)
    with pytest.raises(SourceError, match=r"there is no heads/x\.onnx"):
        found(f"models:/plain/{made.version}#heads/x.onnx", mlflow_uri)
    with pytest.raises(SourceError, match="nosuch has no champion"):
        found("models:/nosuch", mlflow_uri)
