"""How surprising a text is to an n-gram model of good text: CCNet's perplexity, and its head, middle and tail.

    model       a KenLM model, ARPA or binary, of which each line of text is a sentence (`gristmill train-ngram`)
    head, tail  perplexities: `bucket` is head up to the first, tail above the second, middle between (CCNet takes the
                30th and 60th percentile of each language: Wenzek et al. 2020, arXiv 1911.00359, 3.3; the card of a
                model that was made here names them); without them there is no `bucket`
    units       what the model was trained on: words between white space, or by script, where each letter of Han, Thai
                and the like is a word of its own
    normalise   lower case and every ASCII digit as 0, as CCNet does before it trains and asks

The perplexity is 10 ** (-sum of log10 probabilities / tokens), over all lines that hold a word, each with its end of
sentence as one token more. CCNet's own models want SentencePiece pieces, which are no words of a text: give this stage
a model of words. KenLM (Heafield 2011) reads the model, `pip install 'gristmill[ngram]'`; it holds Python's lock, so
builds with this stage use processes. A text without a word has no perplexity.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline import given
from pipeline.given import File
from pipeline.kernels.unicode import LOWER, SPACELESS, code_points, table, table_digest
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

HOLDS_LOCK = True
MISSING = {"model": "make it: gristmill train-ngram NAME --source CARD --out {folder}"}
SPACE = 0x20


@measure(perplexity="float64", bucket="string")
def perplexity(
    batch: pa.RecordBatch,
    *,
    model: File,
    head: float | None = None,
    tail: float | None = None,
    units: Literal["whitespace", "script"] = "whitespace",
    normalise: bool = True,
) -> dict[str, pa.Array]:
    """Measure every document. Raises ImportError without kenlm, ModelError where the model is not there."""
    asked = _model(model)
    found = [of(asked, text.as_py() or "", units == "script", normalise) for text in batch["text"]]
    columns = {"perplexity": pa.array(found, pa.float64())}
    if head is not None and tail is not None:
        named = [
            None if one is None else "head" if one <= head else "tail" if one > tail else "middle" for one in found
        ]
        columns["bucket"] = pa.array(named, pa.string())
    return columns


def columns(*, head: float | None, **params: object) -> list[str]:
    """What is measured with bounds, and without."""
    return ["perplexity"] if head is None else ["perplexity", "bucket"]


def check(*, model: str, head: float | None, tail: float | None, **params: object) -> None:
    """Raise ValueError where bounds are half given or crossed, kenlm is not there, or the file is no model."""
    if (head is None) != (tail is None) or (head is not None and tail is not None and not 0 < head <= tail):
        raise ValueError(f"give `head` and `tail` together, 0 < head <= tail, not {head} and {tail}")
    if given.NAMED.fullmatch(model):
        try:
            _model(model)
        except ImportError as error:
            raise ValueError(str(error)) from error


def resources(**params: object) -> dict[str, str]:
    """The table that says what lower case is."""
    return {"unicode14": table_digest()}


@functools.lru_cache(2)
def _model(file: str) -> Any:
    return opened(given.find(file))


def opened(path: Path) -> Any:
    """A model as KenLM reads it. Raises ImportError without kenlm, ValueError for what is none."""
    try:
        import kenlm
    except ImportError as error:
        raise ImportError("perplexity needs KenLM: pip install 'gristmill[ngram]'") from error
    try:
        quiet = kenlm.Config()
        quiet.show_progress = False
        return kenlm.Model(str(path), quiet)
    except OSError as error:
        raise ValueError(f"{path}: KenLM cannot read it: {str(error).splitlines()[-1][:200]}") from error


def of(model: Any, text: str, by_script: bool, normalise: bool) -> float | None:
    """The perplexity of a text, rounded to 4 decimals; None where it has no word."""
    logs, tokens = 0.0, 0
    for line in text.split("\n"):
        words = words_of(line, by_script, normalise)
        if words:
            logs += model.score(" ".join(words), bos=True, eos=True)
            tokens += len(words) + 1
    return round(float(min(10.0 ** min(-logs / tokens, 300.0), 1e300)), 4) if tokens else None


def words_of(line: str, by_script: bool, normalise: bool) -> list[str]:
    """The words of a line as the model is asked for them."""
    codes = code_points(line)
    flags = table()[codes]
    if normalise:
        codes = np.where((codes >= ord("0")) & (codes <= ord("9")), ord("0"), flags & LOWER).astype(np.uint32)
    if by_script:
        alone = (flags & SPACELESS) != 0
        spread = np.full((codes.size, 3), SPACE, np.uint32)
        spread[:, 1] = codes
        used = np.ones((codes.size, 3), bool)
        used[:, 0] = used[:, 2] = alone
        codes = spread[used]
    # KenLM cuts at white space of ASCII alone, and takes NUL for an end.
    return codes.astype("<u4").tobytes().decode("utf-32-le").replace("\0", " ").split()


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Texts that ship, words of no language, and one word again and again; what they have is measured."""
    from pipeline.examples import chosen, cycled, fresh, lines
    from pipeline.stages._specimens import LANGUAGES, shipped

    texts = [*map(shipped, LANGUAGES), *(lines(fresh(0, n)) for n in (1, 10, 100))]
    texts += [lines(cycled(n)) for n in (1, 10, 100)] + [f"{word} " * 50 for word in ("the", "and", "a", "of", "的")]
    texts += [text for word in _frequent(params["model"]) for text in (word, f"{word} " * 50)]
    found = perplexity(pa.record_batch([pa.array(texts, pa.large_string())], ["text"]), **params)
    return chosen(rule, [(text,) for text in texts], found[rule.column].to_pylist())


def _frequent(file: str) -> list[str]:
    """Some likely words of an ARPA file; of a binary one, none."""
    path = given.find(file)
    with path.open("rb") as read:
        head = read.read(1 << 20).decode("utf-8", "ignore")
    rows = [row.split("\t") for row in head.partition("\\1-grams:")[2].partition("\\2-grams:")[0].splitlines()]
    words = [(float(row[0]), row[1]) for row in rows if len(row) > 1 and row[1] not in ("<s>", "</s>", "<unk>")]
    return [word for _, word in sorted(words, reverse=True)[:20]]
