"""The Compose files: valid by the specification's schema, complete, and true to the code."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from flows.catalogue import FLOWS
from flows.deployments import DeploymentPlan
from tests.infra.infra_files import (
    INFRA,
    ROOT,
    check_command,
    check_variables,
    compose,
    example_environment,
    project_version,
)

FILES = ("compose.yaml", "compose.replicas.yaml")
# Images of others; those of ours are asked about below.
FOREIGN = {"postgres", "s3", "redis"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return example_environment()


@pytest.fixture(scope="module", params=[FILES[:1], FILES], ids=["alone", "with replicas"])
def project(request: pytest.FixtureRequest, environment: dict[str, str]) -> dict[str, Any]:
    return compose(*request.param, environment=environment)


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = project["services"]
    return found


def test_the_specifications_schema_and_yamllint_have_nothing_to_say() -> None:
    programs = Path(sys.executable).parent
    paths = [str(INFRA / name) for name in FILES]
    for program, *options in (
        ("check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
        ("yamllint", "--strict", "--config-file", str(INFRA / "yamllint.yaml")),
    ):
        command = [str(programs / program), *options, *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_has_every_variable_and_git_ignores_the_real_file() -> None:
    text = "".join((INFRA / name).read_text() for name in FILES)
    example = set(example_environment())
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used - example <= {"MASKWHEEL_IMAGE", "MASKWHEEL_CUDA_IMAGE"}
    assert example - used == {"COMPOSE_PROFILES"}
    required = set(re.findall(r"\$\{(\w+):\?", text))
    empty = {
        line.partition("=")[0]
        for line in (INFRA / ".env.example").read_text().splitlines()
        if line.endswith("=") and not line.startswith("#")
    }
    assert empty <= required, "a password with a default"
    done = subprocess.run(["git", "check-ignore", "-q", "infra/.env"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_no_image_floats_and_ours_have_this_version(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        image, _, tag = service["image"].rpartition(":")
        if name in FOREIGN:
            assert re.match(r"\d+\.\d+", tag), service["image"]
        else:
            assert image == "maskwheel"
            assert tag in (f"{project_version()}-cpu", f"{project_version()}-cuda")


def test_the_gpu_worker_has_the_image_with_cuda(services: dict[str, dict[str, Any]]) -> None:
    worker = services["worker-gpu"]
    assert worker["image"].endswith("-cuda")
    assert worker["build"]["args"]["TORCH_INDEX"] == "https://pypi.org/simple"
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert {tuple(services[name]["profiles"]) for name in ("worker-compute", "worker-gpu")} == {
        ("cpu",),
        ("gpu",),
    }


def test_every_service_says_whether_it_is_well(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        health = service["healthcheck"]
        assert health.get("disable") or health["test"][0] == "CMD", name


def test_what_a_service_waits_for_can_come_about(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert not services[other]["healthcheck"].get("disable"), (name, other)
            else:
                assert services[other]["restart"].startswith("on-failure"), (name, other)


def test_volumes_are_declared_and_used(project: dict[str, Any]) -> None:
    mounts = [
        mount.split(":")[0]
        for service in project["services"].values()
        for mount in service.get("volumes", ())
    ]
    named = {mount for mount in mounts if not mount.startswith((".", "/"))}
    assert named == set(project["volumes"])
    for mount in mounts:
        if mount.startswith("./postgres"):
            assert (INFRA / mount).is_file()


def test_commands_and_variables_are_those_of_the_code(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        check_variables(service.get("environment", {}))
        if name not in FOREIGN:
            check_command(service["command"])


def test_addresses_lead_to_services_and_their_ports(services: dict[str, dict[str, Any]]) -> None:
    ports = {"postgres": 5432, "s3": 8333, "prefect-server": 4200, "redis": 6379}
    found = set()
    for service in services.values():
        for value in service.get("environment", {}).values():
            for host, port in re.findall(r"(?:@|//)([a-z][a-z0-9-]*):(\d+)", str(value)):
                assert ports[host] == int(port)
                found.add(host)
    assert found >= {"postgres", "s3", "prefect-server"}
    command = services["prefect-server"]["command"]
    assert command[command.index("--port") + 1] == str(ports["prefect-server"])


def test_the_store_makes_the_bucket_of_the_workspace(services: dict[str, dict[str, Any]]) -> None:
    workspace = services["annotation"]["environment"]["MASKWHEEL_WORKSPACE"]
    (option,) = (word for word in services["s3"]["command"] if word.startswith("-bucket="))
    assert workspace.startswith(f"s3://{option.partition('=')[2]}/")


def test_between_them_the_workers_take_every_queue_of_the_pool(
    services: dict[str, dict[str, Any]],
) -> None:
    plan = DeploymentPlan(workspace="s3://bucket/data")
    taken: dict[str, set[str]] = {"cpu": set(), "gpu": set()}
    for service in services.values():
        command = service.get("command", ())
        if "worker" not in command:
            continue
        assert command[command.index("--pool") + 1] == plan.pool
        queue = command[command.index("--work-queue") + 1]
        for profile in service.get("profiles", taken):
            taken[profile].add(queue)
    queues = {entry.queue for entry in FLOWS.values()}
    assert taken == {"cpu": queues, "gpu": queues}


def test_only_what_people_open_is_reached_from_outside(
    services: dict[str, dict[str, Any]], environment: dict[str, str]
) -> None:
    open_to_people = {name for name, service in services.items() if service.get("ports")}
    assert open_to_people == {"annotation", "prefect-server"}
    for name in open_to_people:
        (port,) = services[name]["ports"]
        assert port.startswith("127.0.0.1:"), "by default, from this machine only"
    assert environment["LISTEN"] == "127.0.0.1"


def test_several_servers_share_redis_and_only_one_place_runs_the_services(
    environment: dict[str, str],
) -> None:
    services = compose(*FILES, environment=environment)["services"]
    assert "--no-services" in services["prefect-server"]["command"]
    shared = {
        name: value
        for name, value in services["prefect-services"]["environment"].items()
        if "redis" in str(value)
    }
    assert len(shared) == 8
    for name, value in shared.items():
        assert services["prefect-server"]["environment"][name] == value
    for value in shared.values():
        if value.startswith("prefect_redis."):
            import_module(value)
