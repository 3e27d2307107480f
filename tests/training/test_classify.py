"""Sequence classification: the logits of `transformers`, its scores by hand, and a folder that loads there."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import brier_score_loss
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.training import runs
from tests.training.small_models import TABLES, enlarged
from tests.training.versions import make_version
from training import TrainingError, config, evaluate, export, initial, journal, loop, models, objectives, report
from training.batch import row_keys
from training.classifier import Classifier
from training.manifest import Version, open_version
from training.shards import Split

LENGTH = 32
BACKBONES: dict[str, dict[str, Any]] = {
    "qwen3": {"family": "gpt", **TABLES["grouped"]},
    "qwen3 untied": {"family": "gpt", **TABLES["untied"]},
    "llama": {"family": "gpt", **TABLES["llama"]},
    "gpt2": {"family": "gpt", **TABLES["gpt2"]},
    "bert": {"family": "bert", "layers": 2, "width": 48, "heads": 3},
    "modernbert": {"family": "modernbert", "layers": 4, "width": 48, "heads": 3, "window": 8},
    "t5": {"family": "t5", "layers": 2, "width": 48, "heads": 3},
    "t5 tied": {"family": "t5", "layers": 1, "width": 32, "heads": 2, "tie_embeddings": True},
}
FAMILIES = ("gpt", "bert", "modernbert", "t5")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return runs.version(tmp_path_factory.mktemp("version") / "v", layout="examples")


@pytest.fixture(scope="module")
def version(manifest) -> Version:
    return open_version(manifest)


def classifier(table: dict[str, Any], version: Version) -> Classifier:
    """A classifier whose weights are not near zero, its head included."""
    objective = objectives.load({"use": "classify"}, "").over(version)
    model = objectives.build(objective, table, version, "[model]")
    assert isinstance(model, Classifier)
    model.initialise(1)
    enlarged(model, 1, 1 if table["family"] == "t5" else 4)
    with torch.no_grad():
        for parameter in model.on_top().values():
            parameter.mul_(20 if parameter.ndim == 2 else 1)
    return model.eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_logits_are_those_of_the_exported_folder(version, tmp_path, name):
    """On texts of unlike lengths in one padded batch, from the words alone: tokens, padding and labels agree too."""
    model = classifier(BACKBONES[name], version)
    eot = version.manifest.tokenizer.eot
    export.export(model, tokenizer_file=version.tokenizer_file, eot=eot, length=LENGTH, folder=tmp_path / "hf")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    assert type(theirs).__name__.endswith("ForSequenceClassification")
    assert theirs.config.id2label == dict(enumerate(version.manifest.labels or []))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    split = Split(version, "val")
    rows = split.take(np.arange(len(split)))
    chosen = np.flatnonzero((np.asarray(rows.labels) >= 0) & (rows.used < LENGTH))
    words = [tokenizer.decode(rows.tokens[r, 1 : rows.used[r] - 1]) for r in chosen]
    assert len({len(text.split()) for text in words}) > 3
    batch = tokenizer(words, padding=True, return_tensors="pt")
    objective: Any = objectives.load({"use": "classify"}, "")
    prepared = objective.prepare(split.take(chosen), row_keys(0, 0, chosen))
    with torch.inference_mode():
        ours, logits = objective.logits(model, prepared), theirs(**batch).logits
    assert ours.abs().max() > 0.3 and (ours.std(0) > 0.01).all()
    assert (ours - logits).abs().max() < 1e-4


@pytest.mark.parametrize("name", BACKBONES)
def test_a_text_alone_has_the_logits_that_it_has_in_a_batch(version, name):
    model = classifier(BACKBONES[name], version)
    objective: Any = objectives.load({"use": "classify"}, "")
    split = Split(version, "val")
    with torch.inference_mode():
        whole = objective.logits(model, objective.prepare(split.take(np.arange(12)), row_keys(0, 0, np.arange(12))))
        alone = []
        for number in range(12):
            rows = split.take(np.array([number]))
            if np.asarray(rows.labels)[0] >= 0:
                alone.append(objective.logits(model, objective.prepare(rows, row_keys(0, 0, rows.index))))
    assert (whole - torch.cat(alone)).abs().max() < 1e-5


def test_what_is_left_out_of_a_text_is_a_function_of_its_row_and_key(version):
    """A subsequence with the same ends, of about the share that is asked for; whatever lies beside it."""
    split, rate = Split(version, "train"), 0.3
    numbers = np.arange(len(split))
    rows, keys = split.take(numbers), row_keys(4, 2, numbers)
    objective: Any = objectives.load({"use": "classify", "word_dropout": rate}, "")
    read = objective.perturbed(rows, keys)
    for row in range(len(rows)):
        whole, left = rows.tokens[row, : rows.used[row]].tolist(), read.tokens[row, : read.used[row]].tolist()
        rest = iter(whole)
        assert all(token in rest for token in left), "tokens in their order"
        assert (left[0], left[-1]) == (whole[0], whole[-1])
    inside = int((rows.used - 2).sum())
    dropped = int((rows.used - read.used).sum())
    assert abs(dropped - rate * inside) < 4 * (inside * rate * (1 - rate)) ** 0.5
    chosen = np.array([7, 3, 11])
    alone = objective.perturbed(split.take(numbers[chosen]), keys[chosen])
    assert np.array_equal(alone.tokens[:, : alone.used.max()], read.tokens[chosen][:, : alone.used.max()])
    other = objective.perturbed(rows, row_keys(4, 3, numbers))
    assert (other.used != read.used).any()
    plain: Any = objectives.load({"use": "classify"}, "")
    assert plain.perturbed(rows, keys) is rows
    with pytest.raises(TrainingError, match="word_dropout"):
        objectives.load({"use": "classify", "word_dropout": 1.0}, "")


def test_texts_are_learnt_from_in_part_and_judged_whole(manifest, version, tmp_path):
    """The same run whatever the micro-batches and wherever it stopped; and no token is left out of an evaluation."""
    run = runs.write_run(tmp_path / "run")
    changes = ('objective.use="classify"', "objective.word_dropout=0.4", 'precision.compute="float32"')
    whole = runs.fit(run, manifest, tmp_path / "whole", changes=(*changes, "batch.micro_rows=2"))
    runs.fit(run, manifest, tmp_path / "parts", after=3, changes=changes)
    parts = runs.fit(run, manifest, tmp_path / "parts", changes=changes)
    assert np.allclose(runs.losses(whole), runs.losses(parts), rtol=0, atol=1e-4)
    plain = runs.fit(run, manifest, tmp_path / "plain", changes=changes[::2])
    assert whole.table["chain"] == plain.table["chain"] and runs.losses(whole)[0] != runs.losses(plain)[0]
    model = loop.load(*journal.read(whole.folder)[1:], whole).eval()
    split = Split(version, "val")
    rows = split.take(np.arange(len(split)))
    objective: Any = objectives.load({"use": "classify"}, "")
    with torch.inference_mode():
        losses = objective.losses(model, objective.prepare(rows, row_keys(0, 0, rows.index)))
    assert whole.table["evaluation"]["loss"] == pytest.approx(float(losses.mean()), abs=1e-4)


@pytest.fixture(scope="module", params=FAMILIES)
def done(request, manifest, tmp_path_factory) -> journal.Journal:
    """A small run of each family."""
    changes = ('objective.use="classify"', f'model.family="{request.param}"', "schedule.steps=40")
    folder = tmp_path_factory.mktemp(request.param)
    return runs.fit(runs.write_run(folder / "run"), manifest, folder / "runs", changes=changes)


def test_every_number_of_the_report_follows_from_the_documents(done, version):
    report = json.loads((done.folder / "report.json").read_text("utf-8"))
    said = report["classification"]
    assert report.get("evaluation") is None
    rows = pq.read_table(done.folder / said["documents_file"]).to_pylist()
    index = {row["doc_id"]: row for row in version.documents.to_pylist()}
    val = [row for row in index.values() if row["split"] == "val"]
    assert {r["doc_id"]: r["label"] for r in rows} == {r["doc_id"]: r["label"] for r in val if r["label"]}
    assert said["documents"] == len(rows) and said["unlabelled"] == len(val) - len(rows) > 0
    right = [row["label"] == row["predicted"] for row in rows]
    assert said["model"]["accuracy"] == pytest.approx(np.mean(right))
    assert said["model"]["loss"] == pytest.approx(np.mean([row["nats_model"] for row in rows]))
    labels = said["labels"]
    table = [[sum((r["label"], r["predicted"]) == (g, p) for r in rows) for p in labels] for g in labels]
    assert said["confusion"] == table
    hits = [row for row in rows if row["label"] == row["predicted"]]
    assert all(row["probability"] == pytest.approx(np.exp(-row["nats_model"])) for row in hits)
    train = [row["label"] for row in index.values() if row["split"] == "train" and row["label"]]
    commonest = max(sorted(set(train)), key=train.count)
    assert said["baseline"]["label"] == commonest
    assert said["baseline"]["accuracy"] == pytest.approx(np.mean([row["label"] == commonest for row in rows]))
    for group in ("by_source", "by_language"):
        assert sum(entry["documents"] for entry in said[group].values()) == len(rows)
    assert said["calibration"]["brier"] == pytest.approx(np.mean([row["brier"] for row in rows]))
    assert sum(one["documents"] for one in said["calibration"]["bins"]) == len(rows)
    low, high = (said["interval"]["accuracy"][name] for name in ("low", "high"))
    assert low <= said["model"]["accuracy"] <= high and (low < high or low in (0, 1))
    page = (done.folder / "report.html").read_text("utf-8")
    for words in ("Confusion", "Calibration", "Learning curve", "nats a text", "Reliability"):
        assert words in page
    assert "Not evaluated" not in page and "bits per byte</th>" not in page


def test_probabilities_and_the_brier_score_are_those_of_the_model(done, version):
    model = loop.load(*journal.read(done.folder)[1:], done).eval()
    objective: Any = objectives.load({"use": "classify"}, "")
    split = Split(version, "val")
    rows = split.take(np.arange(len(split)))
    with torch.inference_mode():
        logits = objective.logits(model, objective.prepare(rows, row_keys(0, 0, rows.index)))
    said = torch.softmax(logits.double(), -1).numpy()
    labels = np.asarray(rows.labels)[np.asarray(rows.labels) >= 0]
    found = json.loads((done.folder / "report.json").read_text("utf-8"))["classification"]["calibration"]
    # The run's own numbers are of bfloat16.
    theirs = brier_score_loss(labels, said / said.sum(1, keepdims=True), scale_by_half=False)
    assert found["brier"] == pytest.approx(theirs, abs=0.02)
    weighed = sum(one["probability"] * one["documents"] for one in found["bins"]) / len(labels)
    assert weighed == pytest.approx(said.max(1).mean(), abs=0.01)


def test_mistakes_are_the_surest_and_show_their_documents(done, version):
    said = json.loads((done.folder / "report.json").read_text("utf-8"))["classification"]
    rows = pq.read_table(done.folder / said["documents_file"]).to_pylist()
    wrong = sorted((r for r in rows if r["label"] != r["predicted"]), key=lambda r: -r["probability"])
    assert [m["probability"] for m in said["mistakes"]] == [r["probability"] for r in wrong[:10]]
    index = {row["doc_id"]: row for row in version.documents.to_pylist()}
    tokenizer = export.Tokenizer.from_file(str(version.tokenizer_file))
    split = Split(version, "val")
    texts = {
        version.documents["doc_id"][int(row.documents[0])].as_py(): tokenizer.decode(row.tokens[1 : row.used - 1])
        for row in (split[n] for n in range(len(split)))
    }
    for entry in said["mistakes"]:
        assert entry["label"] == index[entry["doc_id"]]["label"] != entry["predicted"]
        assert entry["text"] == texts[entry["doc_id"]] and entry["source"] == index[entry["doc_id"]]["source"]


def test_run_json_the_last_line_and_the_report_say_the_same(done, capsys):
    from training.__main__ import _say
    from training.outcome import paths

    said = json.loads((done.folder / "report.json").read_text("utf-8"))["classification"]
    _say(True, done, journal.read(done.folder)[2], paths(done))
    for found in (done.table["evaluation"], json.loads(capsys.readouterr().out)):
        assert {name: found[name] for name in ("accuracy", "macro_f1")} == {
            name: said["model"][name] for name in ("accuracy", "macro_f1")
        }
        assert found["accuracy_interval"] == said["interval"]["accuracy"]
        assert found["macro_f1_interval"] == said["interval"]["macro_f1"]
        assert (found["calibration_error"], found["brier"]) == (
            said["calibration"]["error"],
            said["calibration"]["brier"],
        )


HOSTILE = ("</div><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a\u202eb\x1b[31m\x00", "{{ 7 * 7 }}")


@pytest.mark.parametrize("attack", HOSTILE)
def test_no_label_text_or_id_can_act_on_the_page(done, attack):
    content = json.loads((done.folder / "report.json").read_text("utf-8"))
    said = content["classification"]
    said["mistakes"] = [
        {"doc_id": attack, "source": attack, "label": attack, "predicted": attack, "probability": 0.9, "text": attack}
    ]
    said["labels"] = [f"{attack}{name}" for name in said["labels"]]
    said["by_label"] = {f"{attack}{name}": entry for name, entry in said["by_label"].items()}
    page = report.render(content)
    assert report.display.visible(attack) in html.unescape(page)
    assert "<script" not in page and "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)


@pytest.mark.parametrize(
    "part", ["interval", "calibration", "mistakes", "baseline", "by_label", "confusion", "labels", "model", "by_source"]
)
def test_the_page_stays_whole_without_any_one_part(done, part):
    content = json.loads((done.folder / "report.json").read_text("utf-8"))
    del content["classification"][part]
    page = report.render(content)
    assert page.rstrip().endswith("</html>") and page.count("<h2") == 6


def test_a_run_learns_more_than_the_commonest_class(done):
    """BERT from nothing needs more steps than these: the first token's state is the last to learn."""
    if done.table["config"]["model"]["family"] == "bert":
        assert runs.losses(done)[-1] < 1.3
        return
    found = done.table["evaluation"]
    assert found["accuracy"] > found["baseline"]["accuracy"] + 0.3


def test_a_trained_classifier_is_read_back_from_its_run_and_from_its_export(done, version, tmp_path):
    books, settings, read = journal.read(done.folder)
    model = loop.load(settings, read, books)
    eot = version.manifest.tokenizer.eot
    export.export(model, tokenizer_file=version.tokenizer_file, eot=eot, length=LENGTH, folder=tmp_path / "hf")
    for folder in (done.folder, tmp_path / "hf"):
        again = classifier(models.described(initial.source(folder).model, ""), version)
        assert initial.fill(again, folder, version) == []
        pairs = zip(model.named_parameters(), again.named_parameters(), strict=True)
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_other_labels_get_a_fresh_head(done, version, tmp_path):
    documents = [{"text": f"the mill {'wheel ' * (i % 5)}", "label": "xyz"[i % 3]} for i in range(60)]
    tokenizer = export.Tokenizer.from_file(str(version.tokenizer_file))
    other = open_version(make_version(tmp_path / "v", documents, layout="examples", tokenizer=tokenizer))
    model = classifier(models.described(initial.source(done.folder).model, ""), other)
    fresh = initial.fill(model, done.folder, other, 5)
    assert fresh == [name for name in sorted(model.on_top()) if name.startswith("head.")]
    drawn = model.head.weight.detach().clone()
    model.initialise_head(5)
    assert torch.equal(drawn, model.head.weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pretrained_run_is_the_backbone_and_the_head_is_named_in_the_log(family, version, manifest, tmp_path):
    """The run before had masks or sentinels, which the classifier has not."""
    use = {"gpt": "causal", "bert": "masked", "modernbert": "masked", "t5": "span"}[family]
    text = runs.version(tmp_path / "text")
    run_file = runs.write_run(tmp_path / "run")
    changes = (f'model.family="{family}"', f'objective.use="{use}"', "schedule.steps=8")
    before = runs.fit(run_file, text, tmp_path / "before", changes=changes)
    without_model = runs.RUN[: runs.RUN.index("[model]")] + runs.RUN[runs.RUN.index("[batch]") :]
    tuned = runs.write_run(tmp_path / "tuned", without_model)
    notes: list[str] = []

    class Noting(loop.Reporter):  # type: ignore[misc]
        phase = advance = close = staticmethod(lambda *_: None)
        say = staticmethod(notes.append)

    settings = config.load(tuned, (f"init={before.folder}", 'objective.use="classify"'))
    with loop_group(settings) as group:
        books = journal.start(tmp_path / "runs", settings, version, None, group)
        made = loop.Loop(settings, version, books, group, Noting())
    assert len(notes) == 1 and "head.weight" in notes[0] and str(before.folder) in notes[0]
    old = initial.source(before.folder).tensors()
    for name, parameter in made.model.backbone.named_parameters():
        assert torch.equal(parameter, old[name][: len(parameter)])
    if made.model.reads_mean:  # what it filled masks with goes on
        assert all(torch.equal(p, old[f"head.{name}"]) for name, p in made.model.pooler.named_parameters())
    assert made.model.head.weight.std() > 0.005


def loop_group(settings: config.Run) -> Any:
    from training.parallel import joined

    return joined(settings.precision, settings.parallel)


def test_what_cannot_be_classified_is_said_before_the_first_step(manifest, tmp_path):
    run_file = runs.write_run(tmp_path / "run")
    classify = ('objective.use="classify"',)
    packed = runs.version(tmp_path / "packed")
    with pytest.raises(TrainingError, match=r"\(classify\).*layout 'packed'.*layout = \"examples\""):
        runs.fit(run_file, packed, tmp_path / "runs", changes=classify)
    texts = [{"text": f"wheel {i} turns"} for i in range(40)]
    bare = make_version(tmp_path / "bare", texts, layout="examples")
    with pytest.raises(TrainingError, match=r"has no labels.*card"):
        runs.fit(run_file, bare, tmp_path / "runs", changes=classify)
    one = make_version(tmp_path / "one", [{**t, "label": "a"} for t in texts], layout="examples")
    with pytest.raises(TrainingError, match=r"the label 'a' alone"):
        runs.fit(run_file, one, tmp_path / "runs", changes=classify)
    some = [{**t, "label": None if i % 10 == 9 else "ab"[i % 2]} for i, t in enumerate(texts)]
    with pytest.raises(TrainingError, match=r"split 'val' has no row with a label"):
        runs.fit(
            run_file, make_version(tmp_path / "some", some, layout="examples"), tmp_path / "runs", changes=classify
        )
    for label, said in (("a", "the label 'a' alone"), (None, "no label at all")):
        told = [{**t, "label": "ab"[i // 10 % 2] if i % 10 == 9 else label} for i, t in enumerate(texts)]
        unlike = make_version(tmp_path / f"only-{label}", told, layout="examples")
        with pytest.raises(TrainingError, match=rf"rows of train have {said}.*nothing to tell apart"):
            runs.fit(run_file, unlike, tmp_path / "runs", changes=classify)
    with pytest.raises(TrainingError, match=r"no split 'test'; has: train, val"):
        runs.fit(run_file, manifest, tmp_path / "runs", changes=(*classify, 'evaluation.split="test"'))
    with pytest.raises(TrainingError, match=r"labels is .* in one"):
        runs.fit(
            runs.write_run(tmp_path / "mix", runs.RUN + '\n[[mix]]\n[[mix]]\nversion = "other"\n'),
            [manifest, relabelled(tmp_path / "other", manifest)],
            tmp_path / "runs",
            changes=classify,
        )
    assert not list((tmp_path / "runs").glob("*/metrics.jsonl"))


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_texts_are_read_and_longer_ones_lose_their_end(family, tmp_path):
    """A text of nothing is its two end-of-text tokens; of one beyond the context the beginning is read."""
    texts = [{"text": f"wheel {i} turns " * (1 + i % 3), "label": "ab"[i % 2]} for i in range(60)]
    for number, length in ((9, 0), (19, 400), (29, 0), (4, 0), (14, 400)):
        texts[number] = {"text": "wheel turns " * length, "label": "b"}
    manifest = make_version(tmp_path / "v", texts, layout="examples")
    done = runs.fit(
        runs.write_run(tmp_path),
        manifest,
        tmp_path / "runs",
        changes=('objective.use="classify"', f'model.family="{family}"'),
    )
    report = json.loads((done.folder / "report.json").read_text("utf-8"))
    said = report["classification"]
    assert said["documents"] == 6 and np.isfinite([said["model"]["loss"], said["calibration"]["brier"]]).all()
    assert report["version"]["splits"]["val"]["truncated"] > 300
    page = (done.folder / "report.html").read_text("utf-8")
    for entry in said["mistakes"]:
        assert len(entry["text"]) <= 404
    empty = [entry for entry in said["mistakes"] if not entry["text"]]
    assert page.count("(an empty text)") == len(empty)
    split = Split(open_version(manifest), "val")
    longest = max((split[n] for n in range(len(split))), key=lambda row: row.used)
    assert longest.used == LENGTH and longest.tokens[LENGTH - 1] == open_version(manifest).manifest.tokenizer.eot


def relabelled(folder: Path, manifest: Path) -> Path:
    tokenizer = export.Tokenizer.from_file(str(open_version(manifest).tokenizer_file))
    texts = [{"text": f"wheel {i} turns", "label": "ab"[i % 2]} for i in range(40)]
    return make_version(folder, texts, layout="examples", tokenizer=tokenizer, name="other")


def test_a_classifier_continues_no_text(done, capsys, monkeypatch):
    from training.__main__ import main

    monkeypatch.setattr("sys.argv", ["training", "generate", str(done.folder)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and "continues none" in capsys.readouterr().err


@pytest.mark.parametrize(("use", "family"), [("causal", "gpt"), ("masked", "bert"), ("span", "t5")])
def test_an_example_is_a_text_too(use, family, manifest, version, tmp_path):
    """What predicts tokens trains on examples as on rows of one piece."""
    changes = (f'objective.use="{use}"', f'model.family="{family}"')
    done = runs.fit(runs.write_run(tmp_path / "run"), manifest, tmp_path / "runs", changes=changes)
    said = json.loads((done.folder / "report.json").read_text("utf-8"))["evaluation"]
    assert said["documents"] > 20 and runs.losses(done)[-1] < runs.losses(done)[0]
    if use == "causal":
        index = version.documents.to_pylist()
        targets = sum(min(row["tokens"], LENGTH) - 1 for row in index if row["split"] == "val")
        assert said["targets"] == targets
    assert evaluate.Tally  # the scores of tokens, not of classes
