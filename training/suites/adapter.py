"""A suite as tasks of lm-eval (EleutherAI, 0.4.13), which then asks the same items with the same prompts, offline.

    FOLDER/SET.jsonl     a line an item: context (the whole prompt), choices, gold
    FOLDER/SET.yaml      the task gristmill_SET

Accuracy there is `acc`, normalised by characters `acc_norm` (for ASCII that is by bytes), and a cloze is judged by
`acc` (greedy) and `perplexity`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.files import write_text
from training.manifest import Version
from training.suites import items, prompts
from training.suites.items import Item
from training.suites.suite import Set, Suite


def export(suite: Suite, versions: Mapping[str, Version], folder: Path) -> list[str]:
    """Write every set of a suite; returns the names of the tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_task(how, versions, folder) for how in suite.set]


def _task(how: Set, versions: Mapping[str, Version], folder: Path) -> str:
    pool = items.read(versions[how.set])
    examples = items.read(versions[how.shots_from]) if how.shots_from else pool
    chosen = items.limited(pool, how.limit, how.seed)
    lines = [json.dumps(_document(item, examples, how), ensure_ascii=False) for item in chosen]
    data, name = folder / f"{how.called}.jsonl", f"gristmill_{how.called}"
    write_text(data, "\n".join(lines) + "\n")
    several = max((len(item.contexts) for item in chosen), default=1) > 1
    cloze = chosen[0].choices == 1
    metrics = ["perplexity", "acc"] if cloze else ["acc", "acc_norm"]
    lower = {"perplexity"}
    form: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.absolute())}},
        "test_split": "test",
        "output_type": "loglikelihood" if cloze else "multiple_choice",
        "doc_to_text": "gold" if several else "context",
        "doc_to_target": "continuation" if cloze or several else "gold",
        **({} if cloze else {"doc_to_choice": "contexts" if several else "choices"}),
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [
            {
                "metric": metric,
                "aggregation": "perplexity" if metric in lower else "mean",
                "higher_is_better": metric not in lower,
            }
            for metric in metrics
        ],
        "metadata": {"version": versions[how.set].address},
    }
    write_text(folder / f"{how.called}.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in form.items()))
    return name


def _document(item: Item, pool: list[Item], how: Set) -> dict[str, Any]:
    front = prompts.before(prompts.shots(item, pool, how) if how.shots else [], how)
    contexts = [front + how.prefix + context + how.delimiter for context in item.contexts]
    known: dict[str, Any] = {"doc_id": item.doc_id, "gold": item.gold}
    if len(contexts) > 1:
        return {**known, "contexts": contexts, "continuation": item.continuations[0]}
    if item.choices == 1:
        return {**known, "context": contexts[0], "continuation": item.continuations[0]}
    return {**known, "context": contexts[0], "choices": list(item.continuations)}
