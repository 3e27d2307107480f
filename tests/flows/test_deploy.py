"""Deployments on a Prefect server that was started by hand, as a team would: deploy, a worker, a run, its artifacts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import deploy, embedded
from pipeline import manifest as manifests
from pipeline.store import Store
from tests.conftest import ROOT
from tests.flows.conftest import last_line, until


def test_the_declared_deployments_are_the_flows_by_module_path():
    """What `gristmill deploy` reads is a file that Prefect itself can use."""
    from prefect import Flow
    from prefect.utilities.importtools import import_object

    declared = deploy.declared()
    assert declared == yaml.safe_load((ROOT / "flows" / "prefect.yaml").read_text("utf-8"))["deployments"]
    flows = {table["entrypoint"]: import_object(table["entrypoint"]) for table in declared}
    assert {found.name for found in flows.values()} == {"build", "train", "corpus-to-model"}
    assert all(isinstance(found, Flow) and ":" not in entrypoint for entrypoint, found in flows.items())


def test_the_forms_describe_and_bound_every_parameter():
    from prefect.utilities.callables import parameter_schema

    from flows.corpus_to_model import corpus_to_model

    schema = parameter_schema(corpus_to_model).model_dump()
    for model in schema["definitions"].values():
        assert not model.get("additionalProperties", True)
        assert all("description" in field for field in model["properties"].values())
    mill = schema["definitions"]["MillParameters"]["properties"]
    assert mill["batch_rows"]["minimum"] == 1 and "pattern" in mill["partition_size"]


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Any:
    """(folder, run a command there) with a Prefect server beside it."""
    folder = tmp_path_factory.mktemp("team")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "GRISTMILL"))}
    home = {"PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": url, "NO_COLOR": "1", "COLUMNS": "200"}
    environment = {**clean, **embedded.OFFLINE, **home}
    binaries = Path(sys.executable).parent

    def run(name: str, *arguments: object, cwd: Path = folder, code: int = 0) -> str:
        done = subprocess.run(
            [binaries / name, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{name} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout if not code else done.stderr

    start = [binaries / "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(start, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"{url}/health"), 120)
        yield folder, run, url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def post(url: str, path: str, **body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_a_worker_runs_a_deployment_in_the_deployed_store(team: tuple[Path, Callable[..., str], str], corpus, built):
    folder, run, url = team
    for _ in range(2):
        made = last_line(run("gristmill", "deploy", "--pool", "mill", "--store", folder / "store", "--json"))
    assert sorted(made["deployments"]) == ["build/gristmill", "corpus-to-model/gristmill", "train/gristmill"]
    assert "prefect worker start --pool mill" in made["commands"]
    assert len(post(url, "/deployments/filter")) == 3
    given = json.dumps({"recipe": str(corpus / "small.toml")})
    run("prefect", "deployment", "run", "build/gristmill", "--param", f"parameters={given}")
    run("prefect", "worker", "start", "--pool", "mill", "--run-once")
    [found] = post(url, "/flow_runs/filter")
    assert found["state_type"] == "COMPLETED", found["state"]
    version = manifests.find(Store(folder / "store"), "small")
    assert version.manifest["version"] == built[1]["version"]
    [table] = post(url, "/artifacts/filter")
    assert (table["key"], table["type"], table["flow_run_id"]) == ("waterfall-small", "table", found["id"])


@pytest.mark.slow
def test_prefect_itself_deploys_from_the_same_file(team: tuple[Path, Callable[..., str], str]):
    _, run, url = team
    run("prefect", "--no-prompt", "work-pool", "create", "gristmill", "--type", "process")
    run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "flows/prefect.yaml", cwd=ROOT)
    run("prefect", "--no-prompt", "deploy", "--all", cwd=ROOT / "flows")
    found = [table for table in post(url, "/deployments/filter") if table["work_pool_name"] == "gristmill"]
    assert {table["entrypoint"] for table in found} == {table["entrypoint"] for table in deploy.declared()}


@pytest.mark.slow
def test_a_pool_of_another_kind_is_a_mistake(team: tuple[Path, Callable[..., str], str]):
    _, run, url = team
    post(url, "/work_pools/", name="containers", type="docker", base_job_template={})
    said = run("gristmill", "deploy", "--pool", "containers", code=2)
    assert (
        said == "error: --pool containers: is a pool of type 'docker'; these deployments need one of type 'process'\n"
    )
