"""Three sets of labelled texts as versions, the open text beside each, and what TF-IDF makes of the same documents.

    sst2        sentences of film reviews, good or bad           held out: the published dev set
    ag_news     news in English, of four kinds                   held out: a fifth of the split groups
    thucnews    titles of news in Chinese, of ten kinds          held out: a fifth of the split groups

Text to be pretrained on is the unlabelled text of `train`, pages of the shared corpus in that language and, in English,
WikiText-2. It is deduplicated, and what it shares with a held-out text (13 words in a row; 8 of a shorter one; in
Chinese characters) is cut out of it with 200 characters on either side (stage `decontaminate`). Held-out texts of
fewer than 8 words are met by nothing: of those the deduplicated split alone says that they are not in train.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.bench import verbs
from tests.bench.bootstrap import Scores

END = "<|endoftext|>"
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
    """A folder of train.parquet, and dev.parquet where that is held out; the folders of pages in its language, the
    tokens of a row, what TF-IDF counts, and how many steps of pretraining and epochs of train are worth it here."""

    folder: str
    language: str
    pages: tuple[str, ...]
    length: int
    counted: dict[str, object]
    steps: int
    epochs: int

    @property
    def name(self) -> str:
        return self.folder.replace("_", "-")


WORDS = {"ngram_range": (1, 2)}
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3)}
ENGLISH, CHINESE = ("en", "en-US"), ("zh-CN",)
DATA_SETS = {
    "sst2": DataSet("sst2", "en", ENGLISH, 64, WORDS, 400, 2),
    "ag_news": DataSet("ag_news", "en", ENGLISH, 64, WORDS, 400, 2),
    "thucnews": DataSet("thucnews_zh", "zh", CHINESE, 64, CHARACTERS, 600, 2),
}


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
        tokens = f"tokenizer = {json.dumps(str(tokenizer))}" if tokenizer else "vocab_size = 512"
        # Splits are laid out in the order of their names, so those that come behind `test` do not move it.
        split = {"test": held, **splits}
        return self._built(f"{self.given.name}{name}", self.cards, "", tokens, "examples", split)

    def open_text(self, vocabulary: int) -> Path:
        """The manifest of text to be pretrained on, whose tokenizer is every other version's."""
        manifest = self.labelled(None, "-cut")
        train, held = self.texts(manifest, "train"), self.texts(manifest, "test")
        pages = verbs.pages(self.data, self.given.pages)
        unseen = self.folder / "held-out.jsonl"
        verbs.lines(unseen, ({"text": text} for text in held.texts))
        sources = {"own": train.texts, "pages": pages}
        for name, texts in sources.items():
            verbs.lines(self.folder / f"{name}.jsonl", ({"text": text} for text in texts))
        cards = [verbs.card(self.folder, name, [f"{name}.jsonl"], self.given.language) for name in sources]
        tokens = f'vocab_size = {vocabulary}\nsample = "16MB"'
        if self.given.language == "zh":
            characters(self.folder / "characters.json", [*train.texts, *pages], vocabulary)
            tokens = 'tokenizer = "characters.json"'
        else:
            cards.append(verbs.card(self.folder, "wikitext", [str(self.data / "lm" / "wikitext2_valid.txt")], "en", ()))
        return self._built(
            f"{self.given.name}-open", cards, CUT.format(json.dumps(str(unseen))), tokens, "packed", {"val": 0.02}
        )

    def texts(self, manifest: Path, split: str) -> Texts:
        """The documents of a split of labelled texts, in the order of their ids."""
        index = pq.read_table(manifest.parent / "documents.parquet", columns=["doc_id", "source", "split"])
        rows = {name: pq.read_table(file, columns=["text", "label"]).to_pylist() for name, file in self.files.items()}
        chosen = sorted((row["doc_id"], row["source"]) for row in index.to_pylist() if row["split"] == split)
        found = [rows[source][int(doc_id.rsplit(":", 1)[1])] for doc_id, source in chosen]
        ids = [doc_id for doc_id, _ in chosen]
        return Texts(ids, [row["text"] for row in found], [str(row["label"]) for row in found])

    def _built(
        self, name: str, sources: Sequence[str], more: str, tokens: str, layout: str, split: dict[str, object]
    ) -> Path:
        splits = ", ".join(f"{key} = {json.dumps(value)}" for key, value in split.items())
        text = RECIPE.format(
            name=json.dumps(name),
            sources=json.dumps(list(sources)),
            more=more,
            tokens=tokens,
            layout=layout,
            length=self.given.length,
            split=f"{{{splits}}}",
        )
        (self.folder / f"recipe-{name}.toml").write_text(text, "utf-8")
        return verbs.built(self.folder / f"recipe-{name}.toml", self.store, self.data)


def tokenizer_of(manifest: Path) -> Path:
    """The tokenizer of a version."""
    return manifest.parent.absolute() / str(json.loads(manifest.read_bytes())["tokenizer"]["file"])


def characters(path: Path, texts: Sequence[str], vocabulary: int) -> None:
    """Write a byte-level BPE in which no token has more than one Chinese character, the commonest one each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))


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
