"""A work pool for Kubernetes on a real server: Prefect takes our template, deploying keeps it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient

from flows.catalogue import FLOWS
from tests.infra.infra_files import INFRA, ROOT
from tests.prefect_server import PrefectServer

TEMPLATE = INFRA / "kubernetes" / "gpu-job-template.json"
POOL = "kubernetes-pool"


def run(server: PrefectServer, folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, **server.environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_runs_that_compute_get_a_gpu_and_the_pool_stays_as_it_was_made(
    prefect_server: PrefectServer, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    create = ("prefect", "work-pool", "create", POOL, "--type", "kubernetes")
    run(prefect_server, tmp_path, *create, "--base-job-template", str(TEMPLATE))
    made = prefect_client.read_work_pool(POOL)
    assert made.type == "kubernetes"
    assert made.base_job_template == json.loads(TEMPLATE.read_text())

    deploy = ("flows.cli", "deploy", "-w", "workspace", "--name", POOL, "--pool", POOL)
    run(prefect_server, tmp_path, *deploy, "--job-variable", "gpus=1")
    after = prefect_client.read_work_pool(POOL)
    assert (after.type, after.base_job_template) == (made.type, made.base_job_template)
    for entry in FLOWS.values():
        deployment = prefect_client.read_deployment_by_name(f"{entry.name}/{POOL}")
        assert deployment.work_pool_name == POOL
        assert deployment.job_variables.get("gpus", 0) == (entry.queue == "compute")
        assert deployment.entrypoint == entry.entrypoint
