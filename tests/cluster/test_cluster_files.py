"""Cluster files agree with the schemas that read them, with the jobs, and with each other."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import inspect
import itertools
import json
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml

from jobs import cli
from pipeline.cluster import WORKER_ENVIRONMENT
from pipeline.serving.settings import ServeSettings
from pipeline.settings import Settings, load_settings
from pipeline.training.codec.loop import CODEC
from tests.factories.s3 import s3_bucket

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
JOBS = (
    "ingest",
    "train-codec",
    "encode",
    "describe",
    "shard",
    "train",
    "export",
    "evaluate",
)
"""In the order in which the README submits them."""
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "schemas" / "kuberay"))
"""KubeRay's custom resource definitions, which are not part of this project."""
OUTSIDE = {"/data/corpora", "/data/qwen3-1.7b"}
"""What no job writes: recordings, and published weights."""
RAY = importlib.metadata.version("ray")


def test_the_lifecycle_rule_aborts_unfinished_uploads_of_the_whole_bucket_and_no_others() -> None:
    (rule,) = json.loads((CLUSTER / "s3-lifecycle.json").read_text(encoding="utf-8"))["Rules"]
    with s3_bucket("lifecycle") as uri:
        client, bucket = boto3.client("s3"), uri.removeprefix("s3://")
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
        )
        (found,) = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert found == rule
    assert set(rule) == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
    assert (rule["Status"], rule["Filter"]) == ("Enabled", {"Prefix": ""})


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


def submissions() -> dict[str, list[str]]:
    """Words after `audiocalm submit COMMAND` of every command that the README has in a row."""
    block = README[README.index("## Jobs in a row") :].split("```")[1].replace("\\\n", " ")
    lines = [shlex.split(line) for line in block.strip().splitlines()]
    assert all(line[:2] == ["audiocalm", "submit"] for line in lines)
    return {line[2]: line[3:] for line in lines}


def manifest(job: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The RayJob that `audiocalm submit --rayjob` prints of a command of the README."""
    words = ["submit", job, *submissions()[job], "--rayjob", "audiocalm"]
    assert cli.main(words) == 0
    return yaml.safe_load(capsys.readouterr().out)


def find(value: Any, key: str) -> list[Any]:
    """Every value under a key, at any depth."""
    if isinstance(value, list):
        return [hit for item in value for hit in find(item, key)]
    if not isinstance(value, dict):
        return []
    here = [value[key]] if key in value else []
    return here + [hit for item in value.values() for hit in find(item, key)]


@pytest.mark.parametrize("name", ["local.yaml", "ray-cluster.yaml"])
def test_launcher_files_follow_rays_own_schema(name: str) -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__path__[0]) / "ray-schema.json").read_text())
    config = load(name)
    jsonschema.validate(config, schema)
    if "head_node_type" in config:
        types = config["available_node_types"]
        assert config["head_node_type"] in types
        assert any(node["resources"].get("GPU") for node in types.values())


@pytest.mark.parametrize("name", ["serve.yaml", "jobs/configs"])
def test_serve_settings_resolve(name: str) -> None:
    if name == "serve.yaml":
        (application,) = load(name)["applications"]
        settings = [ServeSettings.model_validate(application["args"])]
    else:
        recipes = sorted((ROOT / name).glob("serve_*.yaml"))
        assert recipes
        settings = [load_settings(ServeSettings, recipe) for recipe in recipes]
    assert all(one.batch.max_batch > 1 for one in settings)


def test_serve_file_follows_rays_own_schema() -> None:
    from ray.serve.schema import ServeDeploySchema

    deploy = ServeDeploySchema.model_validate(load("serve.yaml"))
    (application,) = deploy.applications
    module, name = application.import_path.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_kubernetes_service_serves_the_same() -> None:
    service = load("rayservice.yaml")
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == load("serve.yaml")
    longest_s = load("serve.yaml")["http_options"]["request_timeout_s"]
    assert service["spec"]["rayClusterDeletionDelaySeconds"] >= longest_s
    (application,) = load("serve.yaml")["applications"]
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] == application["args"]["autoscale"]["max_replicas"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert float(limits["nvidia.com/gpu"]) >= application["args"]["gpus_per_replica"]
    assert float(limits["cpu"]) >= application["args"]["cpus_per_replica"]


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayservice.yaml"])
def test_kubernetes_clusters_are_whole(name: str) -> None:
    spec = load(name)["spec"]
    spec = spec.get("rayClusterConfig", spec)
    assert spec["rayVersion"] == RAY
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def strict(schema: Any) -> Any:
    """A definition's schema as JSON Schema that refuses unknown fields, as the API server does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {
        key: {name: strict(item) for name, item in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
    }
    is_open = schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and "additionalProperties" not in schema and not is_open:
        made["additionalProperties"] = False
    return made


@functools.cache
def definition(kind: str) -> jsonschema.Draft202012Validator:
    """Validator of a kind of resource; skips the test where the definitions are not there."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip("KubeRay's definitions are not here; KUBERAY_CRDS names their folder")
    # The pure loader takes half a minute for such a file.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    versions = yaml.load(path.read_text(), loader)["spec"]["versions"]
    (version,) = [item for item in versions if item["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def check_against_definition(resource: Any) -> None:
    """Validate a KubeRay resource."""
    definition(resource["kind"]).validate(resource)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayservice.yaml"])
def test_kubernetes_files_follow_kuberays_definitions(name: str) -> None:
    check_against_definition(load(name))


def test_a_misspelt_field_of_a_kubernetes_file_is_found() -> None:
    cluster = load("raycluster.yaml")
    cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]["tolerationz"] = []
    with pytest.raises(jsonschema.ValidationError, match="tolerationz"):
        check_against_definition(cluster)


def patched(resource: Any, operations: list[dict[str, Any]]) -> Any:
    """A resource after a JSON patch (RFC 6902), of whose operations overlays use three."""
    made = copy.deepcopy(resource)
    for operation in operations:
        *parents, last = operation["path"].removeprefix("/").split("/")
        at = made
        for word in parents:
            at = at[int(word)] if isinstance(at, list) else at[word]
        if operation["op"] == "test":
            assert at[last] == operation["value"], operation["path"]
            continue
        assert (last in at) == (operation["op"] == "replace"), operation["path"]
        at[last] = operation["value"]
    return made


def overlaid(cloud: str) -> dict[str, Any]:
    """The resources of an overlay by kind, as kustomize makes them."""
    overlay = load(f"{cloud}/kustomization.yaml")
    made = {kind["kind"]: kind for kind in (load(f"{cloud}/{at}") for at in overlay["resources"])}
    for patch in overlay["patches"]:
        target = made[patch["target"]["kind"]]
        assert target["metadata"]["name"] == patch["target"]["name"]
        made[target["kind"]] = patched(target, yaml.safe_load(patch["patch"]))
    return made


@pytest.mark.parametrize("cloud", ["eks", "gke"])
def test_an_overlay_of_a_cloud_gives_a_cluster_that_kuberay_takes(cloud: str) -> None:
    made = overlaid(cloud)
    check_against_definition(made["RayCluster"])
    assert made["PersistentVolumeClaim"]["spec"]["storageClassName"]
    base = load("raycluster.yaml")["spec"]["workerGroupSpecs"]
    groups = made["RayCluster"]["spec"]["workerGroupSpecs"]
    for group, plain in zip(groups, base, strict=True):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert ("nodeSelector" in pod) == has_gpu, "a pod with GPUs names their kind"
        is_spot = "spot" in str(pod.get("nodeSelector"))
        assert is_spot == (group["groupName"] == "encode"), "data stages alone may lose a node"
        gpus = plain["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus.get("nvidia.com/gpu")


def test_a_patch_of_another_group_is_found() -> None:
    base = load("raycluster.yaml")
    base["spec"]["workerGroupSpecs"].reverse()
    (patch, _) = load("gke/kustomization.yaml")["patches"]
    with pytest.raises(AssertionError, match="groupName"):
        patched(base, yaml.safe_load(patch["patch"]))


def test_every_pod_mounts_the_claim() -> None:
    claim = load("data.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("raycluster.yaml", "rayservice.yaml"):
        assert set(find(load(name), "claimName")) == {claim["metadata"]["name"]}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_a_rayjob_for_the_cluster(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = manifest(job, capsys)
    assert (made["apiVersion"], made["kind"]) == ("ray.io/v1", "RayJob")
    spec = made["spec"]
    name = load("raycluster.yaml")["metadata"]["name"]
    assert spec["clusterSelector"] == {"ray.io/cluster": name}
    # KubeRay refuses these next to a selected cluster; a retry (backoffLimit) would delete it.
    refused = {"rayClusterSpec", "suspend", "ttlSecondsAfterFinished", "backoffLimit"}
    assert not spec.keys() & refused
    words = shlex.split(spec["entrypoint"])
    assert words[:5] == ["exec", "python", "-m", "jobs.cli", job]
    image = re.search(r"^WORKDIR (\S+)$", (CLUSTER / "Containerfile").read_text(), re.MULTILINE)
    assert image
    for word, value in itertools.pairwise(words):
        if word == "--config":
            # Ray starts an entrypoint in no promised folder, so a recipe is named in full.
            assert (ROOT / Path(value).relative_to(image[1])).exists()
    check_against_definition(made)


def test_a_recipe_that_is_not_in_the_image_cannot_be_in_a_rayjob(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("unit_clips: 64")
    words = [*submissions()["ingest"], "--config", str(tmp_path / "mine.yaml")]
    assert cli.main(["submit", "ingest", *words, "--rayjob", "audiocalm"]) == 1
    assert "whose code is in the image" in capsys.readouterr().err


def own_words(job: str) -> list[str]:
    """Options of a command of the README without those of `submit`."""
    words = submissions()[job]
    if "--driver-cpus" in words:
        at = words.index("--driver-cpus")
        words = words[:at] + words[at + 2 :]
    return words


class Resolved(BaseException):
    """Raised in place of a job's work, with the settings it would have worked by."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings


def resolve(job: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that a job makes of its file's words, recipe included; None if it takes none."""

    def instead(schema: type[Settings], recipe: str | None, overrides: list[str]) -> None:
        raise Resolved(load_settings(schema, recipe and ROOT / recipe, overrides))

    def export(*_: object) -> None:
        raise Resolved(None)

    monkeypatch.setattr("pipeline.settings.load_settings", instead)
    monkeypatch.setattr("pipeline.training.export.export_run", export)
    words = own_words(job)
    with pytest.raises(Resolved) as caught:
        importlib.import_module(cli.module_of(job)).main(words)
    return caught.value.settings


@pytest.mark.parametrize("job", JOBS)
def test_every_job_file_resolves_to_settings_that_the_cluster_can_hold(
    job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = resolve(job, monkeypatch)
    groups = {
        group["groupName"]: group for group in load("raycluster.yaml")["spec"]["workerGroupSpecs"]
    }
    assert set(groups) == {"cpu", "encode", "train"}
    group = groups["train" if job in ("train", "train-codec") else "encode"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    (gpus_per_pod, cpus_per_pod) = int(limits["nvidia.com/gpu"]), float(limits["cpu"])
    if job in ("train", "train-codec"):
        used = settings.engine if job == "train" else settings.resources
        workers = used.num_workers
        assert used.use_gpu
        assert workers <= group["maxReplicas"] * gpus_per_pod
        assert used.cpus_per_worker * gpus_per_pod <= cpus_per_pod
    elif job == "encode":
        assert 0 < settings.resources.gpus <= gpus_per_pod
        assert settings.resources.cpus <= cpus_per_pod
        assert settings.resources.workers <= group["maxReplicas"] * gpus_per_pod
    elif job in ("export", "evaluate"):  # these compute where they are started
        container = groups["cpu"]["template"]["spec"]["containers"][0]
        words = submissions()[job]
        cpus = float(words[words.index("--driver-cpus") + 1])
        assert 0 < cpus <= float(container["resources"]["limits"]["cpu"])


def test_spot_nodes_are_for_data_stages_alone() -> None:
    for group in load("raycluster.yaml")["spec"]["workerGroupSpecs"]:
        keys = {item["key"] for item in group["template"]["spec"].get("tolerations", [])}
        has_gpu = "nvidia.com/gpu" in str(group["template"]["spec"]["containers"])
        assert ("nvidia.com/gpu" in keys) == has_gpu
        assert ("karpenter.sh/capacity-type" in keys) == (group["groupName"] != "train")


def test_every_pod_gets_the_secrets() -> None:
    spec = load("raycluster.yaml")["spec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        (source,) = container["envFrom"]
        assert source["secretRef"] == {"name": "audiocalm-secrets", "optional": True}


def test_every_job_reads_what_an_earlier_one_wrote() -> None:
    written = set(OUTSIDE)
    for job in JOBS:
        words = own_words(job)
        named = {word: words[at + 1] for at, word in enumerate(words) if word.startswith("--")}
        output = named.pop("--output")
        read = {re.sub(r"^[\w.]+=", "", path) for path in words if "/data/" in path} - {output}
        if job == "evaluate":
            read.remove(named["--data"])
            read |= {f"{named['--data']}/clips", f"{named['--data']}/descriptions"}
        assert read
        assert read <= written, job
        written.add(f"{output}/{CODEC}" if job == "train-codec" else output)
    (application,) = load("serve.yaml")["applications"]
    assert application["args"]["bundle"] in written


def test_the_jobs_in_a_row_are_whole() -> None:
    assert tuple(submissions()) == JOBS


def test_a_job_sets_only_the_time_for_its_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ray refuses a job whose environment and whose `ray.init` set the same variable."""
    from ray.dashboard.modules.job import job_supervisor

    (name,) = load("runtime-env.yaml")["env_vars"]
    assert name not in WORKER_ENVIRONMENT
    assert f'"{name}"' in inspect.getsource(job_supervisor), "Ray reads this variable"
    environments = [load("runtime-env.yaml")]
    environments += [
        yaml.safe_load(manifest(job, capsys)["spec"]["runtimeEnvYAML"])
        for job in ("train", "train-codec")
    ]
    for environment in environments:
        assert set(environment["env_vars"]) == {name}
        assert int(environment["env_vars"][name]) >= 600


def test_the_runtime_environment_is_one_that_ray_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    values = load("runtime-env.yaml")
    assert RuntimeEnv(**values).to_dict().keys() >= values.keys()


def test_one_image_and_one_ray_version() -> None:
    files = [load(path.name) for path in CLUSTER.glob("*.yaml")]
    images = {image for file in files for image in find(file, "image")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert images == {f"{project['name']}:{project['version']}-ray{RAY}"}
    assert set(find(files, "rayVersion")) == {RAY}
    assert f"ray=={RAY}\n" in (ROOT / "requirements.lock").read_text()
    assert any(re.match(r"ray\[.*\]", name) for name in project["dependencies"])
    assert next(iter(images)) in (CLUSTER / "Containerfile").read_text()


def test_the_image_is_locked_and_not_root() -> None:
    lines = (CLUSTER / "Containerfile").read_text().splitlines()
    assert any(re.fullmatch(r"FROM \S*python:3\.11-slim", line) for line in lines)
    assert any("--requirement requirements.lock" in line for line in lines)
    users = [line for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("USER 0", "USER root")
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert {"model", "pipeline", "jobs"} <= set(copied)


def test_nothing_names_a_registry_or_a_secret() -> None:
    for path in filter(Path.is_file, CLUSTER.rglob("*")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(token|password|secret)\s*[:=]\s*\S{8,}", text, re.IGNORECASE)
        assert not re.search(r"https?://(?!127\.0\.0\.1|HEAD)", text), path.name
