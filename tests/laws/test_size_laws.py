"""Law 6 at the edges of size, over every stage in the folder: columns beyond 2 GiB, a million documents of one
character, one line of 100 MB."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.limits import Workspace
from pipeline.run import WORKING
from pipeline.stage import Stage
from tests.laws import nasty
from tests.laws.test_stage_laws import cases, lists, outcome, relation, stage  # noqa: F401

BEYOND = (1 << 31) + 12_345


def documents(text: pa.Array) -> pa.RecordBatch:
    """A batch of these texts: doc_id "d0000000" on, all in train."""
    rows = len(text)
    columns = {
        "doc_id": pa.array([f"d{number:07d}" for number in range(rows)]),
        "text": text,
        "source": pa.array(["grain"] * rows),
        "split": pa.array(["train"] * rows),
    }
    return pa.record_batch([columns.get(f.name, pa.nulls(rows, f.type)) for f in WORKING], schema=WORKING)


@cases()
def test_a_text_may_lie_beyond_two_gibibytes(stage: Stage):  # noqa: F811
    """Offsets are 64 bits wide all the way. The bytes before are never touched, so they take no memory."""
    texts = [text for name, text in nasty.TEXTS.items() if len(text) < 100_000]
    near = pa.array(texts, pa.large_string())
    raw = b"".join(text.encode() for text in texts)
    data = np.zeros(BEYOND + len(raw), np.uint8)
    data[BEYOND:] = np.frombuffer(raw, np.uint8)
    offsets = np.frombuffer(near.buffers()[1], np.int64, len(texts) + 1) + BEYOND
    far = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(data))
    assert outcome(stage, documents(far)).equals(outcome(stage, documents(near)))


@pytest.mark.slow
@cases("measure", "rewrite", "relate", "cut")
def test_a_million_documents_of_one_character(stage: Stage):  # noqa: F811
    letters = ["a", "Z", "磨", "ก", "é", "7", ".", " ", "\t", "…", "#", "\U0001f33e"]
    which = np.random.default_rng(3).integers(0, len(letters), 1_000_000)
    many = documents(pa.array(letters, pa.large_string()).take(pa.array(which)))
    few = outcome(stage, documents(pa.array(letters, pa.large_string())))
    expected = few.take(pa.array(which))
    found = outcome(stage, many)
    if stage.kind == "rewrite":
        expected, found = expected.select(["text"]), found.select(["text"])
    assert found.equals(expected)


@pytest.mark.slow
@cases("relate")
def test_a_million_documents_of_one_character_are_related(stage: Stage, tmp_path):  # noqa: F811
    """Each letter is one cluster; what is not a letter stands alone where letters are compared."""
    letters = ["a", "Z", "磨", "7", ".", " "]
    which = np.random.default_rng(3).integers(0, len(letters), 1_000_000)
    many = documents(pa.array(letters, pa.large_string()).take(pa.array(which)))
    _, found = relation(stage, many, np.array_split(np.arange(len(which)), 4), workspace=Workspace(tmp_path / "s", 1))
    sketched = stage(documents(pa.array(letters, pa.large_string())))["digest"].is_valid().to_numpy(False)
    first = {letter: int(np.argmax(which == letter)) for letter in range(len(letters))}
    expected = np.where(sketched[which], np.vectorize(first.get)(which), np.arange(len(which)))
    assert found["cluster"].to_pylist() == [f"d{row:07d}" for row in expected.tolist()]


@pytest.mark.slow
@cases("cut")
def test_a_million_documents_of_one_character_lose_what_stands_before(stage: Stage, tmp_path):  # noqa: F811
    which = np.random.default_rng(3).integers(0, 6, 1_000_000)
    letters = pa.array(["a", "Z", "磨", "7", ".", " "], pa.large_string())
    sketched = pa.table(stage(documents(letters)))
    many = documents(letters.take(pa.array(which)))
    found, said = lists(stage, many, np.array_split(np.arange(len(which)), 4), tmp_path)
    if stage.params.get("min_characters") == 1:
        kept = stage.params["keep"] == "first"
        seen = np.isin(np.arange(len(which)), np.unique(which, return_index=True)[1]) & kept
        gone = ~seen & np.array([len(units) > 0 for units in sketched["start"]])[which]
        assert (found["cut_bytes"].to_numpy() > 0).tolist() == gone.tolist()
    else:
        assert said == {} and not found["cut_spans"].to_numpy().any()


@pytest.mark.slow
@cases("relate", "cut")
def test_lines_of_many_megabytes_are_compared(stage: Stage, tmp_path):  # noqa: F811
    """Two that are equal, and one that differs in its last word: of 100 MB, of 10 MB where each window is looked at."""
    line = "mill wheel turns with water " * ((10_000_000 if stage.cuts else 100_000_000) // 28)
    batch = documents(pa.array([line, line, line + "again"], pa.large_string()))
    if stage.cuts:
        found, _ = lists(stage, batch, [np.arange(2), np.arange(2, 3)], tmp_path)
        # A line of its own has nothing to lose where lines are compared, and all but its end where passages are.
        shares = found["cut_share"].to_pylist()
        if stage.name == "decontaminate":  # which looks for items of its sets, and none stands here
            assert shares == [0.0, 0.0, 0.0]
            return
        assert shares[1] == 1.0 or stage.params.get("most_documents") == 2
        assert stage.name == "paragraphs" or shares[2] > 0.999
        return
    _, found = relation(stage, batch, [np.arange(2), np.arange(2, 3)], workspace=Workspace(tmp_path / "s", 1 << 20))
    clusters = found["cluster"].to_pylist()
    assert clusters[0] == clusters[1] and (clusters[2] == clusters[0]) == (stage.name == "near")


@pytest.mark.slow
@cases("measure", "rewrite", "relate", "cut")
@pytest.mark.parametrize("piece", ["mill ", "磨坊", "a" * 99 + " "], ids=["words", "letters", "long"])
def test_one_line_of_a_hundred_megabytes(stage: Stage, piece: str):  # noqa: F811
    line = piece * (100_000_000 // len(piece.encode()))
    found = outcome(stage, documents(pa.array([line], pa.large_string())))
    assert found.num_rows == 1
    if "word_count" in found.column_names and piece.endswith(" "):
        assert found["word_count"].to_pylist() == [len(line) // len(piece)]
