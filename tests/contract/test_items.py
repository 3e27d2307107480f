"""Evaluation items between the halves: what decontamination names, evaluation finds again."""

from __future__ import annotations

import pytest

from pipeline import recipe
from pipeline.stages import _evaluation
from tests import builds
from training.manifest import open_version
from training.suites import exposure, items


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("riddles")
    text = 'name = "riddles"\nsources = ["riddles"]\n[tokens]\nvocab_size = 300\n'
    text += '[pack]\nlayout = "examples"\nlength = 64\nsplit = {val = 0.3}\n'
    (folder / "riddles.toml").write_text(text, "utf-8")
    return builds.build(recipe.load(str(folder / "riddles.toml")), folder / "store")


def test_an_item_has_one_digest_by_card_by_version_and_in_the_trainer(built):
    by_card = [item.text_digest for item in _evaluation.items("riddles")]
    by_version = [item.text_digest for item in _evaluation.items(str(built.folder))]
    trained_on = [exposure.text_digest(item) for item in items.read(open_version(built.folder))]
    assert len(set(by_card)) == len(by_card) > 10
    assert sorted(by_card) == sorted(by_version) == sorted(trained_on)
