"""The Kubernetes manifests, offline: the operator's schema, our own settings, and each other."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from connectors.api.settings import ApiSettings
from connectors.flink.spec import StreamSpec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "k8s"
DOCKERFILE = ROOT / "infra" / "docker" / "stream.Dockerfile"
SCHEMA = ROOT / "tests" / "golden" / "k8s" / "flinkdeployment.schema.yaml"
# What operators after 1.10 take beside the schema's own: 1.11, 1.13, 1.14 and 1.16.
NEWER_FLINK = ["v2_0", "v2_1", "v2_2", "v2_3"]
PYTHON = "/opt/penstock/.venv/bin/python"


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """Every document that kustomize would apply, by kind and name."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    found = [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((FOLDER / name).read_text())
    ]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def strict(schema: Any) -> Any:
    """The schema, refusing what Kubernetes would silently drop."""
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and schema.get("type") == "object":
        made["additionalProperties"] = False
    return made


def deployment_schema() -> dict[str, Any]:
    schema = strict(yaml.safe_load(SCHEMA.read_text()))
    schema["properties"] |= {key: {} for key in ("apiVersion", "kind", "metadata")}
    schema["properties"]["spec"]["properties"]["flinkVersion"]["enum"] += NEWER_FLINK
    return schema


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    return manifests()


@pytest.fixture(scope="module")
def flink(objects) -> dict[str, Any]:
    return objects["FlinkDeployment", "penstock-stream"]


def pod_specs(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    named = {}
    for (kind, name), each in objects.items():
        if kind == "FlinkDeployment":
            named[name] = each["spec"]["podTemplate"]["spec"]
        elif kind in {"Deployment", "StatefulSet"}:
            named[name] = each["spec"]["template"]["spec"]
    return named


def container(objects, kind: str, name: str) -> dict[str, Any]:
    return objects[kind, name]["spec"]["template"]["spec"]["containers"][0]


def variables(given: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in given["env"]}


def test_the_flink_deployment_fits_the_operators_schema(flink):
    jsonschema.validate(flink, deployment_schema())
    assert flink["apiVersion"] == "flink.apache.org/v1beta1"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "flinkVersion"), "v2_9"),
        (("spec", "job", "upgradeMode"), "save-point"),
        (("spec", "job", "jarUri"), "local:///x"),
        (("spec", "job", "parallelism"), "4"),
        (("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"), 2),
    ],
)
def test_the_schema_refuses_mistakes(flink, place, value):
    broken = json.loads(json.dumps(flink))
    node = broken
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, deployment_schema())


def test_the_job_is_started_by_the_entry_point_of_everything_else(flink):
    job = flink["spec"]["job"]
    assert job["entryClass"] == "org.apache.flink.client.python.PythonDriver"
    assert job["args"][:2] == ["-pym", "connectors.flink.submit"]
    assert (ROOT / "connectors" / "flink" / "submit.py").is_file()
    assert job["upgradeMode"] == "savepoint"
    options = flink["spec"]["flinkConfiguration"]
    assert options["state.backend.type"] == "rocksdb"
    assert options["high-availability.type"] == "kubernetes"
    assert options["python.executable"] == options["python.client.executable"] == PYTHON


def test_versions_agree(flink):
    version = re.search(r'"apache-flink==([\d.]+)"', (ROOT / "pyproject.toml").read_text()).group(1)
    assert flink["spec"]["flinkVersion"] == "v" + "_".join(version.split(".")[:2])
    assert flink["spec"]["job"]["jarURI"].endswith(f"/flink-python-{version}.jar")
    recipe = DOCKERFILE.read_text()
    assert f"FROM flink:{version}-java17" in recipe
    assert f"flink-python-{version}.jar" in recipe
    uv = re.search(r"^uv==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group(1)
    assert f"uv:{uv} " in recipe


def test_everything_runs_the_one_image(objects, flink):
    images = {flink["spec"]["image"]} | {
        each["image"]
        for pod in pod_specs(objects).values()
        for each in pod["containers"]
        if "image" in each
    }
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert images == {f"penstock-stream:{version}"}


def test_the_dockerfile_copies_what_there_is():
    recipe = DOCKERFILE.read_text()
    copies = re.findall(r"^COPY (?!--from)(.+)$", recipe, re.MULTILINE)
    sources = {word for line in copies for word in line.split()[:-1]}
    assert all((ROOT / word).exists() for word in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= sources
    assert recipe.rstrip().endswith("USER 9999:9999")
    assert stat.S_IXUSR & (ROOT / "infra" / "jars" / "build.sh").stat().st_mode


def test_the_spec_in_the_config_map_is_a_stream(flink):
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    generator = kustomization["configMapGenerator"][0]
    spec = StreamSpec.load(FOLDER / generator["files"][0])
    assert spec.target == "application"
    assert spec.parallelism == flink["spec"]["job"]["parallelism"]
    pod = flink["spec"]["podTemplate"]["spec"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["spec"]["configMap"]["name"] == generator["name"]
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert flink["spec"]["job"]["args"][2] == f"{mounts['spec']}/{generator['files'][0]}"
    assert spec.models == mounts["models"]
    options = flink["spec"]["flinkConfiguration"]
    for key in ("dir", "savepoint-dir"):
        assert options[f"execution.checkpointing.{key}"].startswith(f"file://{mounts['state']}/")
    assert options["high-availability.storageDir"].startswith(f"file://{mounts['state']}/")
    assert pod["containers"][0]["name"] == "flink-main-container"


def test_the_api_is_set_up_by_settings_it_has(objects, tmp_path):
    given = variables(container(objects, "StatefulSet", "penstock-api"))
    known = {f"PENSTOCK_API_{name.upper()}" for name in ApiSettings.model_fields}
    assert set(given) - known == {"PENSTOCK_HOME"}
    for name in ("tls.crt", "tls.key", "tokens"):
        (tmp_path / name).touch()
    values = {
        name.removeprefix("PENSTOCK_API_").lower(): value
        for name, value in given.items()
        if name != "PENSTOCK_HOME" and value is not None
    }
    for field in ("tls_certificate", "tls_key", "tokens_file"):
        values[field] = tmp_path / Path(values[field]).name
    settings = ApiSettings(**values)
    spec = StreamSpec.load(FOLDER / "stream.json")
    assert settings.mode == "stream"
    assert settings.model == spec.model_folder
    assert (settings.kafka, settings.kafka_prefix) == (spec.kafka, spec.prefix)


def test_the_api_answers_probes_and_its_service(objects):
    api = container(objects, "StatefulSet", "penstock-api")
    port = api["ports"][0]
    assert str(port["containerPort"]) == variables(api)["PENSTOCK_API_PORT"]
    paths = {name: api[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/health/live", "readinessProbe": "/health/ready"}
    assert {api[name]["httpGet"]["scheme"] for name in paths} == {"HTTPS"}
    service = objects["Service", "penstock-api"]["spec"]
    assert service["ports"][0]["targetPort"] == port["name"]
    labels = objects["StatefulSet", "penstock-api"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_the_store_writer_serves_the_same_stream(objects):
    writer = container(objects, "Deployment", "penstock-store-writer")
    spec = StreamSpec.load(FOLDER / "stream.json")
    assert writer["command"] == [PYTHON, "-m", "connectors.online_store.writer"]
    given = variables(writer)
    assert (given["PENSTOCK_STREAM"], given["PENSTOCK_KAFKA_SERVERS"]) == (spec.name, spec.kafka)
    for name, page in (("livenessProbe", "live"), ("readinessProbe", "ready")):
        script = writer[name]["exec"]["command"][2]
        compile(script, name, "exec")
        assert f"127.0.0.1:8002/health/{page}" in script


def test_writer_and_api_take_the_store_from_one_secret(objects):
    places = []
    for kind, name, variable in (
        ("Deployment", "penstock-store-writer", "PENSTOCK_STORE_URL"),
        ("StatefulSet", "penstock-api", "PENSTOCK_API_STORE"),
    ):
        env = {each["name"]: each for each in container(objects, kind, name)["env"]}
        places.append(env[variable]["valueFrom"]["secretKeyRef"])
    assert places[0] == places[1]


def test_no_secret_lies_in_a_manifest(objects):
    assert all(kind != "Secret" for kind, _ in objects)
    text = "".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    assert not re.search(r"redis://\S+@|sha256=[0-9a-f]{8}", text)


def test_every_pod_runs_without_rights(objects):
    pods = pod_specs(objects)
    assert len(pods) == 3
    for name, pod in pods.items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 9999, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        # Service variables such as PENSTOCK_API_PORT=tcp://... would break our settings.
        assert pod["enableServiceLinks"] is False, name
        for each in pod["containers"]:
            rights = each["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name


def test_every_claim_a_pod_mounts_is_made(objects):
    made = {name for kind, name in objects if kind == "PersistentVolumeClaim"}
    wanted = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pod_specs(objects).values()
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert wanted == made


def test_every_container_has_limits(objects, flink):
    for kind, name in (("StatefulSet", "penstock-api"), ("Deployment", "penstock-store-writer")):
        resources = container(objects, kind, name)["resources"]
        assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    for part in ("jobManager", "taskManager"):
        assert set(flink["spec"][part]["resource"]) == {"cpu", "memory"}
