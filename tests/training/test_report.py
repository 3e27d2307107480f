"""The report: its numbers are those of the content, nothing in the content can act on it, and gaps do not break it."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import builds
from training import report

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "javascript:alert(1)",
    'https://example.org/"onmouseover="alert(1)',
    "</title></style></code></pre></details><h1>",
    "{{ 7 * 7 }}{% raw %}&lt;&#60;",
    "a\x00b\x07\x1b[2J\r\x85",
    "\u202eexe.fdp\u202c \u2067 \u2028",
    "\ud800 lone \udfff",
]
# Tables whose keys come from a corpus, a card or a machine.
OPEN = {"reasons", "languages", "by_source", "by_language", "licences", "splits", "packages"}


@dataclass
class Page(HTMLParser):
    """What a browser makes of the page: its tags in order, its links, its text by section, and its cells."""

    text: str
    tags: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.section, self.classes = "top", ""
        self.feed(self.text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.links += [given["href"] or ""] if "href" in given else []
        self.values += [value or "" for _, value in attrs]
        if tag == "h2":
            self.section = given["id"] or ""
        if tag in ("td", "th", "dd", "dt", "p", "summary", "text"):
            self.sections.setdefault(self.section, []).append("")
        self.classes = given.get("class") or ""
        if "said" in self.classes.split():
            self.said.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag
        self.classes = ""

    def handle_data(self, data: str) -> None:
        if "said" in self.classes.split():
            self.said[-1] += data
        elif set(self.open) & {"td", "th", "dd", "dt", "p", "summary", "text"}:
            self.sections[self.section][-1] += data


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    corpus = builds.write_corpus(tmp_path_factory.mktemp("corpus"))
    return builds.build(builds.make_recipe(corpus), tmp_path_factory.mktemp("store")).manifest


@pytest.fixture(scope="module")
def content(manifest: dict[str, Any]) -> dict[str, Any]:
    """A report's content: all that a real manifest says, and a run with a number of its own in every place."""
    draw = random.Random(11)

    def judged(size: int) -> dict[str, Any]:
        loss = draw.uniform(1, 6)
        return {
            "documents": draw.randrange(100, 999),
            "targets": size // 3,
            "bytes": size,
            "loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": draw.uniform(0.5, 3),
            "ngrams": {str(n): draw.uniform(0.5, 3) for n in (2, 3, 4)},
        }

    def scores() -> dict[str, float]:
        return {name: judged(9)[name] for name in ("loss", "perplexity", "bits_per_byte")}

    curve = [
        {
            "step": step,
            "tokens": step * 4096,
            "loss": 3 + 6 / step,
            "learning_rate": 1e-3 / step,
            "gradient_norm": 0.7 + 1 / step,
            "tokens_per_second": 8000.0 + step,
        }
        for step in range(1, 9)
    ]
    validation = [{"step": s, "tokens": s * 4096, "loss": 3.5 + 4 / s, "bits_per_byte": 1.7 + 1 / s} for s in (4, 8)]
    prompts = [
        {"prompt": "\n The mill\t", "doc_id": "grain:a.jsonl:4", "continuations": ["turns\n  slowly ", ""]},
        {"prompt": "磨坊的水轮", "doc_id": None, "continuations": ["转动着。", "السلام"]},
    ]
    known = ("name", "version", "layout", "length", "parents")
    return {
        "format": "gristmill.report/1",
        "run": {
            "name": "small-1a2b3c4d",
            "digest": "d" * 32,
            "seed": 271828,
            "objective": "causal",
            "model": {
                "family": "gpt",
                "layers": 6,
                "rope_theta": 10000.0,
                "tie": True,
                "parameters": 13762561,
                "embedding_parameters": 3145727,
            },
            "optimizer": {"use": "muon", "betas": [0.9, 0.95], "embedding_learning_rate": None},
            "schedule": {"steps": 8, "warmup": 2, "decay": 3, "floor": 0.125},
            "steps": 1733,
            "rows_per_step": 37,
            "length": 64,
            "tokens_seen": 32768123,
            "epochs": 1.7531,
            "seconds": 8041.0,
            "tokens_per_second": 9204.3,
            "mfu": 0.4137,
            "processes": 3,
            "threads": 7,
            "precision": "bf16",
            "hardware": {"cpu": "Some Processor", "cores": 5, "memory_bytes": 8323948544, "gpu": "Some GPU"},
            "packages": {"python": "3.11.2", "torch": "2.13.0"},
            "chain": "c" * 32,
            "checkpoint": "checkpoints/step-00001733",
            "resumed_at": [411, 977],
        },
        "version": {
            "address": f"{manifest['name']}@{manifest['version']}",
            "manifest_sha256": "e" * 64,
            **{name: manifest[name] for name in known},
            "tokenizer": {name: manifest["tokenizer"][name] for name in ("vocab_size", "trained_on")},
            "sources": [{k: v for k, v in source.items() if k != "files"} for source in manifest["sources"]],
            "splits": {
                name: {k: v for k, v in split.items() if k != "shards"} for name, split in manifest["splits"].items()
            },
        },
        "corpus": {"accounting": manifest["accounting"], "summaries": manifest["summaries"]},
        "training": {"curve": curve, "validation": validation},
        "evaluation": {
            "split": "val",
            **{name: judged(987654)[name] for name in ("documents", "targets", "bytes")},
            "model": scores(),
            "ngrams": [{"order": n, **scores(), "tokens_read": 7654321} for n in (2, 3, 4)],
            "by_source": {"grain": judged(700000), "flour": judged(800000)},
            "by_language": {name: judged(10000 * n) for n, name in enumerate("en zh de fr es ja ru ko".split(), 1)},
            "documents_file": "evaluation/val.parquet",
        },
        "compared": [
            {
                "name": name,
                "family": family,
                "form": form,
                "objective": objective,
                "parameters": draw.randrange(10**6, 10**8),
                "tokens_read": draw.randrange(10**6, 10**8),
                "measure": "pseudo-perplexity",
                "perplexity": draw.uniform(10, 90),
                "bits_per_byte": draw.uniform(0.5, 3),
                "split": "val",
                "targets": draw.randrange(10**4, 10**6),
                "bytes": draw.randrange(10**4, 10**6),
                "split_bytes": 10**6 + 7,
                "tokens_per_second": draw.uniform(1000, 9000),
                "mfu": draw.uniform(0.1, 0.6),
            }
            for name, family, form, objective in (("one", "gpt", "qwen3", "causal"), ("other", "t5", None, "span"))
        ],
        "samples": {
            "temperature": 0.8125,
            "top_k": 47,
            "top_p": 0.9375,
            "seed": 314159,
            "return_sequences": 2,
            "new_tokens": 53,
            "prompts": prompts,
        },
    }


def scrambled(value: Any, draw: random.Random) -> Any:
    """The corpus part with a random count in place of every count, so that no two agree by chance."""
    if isinstance(value, dict):
        return {k: scrambled(v, draw) if k not in ("edges", "segment") else v for k, v in value.items()}
    if isinstance(value, list):
        return [scrambled(v, draw) for v in value]
    return draw.randrange(10**6, 10**9) if isinstance(value, int) else value


def megabytes(number: int) -> str:
    """An independent reading of decimal units."""
    powers = [p for p in (0, 3, 6, 9) if number >= 10**p or p == 0]
    return f"{number} B" if powers[-1] == 0 else f"{number / 10 ** powers[-1]:.1f} {' KMG'[len(powers) - 1]}B"


def measured(number: float) -> str:
    whole = len(str(int(number)))
    return f"{number:,.{max(4 - whole, 0)}f}" if number >= 1 else f"{number:.3g}"


def claims(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(section, text of a cell or part of a sentence) for every number that the page says it shows."""
    summaries, run, evaluation = content["corpus"]["summaries"], content["run"], content["evaluation"]
    for stage in content["corpus"]["accounting"]:
        yield from (("corpus", f"{stage[n]:,}") for n in ("entered", "added", "dropped", "quarantined", "left"))
        yield from (("corpus", f"{number:,}") for number in stage["reasons"].values())
    counts = {name: f"{number:,}" for name, number in summaries["documents"].items()}
    yield "corpus", "{ingested} documents were read and {added} added; {kept} were kept".format(**counts)
    yield "corpus", "{dropped} dropped by a rule and {quarantined} quarantined".format(**counts)
    for group in (summaries["languages"], summaries["by_source"]):
        for entry in group.values():
            yield from (("corpus", f"{entry[n]:,}") for n in ("documents", "tokens"))
            yield "corpus", megabytes(entry["text_bytes"])
            yield from (("corpus", f"{number:,}") for number in entry.get("licences", {}).values())
    histogram = summaries["length_histogram"]
    yield from (("corpus", f"{n:,}") for name in ("ingested", "kept") for n in histogram[name])
    yield from (("corpus", f"{n:,}") for n in summaries["clusters"]["sizes"].values())
    yield "corpus", f"{summaries['clusters']['documents_in_clusters']:,} documents lay in clusters"
    for split in content["version"]["splits"].values():
        yield from (("corpus", f"{split[n]:,}") for n in ("rows", "tokens", "documents", "truncated"))
        yield "corpus", megabytes(split["text_bytes"])
    for source in content["version"]["sources"]:
        yield "corpus", f"{source['documents']:,}"
        yield "corpus", megabytes(source["text_bytes"])
    yield "top", f"{run['model']['parameters']:,}"
    yield "top", f"{run['model']['embedding_parameters']:,} in embeddings"
    yield "top", f"{run['tokens_seen']:,}"
    yield "top", f"{run['epochs']:.3f} epochs, {run['steps']:,} steps"
    yield "top", "2 h 14 min"
    yield "top", f"{run['tokens_per_second']:,.0f} tokens/s, {100 * run['mfu']:.1f} % MFU"
    yield "training", f"{run['steps']:,} steps of {run['rows_per_step']} rows of {run['length']} tokens"
    yield "training", f"by {run['processes']} processes of {run['threads']} threads"
    yield "training", "Resumed at step 411, 977"
    yield from (("training", words) for words in ("13,762,561", "10000", "0.9, 0.95", "0.125"))
    for row in content["training"]["curve"]:
        yield from (("training", f"{row[n]:,}") for n in ("step", "tokens"))
        yield from (("training", measured(row[n])) for n in ("loss", "learning_rate", "gradient_norm"))
        yield "training", measured(row["tokens_per_second"])
    for row in content["training"]["validation"]:
        yield from (("training", words) for words in (measured(row["loss"]), f"{row['bits_per_byte']:.4f}"))
    for entry in [evaluation["model"], *evaluation["ngrams"]]:
        yield from (("evaluation", measured(entry[n])) for n in ("loss", "perplexity"))
        yield "evaluation", f"{entry['bits_per_byte']:.4f}"
    yield "evaluation", f"{evaluation['documents']:,} documents, {evaluation['targets']:,} targets"
    yield "evaluation", f"counted on {evaluation['ngrams'][0]['tokens_read']:,} tokens"
    for entry in [*evaluation["by_source"].values(), *evaluation["by_language"].values()]:
        yield from (("evaluation", f"{entry[n]:,}") for n in ("documents", "targets"))
        yield from (("evaluation", measured(entry[n])) for n in ("loss", "perplexity"))
        yield from (("evaluation", f"{bits:.4f}") for bits in [entry["bits_per_byte"], *entry["ngrams"].values()])
        yield "evaluation", megabytes(entry["bytes"])
    for other in content["compared"]:
        yield from (("evaluation", f"{other[n]:,}") for n in ("parameters", "tokens_read", "targets"))
        yield "evaluation", f"{measured(other['perplexity'])} pseudo-perplexity"
        yield "evaluation", measured(other["tokens_per_second"])
        yield "evaluation", f"{other['bits_per_byte']:.4f}"
        yield "evaluation", f"{100 * other['bytes'] / other['split_bytes']:.1f} % of val"
        yield "evaluation", f"{100 * other['mfu']:.1f} %"
    samples = content["samples"]
    yield "samples", f"Temperature {samples['temperature']}, top k {samples['top_k']}, top p {samples['top_p']}"
    yield "samples", f"seed {samples['seed']}, 2 continuations of at most {samples['new_tokens']} tokens"
    yield from (("lineage", words) for words in (str(run["seed"]), "5 cores", "8.3 GB"))


def missing(page: Page, content: dict[str, Any]) -> list[tuple[str, str]]:
    """Claims that the page does not keep: a lone number must be a cell of its own, words a part of a text."""

    def kept(section: str, words: str) -> bool:
        texts = page.sections[section]
        return words in texts or (not words.replace(",", "").isdigit() and any(words in text for text in texts))

    top = [(s, w) for s, w in claims(content) if s == "top"]
    rest = [(s, w) for s, w in claims(content) if s != "top" and not kept(s, w)]
    return rest + [(s, w) for s, w in top if not any(w in text for text in page.sections[s])]


def test_json_and_page_are_written_whole_and_the_json_round_trips(content, tmp_path):
    path = report.write(tmp_path, content)
    assert path == tmp_path / "report.html" and sorted(p.name for p in tmp_path.iterdir()) == [
        "report.html",
        "report.json",
    ]
    text = (tmp_path / "report.json").read_text("utf-8")
    assert json.loads(text) == content
    assert path.read_text("utf-8") == report.render(content)
    other = json.loads(json.dumps(content), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    report.write(tmp_path, other)
    assert (tmp_path / "report.json").read_text("utf-8") == text


def test_json_is_canonical_and_plain():
    odd = {"b": [math.nan, math.inf, 1.5], "a": "磨坊 \ud800 \U0001f600", "c": (1, None)}
    text = report.canonical(odd)
    assert text == '{"a":"磨坊 \\ud800 😀","b":[null,null,1.5],"c":[1,null]}'
    assert json.loads(text)["a"] == odd["a"] and text.encode()


def test_a_failed_write_leaves_the_old_report(content, tmp_path, monkeypatch):
    report.write(tmp_path, content)
    before = (tmp_path / "report.html").read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        report.write(tmp_path, {**content, "run": None})
    assert (tmp_path / "report.html").read_bytes() == before


@pytest.mark.parametrize("seed", range(8))
def test_every_number_of_the_content_is_on_the_page(content, seed):
    draw = random.Random(seed)
    changed = copy.deepcopy(content)
    changed["corpus"] = scrambled(content["corpus"], draw)
    changed["version"]["splits"] = scrambled(content["version"]["splits"], draw)
    changed["version"]["sources"] = scrambled(content["version"]["sources"], draw)
    assert missing(Page(report.render(changed)), changed) == []


def test_the_numbers_of_a_real_build_are_on_the_page(content):
    page = Page(report.render(content))
    histogram = content["corpus"]["summaries"]["length_histogram"]
    assert sum(histogram["ingested"]) == content["corpus"]["summaries"]["documents"]["ingested"] - 3
    assert [gone for gone in missing(page, content) if gone != ("corpus", "0")] == []


SCORE = st.one_of(st.floats(0.1, 8), st.sampled_from([1.5, math.nan, None]))


@settings(max_examples=40, deadline=None)
@given(own=SCORE, others=st.lists(SCORE, max_size=4))
def test_the_verdict_is_what_the_numbers_say(content, own, others):
    evaluation = copy.deepcopy(content["evaluation"])
    evaluation["model"]["bits_per_byte"] = own
    evaluation["ngrams"] = [{"order": n, "bits_per_byte": bits} for n, bits in enumerate(others, 2)]
    words = " ".join(Page(report.render({**content, "evaluation": evaluation})).sections["top"])
    for order, bits in enumerate(others, 2):
        known = all(isinstance(v, float) and not math.isnan(v) for v in (own, bits))
        expected = ("beats" if own < bits else "does not beat") if known else "cannot be compared with"
        number = f"{bits:.4f}" if isinstance(bits, float) and not math.isnan(bits) else "n/a"
        assert re.search(rf"(?:model|,) {expected} the {order}-gram \({number}\)", words)
    assert len(re.findall(r"-gram \(", words)) == len(others)


def attacked(value: Any, attack: Callable[[str], str], table: str = "") -> Any:
    """The content with every text, and every key that a corpus may choose, attacked."""
    if isinstance(value, dict):
        return {(attack(k) if table in OPEN else k): attacked(v, attack, k) for k, v in value.items()}
    if isinstance(value, list):
        return [attacked(v, attack, table) for v in value]
    return attack(value) if isinstance(value, str) and value else value


def shape(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    return [tag for tag in page.tags if tag != ("a", ("href", "rel"))]


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("where", ["instead", "behind", "before"])
def test_no_text_of_the_content_can_act_on_the_page(content, attack, where):
    numbers: dict[str, int] = {}
    made = {
        "instead": lambda s: f"{attack}{numbers.setdefault(s, len(numbers))}",
        "behind": lambda s: s + attack,
        "before": lambda s: attack + s,
    }
    changed = attacked(content, made[where])
    harmless, text = Page(report.render(content)), report.render(changed)
    page = Page(text)
    assert shape(page) == shape(harmless)
    assert text.encode("utf-8").decode("utf-8") == text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert all(re.match(r"#[a-z]+$|https?://", link) for link in page.links)
    assert not any(value.lower().startswith(("javascript:", "data:")) for value in page.links)
    shown = report.display.visible(attack)
    assert shown in "".join(page.said) and shown in "".join(page.sections["lineage"])


def test_a_hostile_text_is_told_from_the_same_text_escaped(content):
    samples = copy.deepcopy(content["samples"])
    samples["prompts"] = [{"prompt": p, "doc_id": None, "continuations": [p]} for p in ("<b>", "&lt;b&gt;")]
    assert Page(report.render({**content, "samples": samples})).said == ["<b>", "<b>", "&lt;b&gt;", "&lt;b&gt;"]


def test_text_of_samples_is_kept_to_the_space(content):
    said = Page(report.render(content)).said
    texts = [text for p in content["samples"]["prompts"] for text in (p["prompt"], *p["continuations"]) if text]
    assert [text for text in said if text] == texts


def test_commands_can_be_pasted_whatever_the_ids_are(content):
    import shlex

    changed = copy.deepcopy(content)
    changed["samples"]["prompts"][0]["doc_id"] = evil = "a:b'; rm -rf ~; $(x) `y`:1"
    changed["version"]["address"] = "x@1 && reboot"
    text = report.render(changed)
    block = re.search(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
    parser = Page(f"<p>{block[1]}</p>")
    lines = [line for line in parser.sections["top"][0].splitlines() if not line.startswith("#")]
    assert [shlex.split(line) for line in lines] == [
        ["gristmill", "verify", "x@1 && reboot"],
        ["gristmill", "audit", "x@1 && reboot"],
        ["gristmill", "why", evil, "--version", "x@1 && reboot"],
    ]


def parts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key in the content; of entries of a list, the first stands for all."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from parts(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from parts(value[0], (*path, 0))


def without(content: dict[str, Any], path: tuple[Any, ...], *, null: bool) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if null:
        inner[path[-1]] = None
    else:
        del inner[path[-1]]
    return changed


def test_the_page_stays_whole_without_any_one_part(content):
    whole, idle = report.render(content), set()
    names = ["corpus", "training", "evaluation", "samples", "lineage", "check"]
    for path in parts(content):
        text = report.render(without(content, path, null=True))
        if len(path) <= 2:
            assert text == report.render(without(content, path, null=False)), path
        page = Page(text)
        assert [tag for tag, _ in page.tags].count("h2") == len(names) and set(names) <= set(page.sections), path
        if text == whole:
            idle.add(".".join(map(str, path)))
    # The address says name and version; the rest is empty here. All else is on the page.
    said_elsewhere = {"version.name", "version.version", "version.parents", "run.optimizer.embedding_learning_rate"}
    said_elsewhere |= {f"corpus.summaries.canaries.{name}" for name in ("allowed", "digest")}
    assert idle == {"format", "corpus.accounting.0.segment", *said_elsewhere}


@pytest.mark.parametrize("empty", [{}, {"run": None}, {"format": "gristmill.report/1", "corpus": {"accounting": []}}])
def test_a_report_of_nothing_is_a_page(empty):
    page = Page(report.render(empty))
    assert "Not evaluated: there is no verdict." in " ".join(page.sections["top"])
    assert "svg" not in {tag for tag, _ in page.tags}


def test_the_page_loads_nothing(content):
    text = report.render(content)
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base", "form", "embed"}
    names = {name for _, names in page.tags for name in names}
    assert not names & {"src", "srcset", "style", "action", "background", "poster"}
    assert not [name for name in names if name.startswith("on") or ":" in name]
    css = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in css and "@import" not in css
    outside = {link for link in page.links if not link.startswith("#")}
    assert outside == {"https://example.org"}
    assert len(re.findall("https?:", text)) == 2 * len(outside)
    assert "default-src 'none'" in text


def test_plots_have_words_and_tables_beside_them(content):
    text = report.render(content)
    page = Page(text)
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 9
    assert all(re.search(r"^<svg[^>]*role=\"img\"[^>]*><title>[^<]+</title><desc>[^<]+</desc>", plot) for plot in plots)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") and tags.count("table") > 10
    assert all(names[-1:] == ("scope",) for tag, names in page.tags if tag == "th")


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_in_every_theme():
    css = (Path(report.__file__).parent / "report.css").read_text("utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    assert len(themes) == 3
    for theme in themes:
        for ground in (theme["ground"], theme["raised"]):
            assert all(contrast(theme[name], ground) >= 4.5 for name in ("ink", "soft", "link"))
            assert all(contrast(theme[name], ground) >= 3 for name in ("s0", "s1", "s2", "s3"))
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", css)) == {colour for theme in themes for colour in theme.values()}


def test_long_tables_are_thinned_with_both_ends():
    rows = list(range(1000))
    found = report.thinned(rows, 12)
    assert len(found) == 12 and found[0] == 0 and found[-1] == 999 and found == sorted(set(found))
    assert report.thinned(rows[:12], 12) == rows[:12] and report.thinned([], 12) == []


@given(sizes=st.dictionaries(st.integers(2, 5000), st.integers(1, 10**6), max_size=40))
def test_groups_of_clusters_lose_none(sizes):
    rows = report._clusters({str(size): number for size, number in sizes.items()})
    assert sum(row[1] for row in rows) == sum(sizes.values())
    assert sum(row[2] for row in rows) == sum(size * number for size, number in sizes.items())
    for words, number, _ in rows:
        low, high = int(words.split()[0]), int(words.split()[-1])
        assert number == sum(n for size, n in sizes.items() if low <= size <= high)
