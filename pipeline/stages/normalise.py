"""Text in one normal form and without what nobody reads: the same characters, fewer ways to write them.

In this order: carriage returns and other control characters that end a line become line feeds, the other control
characters and byte order marks go; canonical (NFC) or compatible (NFKC) normal form; white space goes at line ends and
around the text; more than two blank lines become two. Applying it twice changes nothing.

It must not move with the Python version. Normal forms of characters known to Unicode 14.0 are fixed for ever by
Unicode's stability policy; a run of characters that came later is left as it is, under any Python. Documents without
a flaw are not touched, which is nearly all of them: 250 MB/s.

With `repair = "ftfy"` text that was read in a wrong encoding (schÃ¶n, â€œ) is first put right (`_repair`), again until
nothing changes any more. What ftfy takes for such is its own affair, so its version is part of the stage's key.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernels.tidy import UNKNOWN, UNSETTLED, flaws
from pipeline.kernels.unicode import ASSIGNED, NFC_INERT, NFKC_INERT, code_points, table, table_digest
from pipeline.schema import replace
from pipeline.stage import rewrite
from pipeline.stages._repair import repaired

Form = Literal["NFC", "NFKC"]

LINE_ENDS = re.compile(r"\r\n|[\r\v\f\x1c-\x1e\x85]")
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
BLANK_LINES = re.compile(r"\n{4,}")


@rewrite
def normalise(batch: pa.RecordBatch, *, form: Form = "NFC", repair: Literal["ftfy"] | None = None) -> pa.RecordBatch:
    """Rewrite the texts that are not in normal form yet, or of which the encoding is to be repaired."""
    before = batch["text"]
    text = tidied(repaired(before) if repair else before, form)
    # A text that changed may hold now what could not be told before.
    while repair and text is not before and (changed := pc.not_equal(text, before)).true_count:
        before, some = text, text.filter(changed)
        text = pc.replace_with_mask(text, changed, tidied(repaired(some), form))
    return batch if text is batch["text"] else replace(batch, text=text)


def tidied(text: pa.Array, form: Form) -> pa.Array:
    """Every text in normal form; the same array where all are already."""
    found = flaws(text, NFC_INERT if form == "NFC" else NFKC_INERT)
    rows = np.flatnonzero(found)
    if rows.size == 0:
        return text
    clean = [
        tidy(value, form, bool(found[row] & UNSETTLED), bool(found[row] & UNKNOWN))
        for row, value in zip(rows.tolist(), text.take(pa.array(rows)).to_pylist(), strict=True)
    ]
    return pc.replace_with_mask(text, pa.array(found > 0), pa.array(clean, text.type))


def resources(**params: object) -> dict[str, str]:
    """The table of characters that decides what is touched."""
    return {"unicode14": table_digest()}


def tidy(text: str, form: Form, unsettled: bool = True, unknown: bool = True) -> str:
    """One text in normal form. `unsettled` and `unknown` False spare the search for what is known to be absent."""
    text = LINE_ENDS.sub("\n", text).replace("\x1f", " ")
    text = CONTROLS.sub("", text)
    if unsettled:
        text = normal_form(text, form, unknown)
    text = "\n".join(line.rstrip() for line in text.split("\n")).strip()
    return BLANK_LINES.sub("\n\n\n", text)


def normal_form(text: str, form: Form, unknown: bool = True) -> str:
    """The normal form by Unicode 14.0: characters that it does not assign stay, what is between them is normalised."""
    if unknown:
        known = table()[code_points(text)] & ASSIGNED > 0
        if not known.all():
            cuts = [0, *(np.flatnonzero(np.diff(known)) + 1).tolist(), len(text)]
            return "".join(unicodedata.normalize(form, text[a:b]) if known[a] else text[a:b] for a, b in pairwise(cuts))
    return unicodedata.normalize(form, text)
