"""The manifests: valid by Kubernetes' schemas, read by the programs that read them, consistent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from flows.deployments import DeploymentPlan
from tests.infra.infra_files import (
    INFRA,
    ROOT,
    check_command,
    check_variables,
    documents,
    example_environment,
    pins,
    project_version,
)

FOLDER = INFRA / "kubernetes"
KUBERNETES = "1.34"  # the oldest that is asked about; newer ones are asked too
NEWEST = "1.37"
IMAGE = f"maskwheel:{project_version()}-cuda"


def kustomization() -> dict[str, Any]:
    return documents(FOLDER / "kustomization.yaml")[0]


def manifests() -> list[dict[str, Any]]:
    return [one for name in kustomization()["resources"] for one in documents(FOLDER / name)]


def of_kind(kind: str) -> list[dict[str, Any]]:
    found = [one for one in manifests() if one["kind"] == kind]
    assert found, kind
    return found


def ray_cluster() -> dict[str, Any]:
    (cluster,) = of_kind("RayCluster")
    return cluster


def pod_templates() -> dict[str, dict[str, Any]]:
    """Every template of pods, by a name for it."""
    found = {
        f"{one['kind']} {one['metadata']['name']}": one["spec"]["template"]
        for one in manifests()
        if one["kind"] in ("Deployment", "Job")
    }
    spec = ray_cluster()["spec"]
    found["Ray's head"] = spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        found[f"Ray's {group['groupName']}"] = group["template"]
    return found


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    spec = template["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def job_template() -> dict[str, Any]:
    found = json.loads((FOLDER / "gpu-job-template.json").read_text())
    assert isinstance(found, dict)
    return found


def validate(manifest: dict[str, Any]) -> None:
    for version in (KUBERNETES, NEWEST):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_yamllint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("yamllint"), "--strict"),
            *("--config-file", INFRA / "yamllint.yaml", FOLDER),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "manifest",
    [one for one in manifests() if one["kind"] != "RayCluster"],
    ids=lambda one: f"{one['kind']} {one['metadata']['name']}",
)
def test_a_manifest_is_valid_in_the_strict_sense(manifest: dict[str, Any]) -> None:
    validate(manifest)


def test_pods_of_ray_are_valid_too() -> None:
    for name, template in pod_templates().items():
        metadata = {**template["metadata"], "name": "pod"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        pod["spec"].pop("restartPolicy", None)
        assert name
        validate(pod)


def test_the_validator_finds_a_slip() -> None:
    manifest = of_kind("Deployment")[0]
    manifest["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(manifest)


def test_the_kustomization_has_every_file_and_makes_what_the_pods_name() -> None:
    described = kustomization()
    others = {"kustomization.yaml", "prefect-server-values.yaml", "prefect-worker-values.yaml"}
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert set(described["resources"]) == files - others
    assert described["generatorOptions"]["disableNameSuffixHash"] is True
    (image,) = described["images"]
    assert f"{image['newName']}:{image['newTag']}" == IMAGE
    configs = {one["name"]: one["envs"] for one in described["configMapGenerator"]}
    secrets = {one["name"]: one["envs"] for one in described["secretGenerator"]}
    for (name,) in secrets.values():
        assert (FOLDER / f"{name}.example").is_file()
        ignored = subprocess.run(
            ["git", "check-ignore", "-q", f"infra/kubernetes/{name}"], cwd=ROOT, check=False
        )
        assert ignored.returncode == 0, f"{name} has passwords, and git would take it"
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    for name, template in pod_templates().items():
        spec = template["spec"]
        for volume in spec["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims, name
        for container in containers(template):
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}, name
            assert container["image"] == image["name"]
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] in configs
                else:
                    assert source["secretRef"]["name"] in secrets
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    (file,) = secrets[reference["name"]]
                    assert reference["key"] in example_environment(FOLDER / f"{file}.example")


def test_settings_and_commands_are_those_of_the_code() -> None:
    settings = example_environment(FOLDER / "settings.env")
    secrets = example_environment(FOLDER / "secrets.env.example")
    check_variables([*settings, *secrets])
    for template in pod_templates().values():
        for container in containers(template):
            check_variables([variable["name"] for variable in container.get("env", ())])
            if "command" in container:
                check_command(container["command"])


def test_addresses_in_the_settings_lead_to_services_of_the_namespace() -> None:
    settings = example_environment(FOLDER / "settings.env")
    namespace = kustomization()["namespace"]
    assert of_kind("Namespace")[0]["metadata"]["name"] == namespace
    # KubeRay names the head's service after the cluster; the Helm chart has its own fixed name.
    cluster = ray_cluster()
    client = next(
        port["containerPort"]
        for port in cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
        if port["name"] == "client"
    )
    head = f"{cluster['metadata']['name']}-head-svc.{namespace}.svc.cluster.local:{client}"
    assert settings["MASKWHEEL_RAY_ADDRESS"] == f"ray://{head}"
    api = f"http://prefect-server.{namespace}.svc.cluster.local:4200/api"
    assert settings["PREFECT_API_URL"] == api
    worker = documents(FOLDER / "prefect-worker-values.yaml")[0]["worker"]
    assert worker["selfHostedServerApiConfig"]["apiUrl"] == api


def test_selectors_select_and_ports_have_names() -> None:
    labels = [template["metadata"]["labels"] for template in pod_templates().values()]

    def selects(wanted: dict[str, str]) -> bool:
        return any(wanted.items() <= one.items() for one in labels)

    (deployment,) = of_kind("Deployment")
    assert selects(deployment["spec"]["selector"]["matchLabels"])
    (service,) = of_kind("Service")
    assert selects(service["spec"]["selector"])
    for budget in of_kind("PodDisruptionBudget"):
        assert selects(budget["spec"]["selector"]["matchLabels"])
    for policy in of_kind("NetworkPolicy"):
        assert selects(policy["spec"]["podSelector"].get("matchLabels", {}))
    (ingress,) = of_kind("Ingress")
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["name"] == service["spec"]["ports"][0]["targetPort"]
    assert f"--port={container['ports'][0]['containerPort']}" in container["command"]
    assert f"--public-url=https://{rule['host']}" in container["command"]


def test_pods_run_without_rights_that_they_do_not_need() -> None:
    for name, template in pod_templates().items():
        spec = template["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 1000, "the image's"
        for container in containers(template):
            allowed = container["securityContext"]
            assert allowed["allowPrivilegeEscalation"] is False, name
            assert allowed["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name


def test_ray_has_the_version_of_the_clients_and_reads_its_cluster() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    cluster = ray_cluster()
    assert cluster["spec"]["rayVersion"] == pins()["ray"]
    cluster["metadata"]["namespace"] = kustomization()["namespace"]
    read = _derive_autoscaling_config_from_ray_cr(cluster)
    types = read["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0, "no tasks on the head"
    workers = types["gpu"]
    assert workers["resources"]["GPU"] == 1
    assert workers["resources"]["CPU"] == 8
    assert (workers["min_workers"], workers["max_workers"]) == (0, 8)
    assert read["idle_timeout_minutes"] == 10


def test_all_who_talk_to_ray_have_its_token() -> None:
    spec = ray_cluster()["spec"]
    secrets = {one["name"]: one["envs"] for one in kustomization()["secretGenerator"]}
    (file,) = secrets[spec["authOptions"]["secretName"]]
    assert "auth_token" in example_environment(FOLDER / f"{file}.example")
    settings = example_environment(FOLDER / "settings.env")
    assert settings["RAY_AUTH_MODE"] == spec["authOptions"]["mode"]
    job = job_of_a_run({})["spec"]["template"]["spec"]
    (mount,) = (one for one in job["containers"][0]["volumeMounts"] if one["name"] == "ray-token")
    (volume,) = (one for one in job["volumes"] if one["name"] == "ray-token")
    assert volume["secret"]["secretName"] == spec["authOptions"]["secretName"]
    assert settings["RAY_AUTH_TOKEN_PATH"] == f"{mount['mountPath']}/auth_token"


def test_a_drain_ends_one_ray_worker_at_a_time() -> None:
    (budget,) = of_kind("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    labels = pod_templates()["Ray's gpu"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_charts_have_the_prefect_of_the_image_and_our_pool_and_secrets() -> None:
    server = documents(FOLDER / "prefect-server-values.yaml")[0]
    worker = documents(FOLDER / "prefect-worker-values.yaml")[0]["worker"]
    tag = f"{pins()['prefect']}-python3.11"
    assert server["global"]["prefect"]["image"]["prefectTag"] == tag
    assert worker["image"]["prefectTag"] == f"{tag}-kubernetes"
    assert worker["config"]["workPool"] == DeploymentPlan(workspace="s3://bucket/data").pool
    assert worker["config"]["type"] == "kubernetes"
    check_variables([variable["name"] for variable in server["server"]["env"]])
    secrets = {one["name"] for one in kustomization()["secretGenerator"]}
    named = {
        server["server"]["basicAuth"]["existingSecret"],
        server["secret"]["name"],
        worker["selfHostedServerApiConfig"]["basicAuth"]["existingSecret"],
    }
    assert named <= secrets
    keys = example_environment(FOLDER / "prefect-secrets.env.example")
    assert set(keys) == {"auth-string", "connection-string"}, "what the charts look for"
    (volume,) = server["server"]["extraVolumes"]
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    assert volume["persistentVolumeClaim"]["claimName"] in claims


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_prefects_worker_makes_a_valid_job_of_the_template(gpus: int) -> None:
    job = job_of_a_run({"gpus": gpus})
    validate(job)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert container["image"] == IMAGE
    assert container["args"] == ["prefect", "flow-run", "execute"], "with no entrypoint before it"
    assert job["spec"]["backoffLimit"] == 0, "an evicted run is Prefect's to start again"
    settings = {source[kind]["name"] for source in container["envFrom"] for kind in source}
    described = kustomization()
    made = [*described["configMapGenerator"], *described["secretGenerator"]]
    assert settings <= {one["name"] for one in made}
    assert job["metadata"]["namespace"] == described["namespace"]


def test_variables_of_the_template_are_used_and_have_what_they_need() -> None:
    template = job_template()
    variables = template["variables"]["properties"]
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(variables)
    job = job_of_a_run(
        {
            "image": "registry.example.org/maskwheel:2",
            "node_selector": {"gpu": "h200"},
            "env": {"MASKWHEEL_WORKERS": "2"},
            "shared_memory": "8Gi",
        }
    )
    validate(job)
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert {"name": "MASKWHEEL_WORKERS", "value": "2"} in pod["containers"][0]["env"]
    (shared,) = (volume for volume in pod["volumes"] if volume["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}


def job_of_a_run(variables: dict[str, Any]) -> dict[str, Any]:
    """What Prefect's own worker would send to Kubernetes for a run with these variables."""
    from uuid import uuid4

    from prefect.client.schemas.objects import Flow, FlowRun
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import (  # type: ignore[import-untyped]
        KubernetesWorkerJobConfiguration,
    )

    template = job_template()
    properties = template["variables"]["properties"]
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    configuration = KubernetesWorkerJobConfiguration.model_validate(
        apply_values(template["job_configuration"], {**defaults, **variables})
    )
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="retrain on r3")
    configuration.prepare_for_flow_run(run, flow=Flow(id=run.flow_id, name="retrain", labels={}))
    # What Python's client sends on: plain JSON, without what is None.
    manifest = _without_nothing(json.loads(json.dumps(configuration.job_manifest)))
    assert isinstance(manifest, dict)
    # Prefect insists on two fields of a job in its pods' template, where Kubernetes drops them.
    for stray in ("completions", "parallelism"):
        assert manifest["spec"]["template"]["spec"].pop(stray) == 1
    return manifest


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nothing(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nothing(one) for one in value]
    return value


def test_lines_of_environment_files_are_pairs() -> None:
    for path in FOLDER.glob("*.env*"):
        for line in path.read_text().splitlines():
            name, equals, _ = line.partition("=")
            assert equals, path
            assert re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", name), (path, name)


def test_kustomize_builds_it(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl, whose kustomize would build it; the tests above read its input")
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for example in tmp_path.glob("*.example"):
        example.rename(example.with_suffix(""))
    done = subprocess.run(
        [kubectl, "kustomize", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    generated = {"ConfigMap": 1, "Secret": 3}
    assert len(built) == len(manifests()) + sum(generated.values())
    for manifest in built:
        if manifest["kind"] != "RayCluster":
            validate(manifest)
    assert set(re.findall(r"image: (\S+)", done.stdout)) == {IMAGE}
