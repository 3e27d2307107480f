"""The flow that goes the whole way: the sources of a recipe to a trained, evaluated model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import flow

from flows import work
from flows.build import DEFAULT as DEFAULT_BUILD
from flows.build import build as build_version
from flows.parameters import BuildParameters, TrainParameters
from flows.train import DEFAULT as DEFAULT_TRAIN
from flows.train import train as train_model


@flow(name="corpus-to-model", flow_run_name="{build.recipe} to {train.run}", persist_result=False)
def corpus_to_model(
    build: BuildParameters = DEFAULT_BUILD, train: TrainParameters = DEFAULT_TRAIN, then: Sequence[TrainParameters] = ()
) -> dict[str, Any]:
    """Build a recipe, then train a run on the version that came out, in the same store; those of `then` go on from its
    weights, one after the other. Returns what the last one made, with that of those `before` it."""
    manifest = build_version(build)
    *before, last = work.in_turn(train_model, (train, *then), manifest, build.mill.store)
    return last | ({"before": before} if before else {})
