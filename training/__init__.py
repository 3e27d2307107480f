"""The model half of the mill: from a sealed version of packed shards to a trained, judged, exportable model.

It reads a manifest and nothing else, and never imports the data half. Read the rooms in this
order: `manifest` (refuse what is not whole), `shards` (rows of the mapped files), `order` (which
row comes when: arithmetic, no state), `batch` (whose rows are they), `config` (the run file),
`vocabulary` (what tokens spell), `models` and `objectives` (one file each, the folder is the registry),
`optim`, `parallel`, `checkpoint`, `loop` (the run), then `evaluate`, `ngram`, `classification` with its `classes`,
`generate`, `report` and `export`.
"""

from __future__ import annotations


class TrainingError(ValueError):
    """What a person can put right: the message is one sentence that names the place and the fix."""


class OutOfMemory(TrainingError):
    """A micro-batch does not fit."""
