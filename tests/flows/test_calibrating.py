"""The verb `calibrate` as the command line has it."""

from __future__ import annotations

import tomllib

from tests.flows.conftest import last


def test_calibrate_shows_bounds_and_writes_stages(corpus, gristmill, tmp_path):
    said = last(gristmill("calibrate", corpus / "small.toml", "--json"))
    [bound] = said["bounds"]
    assert bound["rule"] == "gopher.word_count.below" and bound["was"] == 20 and bound["removed"] <= 0.1
    assert said["method"] == "tail" and said["sources"] == ["grain"]
    shown = gristmill("calibrate", corpus / "small.toml", "--reference", corpus / "grain.toml").stdout
    assert "gopher.word_count.below" in shown and f"drop.word_count = {{below = {bound['bound']}}}" in shown
    out = tmp_path / "bounds.toml"
    gristmill("calibrate", corpus / "small.toml", "--out", out)
    assert tomllib.loads(out.read_text("utf-8"))["stage"] == tomllib.loads(said["toml"])["stage"]


def test_calibrate_refuses_in_one_sentence(corpus, gristmill):
    for options in (["--method", "quantile"], ["--tail", "0.9"], ["--stage", "gofer"], ["--documents", "3"]):
        refused = gristmill("calibrate", corpus / "small.toml", *options, code=2)
        assert refused.stderr.startswith("error: ") and refused.stderr.strip().count("\n") == 0


def test_a_version_is_calibrated_as_its_recipe_is(corpus, built, gristmill):
    store, made = built
    of_recipe = last(gristmill("calibrate", corpus / "small.toml", "--json"))
    of_version = last(gristmill("calibrate", made["address"], "--store", store, "--json"))
    assert of_version == of_recipe and of_version["bounds"]
    assert "no version of 'absent'" in gristmill("calibrate", "absent@1", "--store", store, code=2).stderr
