"""The papers of a version, each by the program that reads it, and what hostile words can do to them: nothing."""

from __future__ import annotations

import html.parser
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from pipeline import manifest as manifests
from pipeline import papers
from pipeline.catalog import cards
from pipeline.manifest import Version
from pipeline.papers import card, facts
from pipeline.stage import ConfigError
from pipeline.store import Store
from tests import builds
from tests.conftest import ROOT

EVIL = '"><script>alert(1)</script> | # `x` [a](javascript:b) \u202e\u0000\n---\nlicense: mit\n'
HOSTS = ("Example.org", "user:pass@mill.example:8080", "a<script>.example", "b|c.example", "d\u202e.example", "[::1]")
STATED = ("CC-BY-4.0", "MIT OR GPL-3.0-only", "LicenseRef-Mill", EVIL, None)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Store, Version]:
    """A version whose licences, languages, addresses, labels and title try everything."""
    root = tmp_path_factory.mktemp("hostile")
    folder = builds.write_corpus(root / "corpus", 10)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    rows = [
        {
            "text": f"the mill {n} turns with water and the wheel {n * n} grinds grain",
            "licence": STATED[n % len(STATED)],
            "url": f"https://{HOSTS[n % len(HOSTS)]}/{n}" if n % 7 else None,
        }
        for n in range(210)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = builds.CARD.replace('licence = "CC0-1.0"', 'licence = "NOASSERTION"\ncollected = "2023-11/2024-02"')
    text = text.replace("Test grain", "Grain <script>alert(1)</script> | of *mills*")
    columns = ", ".join(f'{name} = "{name}"' for name in ("text", "licence", "url"))
    (folder / "grain.toml").write_text(f"{text}columns = {{{columns}}}\n")
    store = root / "store"
    return Store(store), builds.build(builds.make_recipe(folder, []), store)


@pytest.fixture(scope="module", params=["packed", "examples"])
def plain(request, tmp_path_factory) -> Version:
    corpus = builds.write_corpus(tmp_path_factory.mktemp("corpus"))
    pack = {"length": 64, "split": {"val": 0.1, "val_x": 0.1}, "layout": request.param}
    return builds.build(builds.make_recipe(corpus, pack=pack), tmp_path_factory.mktemp("store"))


def read(version: Version, name: str) -> Any:
    return json.loads((version.folder / name).read_text("utf-8"))


def front_matter(page: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load(page.split("---\n")[1])
    return found


def test_every_version_has_its_papers_and_they_are_in_no_digest(plain: Version) -> None:
    before = {name: (plain.folder / name).read_bytes() for name in papers.PAPERS}
    for name in papers.PAPERS:
        (plain.folder / name).write_text("edited")
    assert not list(manifests.verify(plain))
    papers.again(plain)
    assert {name: (plain.folder / name).read_bytes() for name in papers.PAPERS} == before


def test_the_same_version_elsewhere_has_the_same_papers(plain: Version, tmp_path: Path) -> None:
    shutil.copytree(plain.folder, tmp_path / "copy")
    copy = manifests.read(tmp_path / "copy")
    before = {name: (plain.folder / name).read_bytes() for name in papers.PAPERS}
    for name in papers.PAPERS:
        (copy.folder / name).unlink()
    papers.again(copy)
    assert {name: (copy.folder / name).read_bytes() for name in papers.PAPERS} == before


def test_datasets_loads_the_splits_of_the_folder_as_it_is(plain: Version, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(plain.folder), cache_dir=str(tmp_path))
    said = plain.manifest["splits"]
    assert {name: split.num_rows for name, split in loaded.items()} == {n: s["rows"] for n, s in said.items()}
    assert set(loaded["train"].column_names) == set(card.columns(plain.manifest)) | (
        {"label", "document"} if plain.manifest["layout"] == "examples" else set()
    )
    used = loaded["val"]["used"] if "used" in loaded["val"].column_names else map(len, loaded["val"]["tokens"])
    assert sum(used) == said["val"]["tokens"]


def test_the_hub_reads_the_card(plain: Version) -> None:
    from huggingface_hub import DatasetCard

    data = DatasetCard.load(plain.folder / "README.md").data
    assert (data.license, data.size_categories) == (["cc0-1.0"], ["n<1K"])
    assert [entry["split"] for entry in data.configs[0]["data_files"]] == list(plain.manifest["splits"])


def test_mlcroissant_finds_nothing_wrong_and_loads_every_document(plain: Version, caplog) -> None:
    check_croissant(plain, caplog)


def test_mlcroissant_reads_hostile_words_as_they_are(hostile: tuple[Store, Version], caplog) -> None:
    check_croissant(hostile[1], caplog)


def check_croissant(any_version: Version, caplog: Any) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    with caplog.at_level(logging.WARNING):
        found = mlcroissant.Dataset(jsonld=str(any_version.folder / "croissant.json"))
    issues = found.metadata.ctx.issues
    assert not issues.errors and len(issues.warnings) == 1 and "datePublished" in str(issues.warnings)
    assert found.metadata.ctx.is_v1_1()
    records = list(found.records("documents"))
    index = any_version.index()
    for name in index.column_names:
        theirs = [record[f"documents/{name}"] for record in records]
        assert [v.decode() if isinstance(v, bytes) else v for v in theirs] == index[name].to_pylist(), name


def test_croissant_vouches_for_every_file_with_the_digest_that_it_has(plain: Version) -> None:
    from pipeline.store import file_digest

    files = read(plain, "croissant.json")["distribution"]
    shards = [shard["file"] for split in plain.manifest["splits"].values() for shard in split["shards"]]
    assert [file["contentUrl"] for file in files] == ["documents.parquet", "tokenizer.json", *shards]
    for file in files:
        assert file["sha256"] == file_digest(plain.folder / file["contentUrl"], "sha256")


def test_the_statement_counts_what_the_index_holds(hostile: tuple[Store, Version]) -> None:
    _, version = hostile
    said, index = read(version, "statement.json"), version.index().to_pylist()
    licences = Counter(row["licence"] or "NOASSERTION" for row in index)
    assert {entry["documents"] for entry in said["licences"]} == set(licences.values())
    assert said["unknown_licence"]["documents"] == licences["NOASSERTION"] == 42
    tokens = {entry["licence"]: entry["tokens"] for entry in said["licences"]}
    for name in ("CC-BY-4.0", "NOASSERTION"):
        assert tokens[name] == sum(row["tokens"] for row in index if (row["licence"] or "NOASSERTION") == name)
    assert sum(tokens.values()) == said["general"]["size"]["tokens"]
    domains = {entry["domain"]: entry["documents"] for entry in said["domains"]["listed"]}
    assert domains["example.org"] == sum("//Example.org/" in (row["url"] or "") for row in index)
    assert domains["mill.example"] > 0 and said["domains"]["documents_with_address"] == 180
    assert said["general"]["latest_acquisition"] == "2024-02"
    assert said["sources"][0]["collected"] == "2023-11/2024-02"
    assert said["general"]["provider"] is None and said["processing"]["reservation_of_rights"] is None
    sizes = [entry["text_bytes"] for entry in said["domains"]["listed"]]
    assert sizes == sorted(sizes, reverse=True)


class Tags(html.parser.HTMLParser):
    """Every tag of a page that is read as HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def tags(version: Version, name: str) -> Iterator[str]:
    parser = Tags()
    text = (version.folder / name).read_text("utf-8")
    # What a backslash makes plain is no tag to Markdown.
    parser.feed(text.replace("\\<", "").replace("\\&", ""))
    yield from parser.tags


@pytest.mark.parametrize("name", sorted(papers.PAPERS))
def test_hostile_words_are_shown_and_never_obeyed(hostile: tuple[Store, Version], name: str) -> None:
    _, version = hostile
    text = (version.folder / name).read_text("utf-8")
    assert all(character.isprintable() or character == "\n" for character in text)
    if name.endswith(".json"):
        assert "<" not in text and json.loads(text)
        return
    # Autolinks of Markdown are all that has angle brackets.
    assert set(tags(version, name)) <= {"https:", "http:"}
    assert "](javascript" not in text.replace("\\]\\(", "")
    cells = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| licence")}
    rows = [line for line in text.splitlines() if line.startswith("|") and "script" in line]
    assert rows and cells
    for row in rows:
        assert row.replace("\\|", "").count("|") > 3


def test_hostile_words_stay_out_of_the_front_matter(hostile: tuple[Store, Version]) -> None:
    version, index = hostile[1], hostile[1].index()
    # Only a stage of somebody's own can say such a language.
    said = pa.array([("en", "no", EVIL, None)[n % 4] for n in range(index.num_rows)])
    index = index.set_column(index.column_names.index("language"), "language", said)
    found = front_matter(card.written(facts.of(version.manifest, index)))
    assert found["language"] == ["en", "no"]
    assert found["license"] == ["cc-by-4.0", "gpl-3.0", "mit", "other", "unknown"]
    assert found["license_link"] == "ATTRIBUTION.md" and set(found["configs"][0]) == {"config_name", "data_files"}


def test_attribution_names_source_licences_and_changes(hostile: tuple[Store, Version], plain: Version) -> None:
    text = (hostile[1].folder / "ATTRIBUTION.md").read_text("utf-8")
    for part in ("https://spdx.org/licenses/CC-BY-4.0.html", "<https://example.org>", "42", "NOASSERTION", "No stage"):
        assert part in text
    assert "Texts were changed by the stages `normalise`" in (plain.folder / "ATTRIBUTION.md").read_text("utf-8")


@pytest.mark.parametrize(("rows", "said"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K")])
def test_size_categories_are_those_of_the_hub(rows: int, said: str) -> None:
    assert card.size_category(rows) == said
    assert card.size_category(10**11) == "100B<n<1T" and card.size_category(10**12) == "n>1T"


def test_papers_of_a_damaged_version_are_refused_and_nothing_is_written(plain: Version, tmp_path: Path) -> None:
    shutil.copytree(plain.folder, tmp_path / "copy")
    for name in papers.PAPERS:
        (tmp_path / "copy" / name).unlink()
    table = json.loads(json.dumps(plain.manifest))
    table["sources"][0]["licence"] = "MIT"
    with pytest.raises(ConfigError, match="was edited"):
        papers.again(Version(tmp_path / "copy", table))
    other = builds.build(builds.make_recipe(builds.write_corpus(tmp_path / "other", 60)), tmp_path / "store")
    shutil.copyfile(other.folder / "documents.parquet", tmp_path / "copy" / "documents.parquet")
    with pytest.raises(ConfigError, match="not the document index"):
        papers.again(manifests.read(tmp_path / "copy"))
    assert not any((tmp_path / "copy" / name).exists() for name in papers.PAPERS)


def test_a_card_may_say_when_its_documents_were_collected(tmp_path: Path) -> None:
    schema = jsonschema.Draft202012Validator(
        json.loads((ROOT / "catalogs" / "schemas" / "card.schema.json").read_text("utf-8"))
    )
    table = {"name": "grain", "kind": "files", "title": "T", "description": "D", "homepage": "https://example.org"}
    table |= {"licence": "MIT", "languages": ["en"], "params": {"paths": ["*.jsonl"]}}
    for period, good in {"2024": 1, "2024-05": 1, "2024-05-31/2025": 1, "May": 0, "2024-13": 0, "2024/": 0}.items():
        asked = {**table, "collected": period}
        assert schema.is_valid(asked) == bool(good)
        if good:
            assert cards.parse(asked, "here").collected == period
        else:
            with pytest.raises(ConfigError, match="here: collected"):
                cards.parse(asked, "here")


def test_the_period_is_in_the_manifest_and_both_halves_take_it(hostile: tuple[Store, Version]) -> None:
    from training.manifest import open_version

    schema = json.loads((ROOT / "catalogs" / "schemas" / "manifest.schema.json").read_text("utf-8"))
    jsonschema.validate(hostile[1].manifest, schema)
    assert open_version(hostile[1].folder).manifest.sources[0]["collected"] == "2023-11/2024-02"


def test_tokens_are_those_of_the_shards_and_what_was_cut_off(plain: Version) -> None:
    found = facts.of(plain.manifest, plain.index())
    assert found.total.tokens - found.truncated == sum(s["tokens"] for s in plain.manifest["splits"].values())
    assert (found.truncated > 0) == (plain.manifest["layout"] == "examples") == ("cut off" in card.written(found))


def test_facts_of_sources_that_kept_nothing_are_noughts(plain: Version) -> None:
    found = facts.of(plain.manifest, plain.index().slice(0, 0))
    assert found.total == facts.Amount() and found.by_licence == {} and found.unknown == facts.Amount()
    for paper in papers.PAPERS.values():
        assert paper(found)
