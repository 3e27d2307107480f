"""Where the scores of a model are written: those of a run into its folder and its run.json, others elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import TrainingError, checkpoint, journal
from training.loading import Loaded


@dataclass(frozen=True)
class Place:
    """A model's folder: `run` and `step` of one that was trained here."""

    name: str
    run: Path | None = None
    step: int | None = None

    def described(self, loaded: Loaded) -> dict[str, Any]:
        """What a result says of the model."""
        counts = loaded.model.parameter_counts()["parameters"]
        return {"name": self.name, "step": self.step, "parameters": counts, "length": loaded.model.length}

    def target(self, what: str) -> Path:
        """The folder for some scores."""
        if self.run is None:
            return Path("scores") / self.name / what
        return self.run / "scores" / f"{what}-step-{self.step:08d}"

    def enter(self, result: dict[str, Any], folder: Path) -> None:
        """Write the scores into run.json, where there is one, under the suite's name and the step."""
        if self.run is None:
            return
        books = journal.read_books(self.run)
        entry = {
            "step": self.step,
            "suite": result.get("suite"),
            "split": result.get("prediction", {}).get("split"),
            "prediction": _brief(result.get("prediction")),
            "folder": os.path.relpath(folder.absolute(), self.run.absolute()),
            "sets": [
                {"name": one["name"], "version": one["version"], "groups": one["groups"]}
                for one in result.get("sets", [])
            ],
        }
        same = ("step", "suite", "split")
        others = [one for one in books.table.get("evaluations", []) if any(one[key] != entry[key] for key in same)]
        books.note(evaluations=sorted([*others, entry], key=lambda one: [str(one[key]) for key in same]))


def _brief(prediction: dict[str, Any] | None) -> dict[str, Any] | None:
    known = ("version", "measure", "bits_per_byte", "perplexity", "targets", "bytes", "documents")
    return {name: prediction[name] for name in known} if prediction else None


def of(folder: Path, name: str) -> Place:
    """Which model a folder is. Raises TrainingError for a run without a checkpoint."""
    if (folder / "state.json").is_file():
        chosen = folder.absolute()
        return Place(name, chosen.parents[1], int(checkpoint.read_state(chosen)["step"]))
    if (folder / "run.json").is_file():
        found = checkpoint.steps(folder / "checkpoints")
        if not found:
            raise TrainingError(f"{folder}: has no checkpoint yet")
        return Place(name, folder, int(checkpoint.read_state(found[-1])["step"]))
    return Place(name)
