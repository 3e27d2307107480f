"""Three sets of labelled texts as versions, the open text beside each, and what TF-IDF makes of the same documents.

    sst2        sentences of film reviews, good or bad           held out: the published dev set
    ag_news     news in English, of four kinds                   held out: a fifth of the split groups
    thucnews    titles of news in Chinese, of ten kinds          held out: a fifth of the split groups

Text to be pretrained on is the unlabelled text of `train` of every set in a language, pages of the shared corpus in
it, in English WikiText-2, and what a folder of JSON lines holds. It is deduplicated, and what it shares with a held-out
text (13 words in a row; 8 of a shorter one; in Chinese characters) is cut out of it with 200 characters on either side
(stage `decontaminate`). Held-out texts of fewer than 8 words are met by nothing: of those the deduplicated split alone
says that they are not in train.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.bench import verbs
from tests.bench.bootstrap import Scores

HELD = 0.2
RECIPE = """name = {name}
sources = {sources}
[[stage]]
use = "normalise"
[[stage]]
use = "exact"
drop.dup_rank = {{above = 0}}
[[stage]]
use = "near"
drop.dup_rank = {{above = 0}}
{more}
[tokens]
{tokens}
[pack]
layout = "{layout}"
length = {length}
split = {split}
"""
CUT = '[[stage]]\nuse = "decontaminate"\nsets = [{}]'


@dataclass(frozen=True)
class DataSet:
    """A folder of train.parquet, and dev.parquet where that is held out; the language, the tokens of a row, what TF-IDF
    counts."""

    folder: str
    language: str
    length: int
    counted: dict[str, object]

    @property
    def name(self) -> str:
        return self.folder.replace("_", "-")


WORDS = {"ngram_range": (1, 2)}
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3)}
DATA_SETS = {
    "sst2": DataSet("sst2", "en", 64, WORDS),
    "ag_news": DataSet("ag_news", "en", 128, WORDS),
    "thucnews": DataSet("thucnews_zh", "zh", 64, CHARACTERS),
}
PAGES = {"en": ("en", "en-US"), "zh": ("zh-CN",)}  # folders of the shared corpus
# In English a word is one token more often where there are more, and no case; in Chinese more are no gain (RESULTS.md).
TOKENS = {"en": "vocab_size = 16384\nlowercase = true", "zh": "vocab_size = 8192"}


@dataclass(frozen=True)
class Texts:
    """Documents of a split: their ids, texts and labels."""

    ids: list[str]
    texts: list[str]
    labels: list[str]


class Lesson:
    """A data set in a folder, where its cards, recipes and store lie and stay."""

    def __init__(self, given: DataSet, data: Path, folder: Path) -> None:
        self.given, self.data, self.folder, self.store = given, data, folder, folder / "store"
        folder.mkdir(parents=True, exist_ok=True)
        place = data / "classification" / given.folder
        self.files = {given.name: place / "train.parquet"}
        if (place / "dev.parquet").is_file():
            self.files[f"{given.name}-dev"] = place / "dev.parquet"
        self.cards = [
            verbs.card(folder, name, [str(file)], given.language, ("text", "label"))
            for name, file in self.files.items()
        ]

    @property
    def free(self) -> float:
        """The share of split groups that is not held out: a published set is no share."""
        return 1.0 if len(self.files) > 1 else 1 - HELD

    def labelled(self, tokenizer: Path | None, name: str = "", **splits: float) -> Path:
        """The manifest of the labelled texts; `splits` are shares of what is not held out."""
        held: list[str] | float = [f"{self.given.name}-dev"] if len(self.files) > 1 else HELD
        tokens = given(tokenizer) if tokenizer else "vocab_size = 512"
        # Splits are laid out in the order of their names, so those that come behind `test` do not move it.
        recipe = _recipe(
            f"{self.given.name}{name}",
            self.cards,
            tokens=tokens,
            layout="examples",
            length=self.given.length,
            split={"test": held, **splits},
        )
        return _built(self.folder, recipe, self.data)

    def texts(self, manifest: Path, split: str) -> Texts:
        """The documents of a split of labelled texts, in the order of their ids."""
        index = pq.read_table(manifest.parent / "documents.parquet", columns=["doc_id", "source", "split"])
        rows = {name: pq.read_table(file, columns=["text", "label"]).to_pylist() for name, file in self.files.items()}
        chosen = sorted((row["doc_id"], row["source"]) for row in index.to_pylist() if row["split"] == split)
        found = [rows[source][int(doc_id.rsplit(":", 1)[1])] for doc_id, source in chosen]
        ids = [doc_id for doc_id, _ in chosen]
        return Texts(ids, [row["text"] for row in found], [str(row["label"]) for row in found])


def open_text(
    language: str, lessons: Sequence[Lesson], folder: Path, more: Path | None, length: int, backbone: Path | None = None
) -> Path:
    """The manifest of text of a language to be pretrained on, in rows of `length` tokens; its tokenizer is that of the
    lessons, or of a `backbone`. `more` is a folder of JSON lines, each a source beside what the shared data hold."""
    name, data = "-".join(["open", language, *([backbone.name.lower()] if backbone else [])]), lessons[0].data
    folder.mkdir(parents=True, exist_ok=True)
    if not verbs.has_pipeline():
        return verbs.built(folder / f"recipe-{name}.toml", folder / "store", data)
    versions = [(lesson, lesson.labelled(None, "-cut")) for lesson in lessons]
    unseen = folder / "held-out.jsonl"
    verbs.lines(unseen, ({"text": t} for lesson, made in versions for t in lesson.texts(made, "test").texts))
    sources = {lesson.given.name: lesson.texts(made, "train").texts for lesson, made in versions}
    sources["pages"] = verbs.pages(data, PAGES[language])
    for source, texts in sources.items():
        verbs.lines(folder / f"{source}.jsonl", ({"text": text} for text in texts))
    cards = [verbs.card(folder, source, [f"{source}.jsonl"], language) for source in sources]
    cards += verbs.cards(folder, more, language)
    tokens = given(backbone.absolute() / "tokenizer.json") if backbone else f'{TOKENS[language]}\nsample = "64MB"'
    if language == "en":
        cards.append(verbs.card(folder, "wikitext", [str(data / "lm" / "wikitext2_valid.txt")], "en", ()))
    cut = CUT.format(json.dumps(str(unseen)))
    recipe = _recipe(name, cards, more=cut, tokens=tokens, layout="packed", length=length, split={"val": 0.02})
    return _built(folder, recipe, data)


def _recipe(
    name: str,
    sources: Sequence[str],
    *,
    tokens: str,
    layout: str,
    length: int,
    split: dict[str, object],
    more: str = "",
) -> str:
    splits = ", ".join(f"{key} = {json.dumps(value)}" for key, value in split.items())
    return RECIPE.format(
        name=json.dumps(name),
        sources=json.dumps([*sources]),
        more=more,
        tokens=tokens,
        layout=layout,
        length=length,
        split=f"{{{splits}}}",
    )


def _built(folder: Path, recipe: str, data: Path) -> Path:
    file = folder / f"recipe-{tomllib.loads(recipe)['name']}.toml"
    if verbs.has_pipeline():
        file.write_text(recipe, "utf-8")
    return verbs.built(file, folder / "store", data)


def given(tokenizer: Path) -> str:
    """What a recipe says under [tokens] of a tokenizer.json."""
    return f"tokenizer = {json.dumps(str(tokenizer))}"


def tokenizer_of(manifest: Path) -> Path:
    """The tokenizer of a version."""
    return manifest.parent.absolute() / str(json.loads(manifest.read_bytes())["tokenizer"]["file"])


def tf_idf(train: Texts, test: Texts, counted: dict[str, object]) -> tuple[Scores, float]:
    """[1, test]: which texts TF-IDF with logistic regression gets right, and its C: that of three folds of train."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import Pipeline

    model = Pipeline(
        [
            ("weights", TfidfVectorizer(sublinear_tf=True, **counted)),
            ("classes", OneVsRestClassifier(LogisticRegression(solver="liblinear", dual=True, max_iter=300))),
        ]
    )
    search = GridSearchCV(model, {"classes__estimator__C": [1, 3, 10, 30, 100]}, cv=3)
    search.fit(train.texts, train.labels)
    right = search.predict(test.texts) == np.array(test.labels)
    return right.astype(np.float64)[None], float(search.best_params_["classes__estimator__C"])
