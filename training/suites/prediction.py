"""How well a model predicts a split: nats, perplexity and bits per byte, in all, by source, language and domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import TrainingError, evaluate, initial, journal, objectives
from training.config import Evaluation, Precision
from training.loading import Loaded
from training.manifest import Version, open_version
from training.objectives import Objective
from training.parallel import Group
from training.progress import Reporter

DOMAINS = 100  # of which the numbers are written down, those with the most bytes


def predict(
    folder: Path, loaded: Loaded, place: Path | None, split: str, batch: int, group: Group, progress: Reporter
) -> dict[str, Any]:
    """The numbers of a split of the version at `place` (of the run's own where None), on every rank.

    Raises TrainingError where there is no version, or its tokens are not the model's.
    """
    if loaded.classifier:
        raise TrainingError(f"{loaded.name}: names classes and predicts no text; its scores are in the run's report")
    version, objective = _asked(folder, place)
    if version.manifest.layout != "packed" and objective.measure == "perplexity":
        raise TrainingError(f"{version.folder}: rows of examples; perplexity is that of packed text")
    settings = Evaluation(split=split, micro_rows=batch)
    precision = Precision(compute="float32")
    tally = evaluate.score(loaded.model, objective, version, settings, precision, group, progress=progress)

    def by(column: str) -> dict[str, Any]:
        found = [
            (name, {**tally.counts(pick), **tally.numbers("model", pick)}) for name, pick in tally.by(column).items()
        ]
        return dict(sorted(found, key=lambda entry: -entry[1]["bytes"])[:DOMAINS])

    groups = {f"by_{column}": by(column) for column in ("source", "language", "domain")}
    said = {"measure": objective.measure, "version": version.address, "split": split}
    return {**said, **tally.counts(), **tally.numbers("model"), **groups}


def _asked(folder: Path, place: Path | None) -> tuple[Version, Objective]:
    """The version, and the objective whose targets are predicted: the run's own, or causal."""
    run = folder.absolute().parents[1] if (folder / "state.json").is_file() else folder
    ours = (run / "run.json").is_file()
    if not ours and place is None:
        raise TrainingError(f"{folder}: a Hugging Face folder has no version of its own; give --version or --suite")
    if not ours:
        assert place is not None
        version, objective = open_version(place), objectives.load({"use": "causal"}, "[objective]")
    else:
        _, settings, own = journal.read(run, verify=False)
        version, objective = own, objectives.load(settings.objective, "[objective]").over(own)
        if place is None:
            return version, objective
        version = open_version(place)
    initial.same_tokenizer(initial.source(folder), version, objective.extra_tokens)
    return version, objective
