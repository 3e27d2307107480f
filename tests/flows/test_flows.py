"""The flows: the same version as without Prefect, artifacts that count what the manifest counts, a server that goes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import artifacts, embedded
from flows import build as build_flow
from flows.corpus_to_model import corpus_to_model
from flows.parameters import BuildParameters, MillParameters, TrainParameters
from flows.runner import MOST_TASKS, cut
from flows.train import train
from pipeline import manifest as manifests
from pipeline.stage import ConfigError
from tests.conftest import ROOT
from tests.flows.conftest import RECIPE, command, gone, last_line, left, processes, until


def test_prefect_server_can_be_imported():
    """Some versions of fastapi install beside this Prefect and break its server at run time."""
    from prefect.server.api import server

    assert server.create_app


@pytest.fixture
def client(server):
    """A Prefect client of the tests' server; the flows of the test use that server too."""
    from prefect.client.orchestration import get_client

    with embedded.using(server), get_client(sync_client=True) as found:
        yield found


def small(corpus: Path, store: Path, **mill) -> BuildParameters:
    return BuildParameters(recipe=str(corpus / "small.toml"), mill=MillParameters(store=str(store), **mill))


def artifact(client, key: str):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    found = client._client.post(
        "/artifacts/filter",
        json={
            "artifacts": ArtifactFilter(key=ArtifactFilterKey(any_=[key])).model_dump(mode="json", exclude_unset=True),
            "sort": ArtifactSort.CREATED_DESC.value,
        },
    )
    return found.json()[0]


@pytest.mark.parametrize("mill", [{"workers": 1}, {"workers": 2, "partition_size": "20KB", "batch_rows": 50}])
def test_the_flow_makes_the_version_that_is_made_without_prefect(built, corpus, client, tmp_path, mill):
    _, made = built
    path = Path(build_flow.build(small(corpus, tmp_path, **mill)))
    assert path.read_bytes() == Path(made["manifest"]).read_bytes()
    assert gone_children(), "its workers have ended"


def gone_children() -> bool:
    return not [line for line, _ in processes().values() if f"parent_pid={os.getpid()}" in line]


def test_a_build_leaves_its_books_as_a_table(corpus, client, tmp_path):
    version = manifests.read(Path(build_flow.build(small(corpus, tmp_path, workers=1))).parent)
    found = artifact(client, "waterfall-small")
    rows = json.loads(found["data"])
    assert found["type"] == "table" and version.address in found["description"]
    accounting = version.manifest["accounting"]
    for row, entry in zip(rows, accounting, strict=True):
        assert all(row[name] == entry[name] for name in ("stage", "entered", "dropped", "quarantined", "left"))
        assert sum(int(part.split()[0].replace(",", "")) for part in row["reasons"].split("; ") if part) == sum(
            entry["reasons"].values()
        )
    run = client.read_flow_run(found["flow_run_id"])
    assert run.state.is_completed() and run.parameters["parameters"]["mill"]["store"] == str(tmp_path)


def test_corpus_to_model_trains_on_the_version_that_it_built(corpus, client, tmp_path, fake):
    """And neither the version nor the store that the training's parameters name."""
    run = TrainParameters(
        run=str(corpus / "runs" / "small.toml"), version="other@latest", store="/nowhere", name="x_1.a"
    )
    result = corpus_to_model(small(corpus, tmp_path, workers=1), run)
    assert Path(result["manifest"]).is_relative_to(tmp_path) and Path(result["folder"]) == tmp_path / "runs" / "x_1.a"
    found = artifact(client, "run-x-1-a")
    assert found["type"] == "markdown" and "| model | 1.500 |" in found["data"] and "2\\-gram | 2.500" in found["data"]
    link = artifact(client, "report-x-1-a")
    assert link["type"] == "markdown" and Path(result["report"]).as_uri() in link["data"]


def test_further_runs_go_on_from_the_one_before(corpus, client, tmp_path, fake):
    """Each has the version that was built, and the weights of the run before as its beginning."""
    file, changes = str(corpus / "runs" / "small.toml"), ("schedule.steps=5",)
    first, *then = (TrainParameters(run=file, name=name, changes=changes) for name in ("one", "two", "three"))
    result = corpus_to_model(small(corpus, tmp_path, workers=1), first, then)
    made = [*result["before"], result]
    assert [each["run"] for each in made] == ["one", "two", "three"]
    assert len({each["manifest"] for each in made}) == 1
    begun = [f"init={json.dumps(str(tmp_path / 'runs' / name))}" for name in ("one", "two")]
    assert [each["changes"] for each in made] == [[*changes], [begun[0], *changes], [begun[1], *changes]]


def test_an_error_of_the_work_is_the_error_of_the_flow(corpus, client, tmp_path):
    with pytest.raises(ConfigError, match="build it first"):
        train(TrainParameters(run=str(corpus / "runs" / "small.toml"), store=str(tmp_path)))
    recipe = tmp_path / "none_left.toml"
    text = RECIPE.replace("grain.toml", str(corpus / "grain.toml"))
    recipe.write_text(text.replace("word_count = {below = 20}", "word_count = {below = 100_000}"))
    with pytest.raises(ConfigError, match="no document is left"):
        build_flow.build(BuildParameters(recipe=str(recipe), mill=MillParameters(store=str(tmp_path), workers=2)))


@given(st.text(max_size=40))
def test_what_stands_in_markdown_is_text(text):
    shown = artifacts.escaped(text)
    assert all(character.isprintable() for character in shown)
    for character in "<[`*_|":
        assert shown.replace("\\" + character, "").find(character) < 0


@given(st.text(max_size=60))
def test_an_artifact_has_a_key_that_prefect_takes(name):
    assert re.fullmatch(r"run-([a-z0-9]+(-[a-z0-9]+)*)?", artifacts.key("run", name))


@given(st.lists(st.integers(), max_size=700), st.integers(1, MOST_TASKS))
def test_a_step_has_few_tasks_of_about_one_size(keys, most):
    batches = cut(list(map(str, keys)), most)
    assert [key for batch in batches for key in batch] == list(map(str, keys))
    sizes = list(map(len, batches))
    assert len(batches) <= most and (not sizes or max(sizes) - min(sizes) <= 1) and 0 not in sizes


def test_without_a_prefect_api_a_server_comes_and_goes(corpus, built, tmp_path):
    """A whole build through the command line; nothing of Prefect's is seen, and nothing of it is left."""
    (tmp_path / "temporary").mkdir()
    arguments = ("build", corpus / "small.toml", "--store", tmp_path / "store", "--json")
    places = {"PREFECT_PROFILES_PATH": str(tmp_path / "none.toml"), "TMPDIR": str(tmp_path / "temporary")}
    done = command(*arguments, **places)
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout)["version"] == built[1]["version"] and done.stdout.count("\n") == 1
    assert not [word for word in ("Traceback", "prefect.", "WARNING", "http") if word in done.stderr]
    assert left(tmp_path / "temporary") == []


def test_the_server_goes_when_its_command_is_killed(tmp_path):
    code = "from flows import embedded as e; import time\nwith e.server(): print(1, flush=True); time.sleep(99)"
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT")},
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(tmp_path),
        },
        stdout=subprocess.PIPE,
    )
    assert parent.stdout and parent.stdout.readline() == b"1\n"
    [pid] = [pid for pid, (line, _) in processes().items() if f"flows.server {parent.pid} " in line]
    time.sleep(1)
    assert len(left(tmp_path)) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: gone(pid) and left(tmp_path) == [], 20)
