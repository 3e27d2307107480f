"""Whose text a step was trained on: every document piece of its batch, from the files of the run alone.

A step's rows are arithmetic, so nothing was logged for this and any step can be asked, of a run that is done, under
way or killed. Where metrics.jsonl holds the step's link of the hash chain, it is computed again: `verified` says
that these are the very spans that were read. No weights and no torch are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training import TrainingError, batch
from training.mix import Stream

COLUMNS = ("doc_id", "source", "language", "url")


def trace(folder: Path, step: int, token: int | None = None) -> dict[str, Any]:
    """The pieces of 1-based `step`, in the order of its rows; with `token`, only the one that holds that real token.

    A piece has row (of the step, from 0), part, version, doc_id, source, language, url, start (place in the row),
    offset (in the document's tokens), tokens, and first_token (1-based number of its first token in the step).
    Raises TrainingError where the run has no such step, or the step no such token.
    """
    from training import journal

    books, run, version = journal.read(folder, verify=False)
    if not 1 <= step <= run.schedule.steps:
        raise TrainingError(f"--step {step}: the run has steps 1 to {run.schedule.steps}")
    stream = Stream(run, version)
    rows = stream.step(step - 1)
    ends = np.cumsum(rows.lengths)
    chosen = np.arange(len(ends))
    if token is not None:
        if not 1 <= token <= ends[-1]:
            raise TrainingError(f"--token {token}: step {step} has tokens 1 to {ends[-1]}")
        chosen = np.searchsorted(ends, [token])
    part, _ = stream.places(batch.positions(step - 1, run.batch.rows))
    documents = stream.documents(rows.documents[chosen], COLUMNS).to_pylist()
    owners = stream.owners(rows.documents[chosen]).tolist()
    pieces = [
        {
            "row": int(rows.piece_row[piece]),
            "part": stream.parts[part[rows.piece_row[piece]]].name,
            "version": stream.versions[owner].address,
            **document,
            "start": int(rows.starts[piece]),
            "offset": int(rows.offsets[piece]),
            "tokens": int(rows.lengths[piece]),
            "first_token": int(ends[piece] - rows.lengths[piece]) + 1,
        }
        for piece, document, owner in zip(chosen.tolist(), documents, owners, strict=True)
    ]
    before, link = _links(books.metrics, step, stream.start)
    return {
        "run": books.folder.name,
        "step": step,
        "read": link is not None,
        "verified": batch.chain_next(before, rows) == link if before and link else None,
        "tokens": int(ends[-1]),
        "manifests": {each.address: str(each.folder / "manifest.json") for each in stream.versions},
        "pieces": pieces,
    }


def _links(metrics: Path, step: int, start: str) -> tuple[str | None, str | None]:
    """The links of the hash chain before and after a step, as far as they are written down."""
    found: dict[int, str] = {0: start}
    for line in _lines(metrics, step):
        found[line["step"]] = line["chain"]
    return found.get(step - 1), found.get(step)


def _lines(metrics: Path, step: int) -> Iterator[dict[str, Any]]:
    """Lines of the two steps; others are passed over before they are parsed, and the one under way is too."""
    if not metrics.exists():
        return
    kinds = ("step", "refused")
    marks = tuple(f'{{"kind": "{kind}", "step": {number},' for kind in kinds for number in (step - 1, step))
    with metrics.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith(marks) and line.endswith("}\n"):
                yield json.loads(line)
