"""The flow that takes a recipe to a sealed version."""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows import artifacts, progress, work
from flows.parameters import BuildParameters
from flows.runner import PrefectRunner

DEFAULT = BuildParameters()


@flow(name="build", flow_run_name="build {parameters.recipe}", persist_result=False)
def build(parameters: BuildParameters = DEFAULT) -> str:
    """Build a recipe's sources into a sealed version of packed shards; returns the path of its manifest."""
    with progress.logged(get_run_logger().info):
        version = work.build(parameters, PrefectRunner)
    artifacts.waterfall(version)
    return str(version.folder.absolute() / "manifest.json")
