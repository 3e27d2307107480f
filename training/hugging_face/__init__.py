"""Models as `transformers` knows them: one file a family, and the folder is the registry.

A family's file is named like its model family and offers

    MODEL_TYPES                     the `model_type`s of config.json that it reads
    table(config) -> table          the `[model]` table that a config.json describes
    config(model, *, eot, length)   -> config.json without the type of its tensors; `length`: the longest context
    theirs(model) -> tensors        parameters under their names, float32 on the CPU
    ours(tensors) -> tensors        the way back: their tensors under our names

The law: `ours(theirs(model))` are the model's parameters to the bit, and the same weights give the same logits on
both sides. What a config.json asks for beyond a family's mathematics is refused, never passed over.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from training import TrainingError
from training.classifier import Classifier
from training.tables import suggest


def available() -> list[str]:
    """Names of the families in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_")


def of_model(model: Any) -> ModuleType:
    """The family's file for a model of ours, or what stands for it. Raises TrainingError where there is none."""
    if isinstance(model, Classifier):
        return importlib.import_module(f"{__name__}._classification")
    package, _, family = type(model).__module__.rpartition(".")
    if package != "training.models" or family not in available():
        raise TrainingError(f"{type(model).__module__} has no export; these have: {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{family}")


def of_config(config: Mapping[str, Any], where: str) -> ModuleType:
    """The family's file that reads this config.json. Raises TrainingError listing what can be read."""
    files = [importlib.import_module(f"{__name__}.{family}") for family in available()]
    known = {name: file for file in files for name in file.MODEL_TYPES}
    kind = config.get("model_type")
    if kind not in known:
        raise TrainingError(f"{where}: unknown model_type {kind!r}{suggest(str(kind), known)}")
    return known[kind]
