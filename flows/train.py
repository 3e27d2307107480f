"""The flow that takes a version to a trained, evaluated model."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger

from flows import artifacts, progress, work
from flows.parameters import TrainParameters

DEFAULT = TrainParameters()


@flow(name="train", flow_run_name="train {parameters.run}", persist_result=False)
def train(parameters: TrainParameters = DEFAULT) -> dict[str, Any]:
    """Train a run from a version's manifest, in a process of its own; returns names, paths and scores."""
    with progress.logged(get_run_logger().info):
        result = work.train(parameters)
    artifacts.outcome(result)
    return result
