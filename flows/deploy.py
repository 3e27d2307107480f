"""Deployments of the three flows, for workers of a process pool: what `prefect.yaml` says, at the configured API.

They are found by module path, so they work from an installed package; runs start in the folder given here.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.embedded import Unconfigured, configured, quiet, reach
from pipeline.stage import ConfigError

HOW_TO = (
    "no Prefect API is configured: start a server with `prefect server start`, and name it with "
    "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
)


def deploy(pool: str, store: Path, data: Path | None, folder: Path) -> list[str]:
    """Make the deployments of `prefect.yaml` in a work pool, created if it is absent; returns their full names.

    Runs start in `folder` and find `store` and `data` in their environment, whatever parameters they are given.
    Raises Unconfigured, and ConfigError for another kind of pool.
    """
    quiet()
    if not configured():
        raise Unconfigured(HOW_TO)
    reach()
    _pool(pool)
    environment = {"GRISTMILL_STORE": str(store.absolute())} | (
        {"GRISTMILL_DATA": str(data.absolute())} if data else {}
    )
    return [_deploy(table, pool, environment, folder) for table in declared()]


def declared() -> list[dict[str, Any]]:
    """The deployments that `prefect.yaml` lists."""
    import yaml

    text = (importlib.resources.files("flows") / "prefect.yaml").read_text("utf-8")
    return list(yaml.safe_load(text)["deployments"])


def commands(pool: str, names: list[str]) -> list[str]:
    """What to type next: start a worker, run a deployment."""
    build = next(name for name in names if name.startswith("build/"))
    given = json.dumps({"recipe": "quickstart"})
    return [
        f"prefect worker start --pool {pool}",
        f"prefect deployment run {build} --watch --param 'parameters={given}'",
        *(f"prefect deployment run {name} --watch" for name in names if name != build),
    ]


def _pool(name: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        found = client.read_work_pool(name)
    if found.type != "process":
        raise ConfigError(
            f"--pool {name}: is a pool of type {found.type!r}; these deployments need one of type 'process'"
        )


def _deploy(table: Mapping[str, Any], pool: str, environment: dict[str, str], folder: Path) -> str:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner.storage import LocalStorage

    deployment = RunnerDeployment.from_entrypoint(
        entrypoint=table["entrypoint"],
        name=table["name"],
        description=table["description"],
        tags=table["tags"],
        work_pool_name=pool,
        job_variables={"env": environment},
    )
    deployment.storage = LocalStorage(str(folder.absolute()))
    deployment.apply()
    return deployment.full_name
