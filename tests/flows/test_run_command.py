"""`maskwheel run`: any flow by its name, with parameters that are checked before it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from engine.errors import BadInputError
from flows.catalogue import FLOWS
from flows.cli import cli as maskwheel
from flows.parameters import load_flow, parameters_of, read_parameters
from tests.annotation.simulated_photos import write_photos
from tests.flows.conftest import Cli


def test_the_flows_are_listed_without_importing_prefect() -> None:
    code = (
        "import sys, flows.cli\n"
        "try: flows.cli.cli(['run'])\n"
        "except SystemExit: pass\n"
        "sys.exit('imported Prefect' if {'prefect', 'torch'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in FLOWS:
        assert name in done.stdout


def test_what_a_flow_can_be_told_is_listed_with_what_it_means() -> None:
    answer = CliRunner().invoke(maskwheel, ["run", "semi-automatic", "--parameters", "--json"])
    listed = {one["name"]: one for one in json.loads(answer.output)["parameters"]}
    assert listed["workspace"]["required"]
    assert listed["proposer"]["default"] == '"train"'
    assert listed["seed"]["kind"] == "int"
    undocumented = [
        f"{name}: {one.name}"
        for name in ("ingest", "assisted-manual", "semi-automatic", "publish-annotations")
        for one in parameters_of(load_flow(name))
        if not one.doc
    ]
    assert not undocumented
    text = CliRunner().invoke(maskwheel, ["run", "ingest", "--parameters"]).output
    assert "files, folders, globs" in text


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ("images=200", "images", 200),
        ("images=null", "images", None),
        ("campaign=7", "campaign", "7"),
        ("campaign=null", "campaign", None),
        ('campaign="null"', "campaign", "null"),
        ("annotators-per-image=2", "annotators_per_image", 2),
        ("review=true", "review", True),
        ("review=yes", "review", True),
        ("instructions=All birds = all", "instructions", "All birds = all"),
    ],
)
def test_a_value_is_json_where_the_parameter_takes_it_and_else_text(
    given: str, name: str, value: object
) -> None:
    values = read_parameters(load_flow("assisted-manual"), [given], {"workspace": "w"})
    assert values == {"workspace": "w", name: value}


def test_lists_are_given_as_json_as_one_text_or_several_times() -> None:
    flow = load_flow("ingest")
    for given, photos in (
        (["photos=a"], ["a"]),
        (["photos=a", "photos=b"], ["a", "b"]),
        (['photos=["a", "b"]'], ["a", "b"]),
    ):
        assert read_parameters(flow, given, {"workspace": "w"})["photos"] == photos


@pytest.mark.parametrize(
    ("flow", "given", "message"),
    [
        ("ingest", ["photo=a"], r"no parameter 'photo'; did you mean photos\? It takes photos, w"),
        ("ingest", [], r"needs photos; give it as -p photos="),
        ("ingest", ["photos"], "expected name=value"),
        ("assisted-manual", ["images=many"], "images of the flow assisted-manual got 'many'"),
        ("assisted-manual", ["order=best"], "'listed', 'random'"),
        ("assisted-manual", ["seed=1", "seed=2"], "got '1' and '2'"),
    ],
)
def test_what_a_flow_cannot_take_is_said_with_what_it_can(
    flow: str, given: list[str], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        read_parameters(load_flow(flow), given, {"workspace": "w"})


def test_an_unknown_flow_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadInputError, match="did you mean retrain"):
        load_flow("retrian")
    with pytest.raises(BadInputError, match="expected one of ingest, "):
        load_flow("x")


def test_a_flow_runs_here_and_goes_on_when_it_is_run_again(cli: Cli, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    photos = f"photos={tmp_path / 'photos' / 'images'}"
    workspace = tmp_path / "workspace"
    first = cli.json("run", "ingest", "-p", photos, "-w", workspace)
    assert first["flow"] == "ingest"
    assert (first["result"]["images"], first["result"]["new"]) == (2, 2)
    again = cli.run("run", "ingest", "-p", photos, "-w", workspace)
    assert again.returncode == 0, again.stderr
    assert "new         0" in again.stdout
    wrong = cli.run("run", "ingest", "-p", f"photos={tmp_path / 'nowhere'}", "-w", workspace)
    assert wrong.returncode == 3
    assert "nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_workers_of_a_server_are_asked_and_the_run_is_named(cli: Cli, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 1)
    workspace = tmp_path / "workspace"
    missing = cli.run("run", "ingest", "-p", "photos=photos", "-w", workspace, "--deployment")
    assert missing.returncode == 3
    assert "maskwheel deploy" in missing.stderr
    deployed = cli.run("deploy", "-w", workspace, "--name", "asked")
    assert deployed.returncode == 0, deployed.stderr
    command = ["run", "ingest", "-p", "photos=photos", "-w", str(workspace)]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command, "--deployment", "--json"],
        env=cli.environment,
        cwd=tmp_path,  # the worker has another one
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    asked = json.loads(done.stdout)
    assert asked["deployment"] == "ingest/asked"
    assert asked["run"] in asked["url"]
    url = f"{cli.environment['PREFECT_API_URL']}/flow_runs/{asked['run']}"
    run = httpx.get(url, trust_env=False).raise_for_status().json()
    assert run["parameters"] == {
        "photos": [str(tmp_path / "photos")],
        "workspace": str(workspace),
    }
    text = cli.run("run", "maintenance", "-w", workspace, "--deployment")
    assert "No worker is there" in text.stderr


def test_without_a_server_nobody_can_be_asked(cli: Cli, tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in cli.environment.items()
        if name not in ("PREFECT_API_URL", "PREFECT_HOME")
    }
    alone = Cli({**environment, "PREFECT_HOME": str(tmp_path / "prefect")})
    done = alone.run("run", "ingest", "-p", "photos=a", "-w", tmp_path, "--deployment")
    assert done.returncode == 3
    assert "maskwheel up" in done.stderr
