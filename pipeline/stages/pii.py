"""Personal data and secrets, counted by kind (`_personal` says how each is found); `mask_pii` masks them.

    secret  email  iban  chinese_id  card  ip  phone     how many of each `mask_pii` masks under the same parameters
    total                                                all of them

So `[[rules]]` may drop what holds many, as dolma drops a page with more than 5 (Soldaini et al. 2024, arXiv
2402.00159, 5.3.2), and the books say of each document what its masks were. Let it stand before `mask_pii`: of a text
that is masked there is nothing to count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.stage import measure
from pipeline.stages._personal import KINDS, look
from pipeline.stages._personal import check as check
from pipeline.stages._personal import resources as resources

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

# One of each kind, of nobody: reserved names, numbers that banks print on specimens, a key of a manual.
SPECIMENS = {
    "secret": "AKIAIOSFODNN7EXAMPLE",
    "email": "miller@example.org",
    "iban": "GB82 WEST 1234 5698 7654 32",
    "chinese_id": "11010519491231002X",
    "card": "4111 1111 1111 1111",
    "ip": "93.184.216.34",
    "phone": "+44 20 7946 0018",
}


@measure(**dict.fromkeys((*KINDS, "total"), "int32"))
def pii(
    batch: pa.RecordBatch, *, kinds: list[str] | None = None, countries: list[str] | None = None
) -> dict[str, pa.Array]:
    """Count in every document; `kinds` are all by default, `countries` (of phones without a "+") none."""
    wanted = columns(kinds=kinds)
    counts = np.zeros((len(batch), len(wanted)), np.int32)
    for row, _, found in look(batch["text"], wanted, countries or ()):
        for each in found:
            counts[row, wanted.index(each.kind)] += 1
    counts[:, -1] = counts.sum(1)
    return {name: pa.array(np.ascontiguousarray(counts[:, n])) for n, name in enumerate(wanted)}


def columns(*, kinds: list[str] | None, **params: object) -> list[str]:
    """Those of the kinds that are looked for."""
    return [*(kind for kind in KINDS if kinds is None or kind in kinds), "total"]


def examples(rule: Rule, limit: Any, *, kinds: list[str] | None, **params: object) -> Examples:
    """Ever more of the kind."""
    from pipeline.examples import ladder

    kind = rule.column if rule.column in KINDS else columns(kinds=kinds)[0]
    return ladder(rule, limit, lambda k: "\n".join([SPECIMENS[kind]] * k))
