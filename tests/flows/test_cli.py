"""The verbs: what they print and return, their exit codes, and that no document can write to the terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import errors, runs
from pipeline import manifest as manifests
from pipeline import recipe as recipes
from tests.conftest import ROOT
from tests.flows.conftest import RECIPE, command, group, last, until

HEAVY = ("torch", "prefect", "numba", "datasets", "polars", "transformers", "pyarrow", "tokenizers")


def test_the_command_line_imports_nothing_heavy_and_quickly():
    """The best of three, because the cores are shared."""
    code = "import sys, time; t = time.perf_counter(); import flows.cli; print(time.perf_counter() - t, *sys.modules)"
    seconds = []
    for _ in range(3):
        took, *modules = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
        assert not set(HEAVY) & set(modules)
        seconds.append(float(took))
    assert min(seconds) < 1


def test_help_teaches_by_examples(gristmill):
    assert "gristmill quickstart" in gristmill("--help").stdout
    for verb in ("quickstart", "build", "train", "ls", "show", "why", "verify", "audit", "deploy"):
        said = gristmill(verb, "--help").stdout
        assert "--json" in said and (verb in ("ls", "verify", "audit") or f"  gristmill {verb}" in said), verb


def test_build_says_what_it_made(built):
    store, made = built
    version = manifests.find(manifests.Store(store), "small")
    assert made["address"] == version.address == f"{made['name']}@{made['version']}"
    assert Path(made["manifest"]) == version.folder / "manifest.json" and Path(made["tokenizer"]).is_file()
    assert made["documents"] == {"ingested": 243, "added": 0, "kept": 160, "dropped": 80, "quarantined": 3}
    assert {name: split["tokens"] for name, split in made["splits"].items()} == {
        name: split["tokens"] for name, split in version.manifest["splits"].items()
    }


def test_a_build_again_makes_the_same_and_says_so_to_people(built, corpus, gristmill):
    store, made = built
    said = gristmill("build", corpus / "small.toml", "--store", store, "--direct", "--batch-rows", 7).stdout
    assert made["address"] in said and made["manifest"] in said
    assert "243 documents ingested = 160 kept + 80 dropped + 3 quarantined" in said


def test_train_finds_the_version_by_the_name_of_the_run(built, corpus, gristmill, fake):
    store, made = built
    result = last(gristmill("train", corpus / "runs" / "small.toml", "--store", store, "--direct", "--json"))
    assert result["manifest"] == made["manifest"] and result["status"] == "complete"
    run = Path(result["folder"])
    assert run.parent == store / "runs" and (run / "run.json").is_file()
    said = gristmill("train", corpus / "runs" / "small.toml", "--store", store, "--direct").stdout
    assert "model 1.500, bigram 2.500, trigram 2.250" in said and result["report"] in said


def test_quickstart_goes_the_whole_way_and_says_what_to_try_next(corpus, gristmill, fake, monkeypatch, tmp_path):
    """With the small recipe under the name of the shipped one: the shipped one takes minutes."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace('"small"', '"quickstart"').replace("grain.toml", str(corpus / "grain.toml")))
    (tmp_path / "quickstart.toml").write_text('name = "quickstart"\n')
    load = recipes.load
    monkeypatch.setattr(recipes, "load", lambda name, data: load(str(recipe) if name == "quickstart" else name, data))
    monkeypatch.setattr(runs, "shipped", lambda: tmp_path)
    result = gristmill("quickstart", "--store", tmp_path / "store", "--direct", "--workers", 1)
    made = last(gristmill("quickstart", "--store", tmp_path / "store", "--direct", "--workers", 1, "--json"))
    for name in ("manifest", "checkpoint", "report"):
        assert made[name] in result.stdout
    assert made["address"].startswith("quickstart@") and made["bits_per_byte"] == 1.5
    assert "160 kept" in result.stdout and "model 1.500, bigram 2.500" in result.stdout
    advice = next(line for line in result.stdout.splitlines() if "gristmill why" in line)
    assert "dropped by near" in gristmill(*shlex.split(advice)[1:]).stdout, "the advice can be pasted"


def test_ls_lists_versions_runs_and_what_ships(built, gristmill, tmp_path):
    store, made = built
    found = last(gristmill("ls", "--store", store, "--json"))
    assert [v["address"] for v in found["versions"]] == [made["address"]]
    assert found["versions"][0]["documents"] == 160 and found["recipes"] == recipes.available()
    assert {"installed", "samples"} <= {card["name"] for card in found["cards"]}
    said = gristmill("ls", "--store", store).stdout
    assert made["address"] in said and "quickstart" in said
    assert "none" in gristmill("ls", "--store", tmp_path / "nowhere").stdout


def test_ls_lists_a_damaged_version_and_a_damaged_run_as_such(gristmill, tmp_path):
    for folder in (tmp_path / "versions/small/0123456789abcdef", tmp_path / "runs/broken"):
        folder.mkdir(parents=True)
    (tmp_path / "versions/small/0123456789abcdef/manifest.json").write_text("{}")
    (tmp_path / "versions/small/latest").write_text("0123456789abcdef\n")
    (tmp_path / "runs/broken/run.json").write_text("[")
    found = last(gristmill("ls", "--store", tmp_path, "--json"))
    assert "not of format" in found["versions"][0]["problem"] and "unreadable" in found["runs"][0]["status"]
    assert "not of format" in gristmill("ls", "--store", tmp_path).stdout


def test_show_is_the_manifest_as_a_tree(built, gristmill):
    store, made = built
    said = gristmill("show", "small", "--store", store).stdout
    manifest = json.loads(Path(made["manifest"]).read_text("utf-8"))
    for entry in manifest["accounting"]:
        for reason, count in entry["reasons"].items():
            assert f"{count:,}  {reason}" in said
    for split in manifest["splits"].values():
        assert f"{split['tokens']:,} tokens in {split['rows']:,} rows" in said
        assert all(shard["file"] in said for shard in split["shards"])
    table = last(gristmill("show", made["address"][:10], "--store", store, "--json"))
    assert table["accounting"] == manifest["accounting"] and Path(table["folder"]) == Path(made["manifest"]).parent


def test_show_knows_runs_and_the_version_that_they_read(built, corpus, gristmill, fake):
    store, made = built
    gristmill("train", corpus / "runs" / "small.toml", "--name", "mine", "--store", store, "--direct")
    assert "mine: complete, step 3 of 3, 1.500 bits per byte" in gristmill("show", "small", "--store", store).stdout
    assert made["address"] in gristmill("show", "mine", "--store", store).stdout
    assert last(gristmill("show", "mine", "--store", store, "--json"))["bits_per_byte"] == 1.5


def test_why_tells_a_duplicate_from_its_original_and_a_kept_from_an_unreadable(built, gristmill):
    store, _ = built
    version = manifests.find(manifests.Store(store), "small")
    ledger = {row["doc_id"]: row for row in listing_of(store, version)}
    near = next(doc_id for doc_id, row in ledger.items() if row["stage"] == "near")
    said = gristmill("why", near, "--store", store).stdout
    found = last(gristmill("why", near, "--version", "small@latest", "--store", store, "--json"))
    measured = {name: value for entry in found["signals"] for name, value in entry.items()}
    assert f"duplicate of {measured['near.dup_of']}, Jaccard {measured['near.jaccard']:.4g}" in said
    assert "dropped by near: dup_rank > 0" in said and f"gopher.word_count = {measured['gopher.word_count']}" in said
    kept = version.index()["doc_id"][0].as_py()
    said = gristmill("why", kept, "--store", store).stdout
    place = last(gristmill("why", kept, "--store", store, "--json"))["places"][0]
    assert "kept" in said and f"{place['file']}: row {place['row']}" in said
    lost = next(doc_id for doc_id, row in ledger.items() if row["verdict"] == "quarantined")
    assert f"quarantined by source: {ledger[lost]['reason']}" in gristmill("why", lost, "--store", store).stdout


def listing_of(store: Path, version: manifests.Version) -> list[dict[str, str]]:
    from pipeline import books

    return books.ledger(manifests.Store(store), version.build_keys()).to_pylist()


def test_verify_and_audit_find_a_flipped_byte(built, gristmill):
    store, made = built
    for verb in ("verify", "audit"):
        assert "sound" in gristmill(verb, "small", "--store", store).stdout
        assert last(gristmill(verb, "small", "--store", store, "--json"))["problems"] == []
    shard = next(Path(made["manifest"]).parent.glob("shards/*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    try:
        for verb in ("verify", "audit"):
            assert f"shards/{shard.name}" in gristmill(verb, "small", "--store", store, code=1).stdout
            assert last(gristmill(verb, "small", "--store", store, "--json", code=1))["problems"]
    finally:
        shard.write_bytes(whole)


MISTAKES = [
    (("build", "nope"), r"unknown recipe 'nope'"),
    (("build", "{corpus}/nope.toml"), r"nope.toml: no such recipe"),
    (("build", "{tmp}/typo.toml"), r"typo.toml stage 2: unknown stage 'gofer'; did you mean 'gopher'?"),
    (("build", "{tmp}/empty.toml"), r"grain.toml"),
    (("build", "{corpus}/small.toml", "--partition-size", "3 potatoes"), r"--partition-size: '3 potatoes' is no size"),
    (("train", "nope"), r"unknown run 'nope'"),
    (("train", "{tmp}/nameless.toml"), r"nameless.toml: no name"),
    (("train", "{corpus}/runs/small.toml"), r"build it first (gristmill build small)"),
    (("train", "{corpus}/runs/small.toml", "--manifest", "other"), r"no version of 'other'"),
    (("train", "{corpus}/runs/small.toml", "--name", "../up"), r"name: String should match pattern"),
    (("show", "nope"), r"no version of 'nope'"),
    (("show", "nope@latest"), r"no version of 'nope'"),
    (("verify", "nope"), r"no version of 'nope'"),
    (("audit", "nope"), r"no version of 'nope'"),
    (("why", "a:b:1"), r"build one first"),
    (("deploy",), r"no Prefect API is configured: start a server with `prefect server start`"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: " ".join(value)[:40] if value else "")
def test_a_mistake_is_one_sentence_that_names_the_place(arguments, said, corpus, gristmill, tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "GRISTMILL_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    (tmp_path / "typo.toml").write_text(RECIPE.replace('"gopher"', '"gofer"'))
    (tmp_path / "grain.toml").write_text((corpus / "grain.toml").read_text())
    (tmp_path / "empty.toml").write_text(RECIPE)
    (tmp_path / "nameless.toml").write_text("seed = 1\n")
    given = [part.format(corpus=corpus, tmp=tmp_path) for part in arguments]
    direct = ["--direct"] if given[0] in ("build", "train") else []
    result = gristmill(*given, *direct, "--store", tmp_path / "store", code=2)
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ") and said in result.stderr


def test_an_unknown_document_or_option_is_a_mistake_too(built, gristmill):
    store, _ = built
    assert "never met a document 'grain:z:9'" in gristmill("why", "grain:z:9", "--store", store, code=2).stderr
    gristmill("build", "--workers", 0, code=2)
    gristmill("build", "--no-such-option", code=2)
    gristmill("grind", code=2)


def test_what_the_trainer_refuses_breaks_or_stops_has_its_own_exit_code(built, corpus, gristmill, fake):
    store, _ = built
    run = ("train", corpus / "runs" / "small.toml", "--store", store, "--direct", "--set")
    refused = gristmill(*run, "fake.mode=refuse", code=2).stderr
    assert refused == "error: \\x1b[31mbatch.rows\\x1b[0m is 1 for 2 processes\n"
    stopped = gristmill(*run, "fake.mode=stopped", code=130).stderr
    assert "has a checkpoint; run the same command again to go on" in stopped
    broken = gristmill(*run, "fake.mode=crash", code=1).stderr
    assert (
        "  | RuntimeError: \\x1b[31mbroken\n" in broken and "error: the trainer ended with code 1; its log is" in broken
    )


def test_a_store_that_cannot_be_one_is_said_in_a_sentence(corpus, gristmill, tmp_path):
    (tmp_path / "file").write_text("")
    said = gristmill("build", corpus / "small.toml", "--store", tmp_path / "file", "--direct", code=1).stderr
    assert said.startswith("error: ") and "Not a directory" in said and str(tmp_path) in said


def test_only_a_bug_is_shown_with_its_traceback_and_that_too_is_cleaned(capsys):
    assert errors.tell(KeyError("\x1b[31mred")) == 1
    said = capsys.readouterr().err
    assert "KeyError" in said and "\x1b" not in said
    assert errors.tell(KeyboardInterrupt()) == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(built):
    store, _ = built
    shell = f"{sys.executable} -m flows show small --store {store} | head -c 1"
    done = subprocess.run(shell, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and len(done.stdout) == 1


HOSTILE = "\x1b]0;owned\x07\x1b[31m[bold red]x[/bold red]\u202egnp.exe\x9b2J\r\x00"


@pytest.fixture(scope="module")
def hostile(gristmill, tmp_path_factory):
    """A corpus whose file name, texts, labels and card try to write to the terminal; (store, doc_id)."""
    folder = tmp_path_factory.mktemp("hostile")
    name = "\x1b[31m[red]\u202ex.jsonl"
    rows = [{"text": f"{HOSTILE} the mill {n} " * 30, "label": HOSTILE, "licence": HOSTILE} for n in range(40)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    title = json.dumps(HOSTILE.replace("\x00", ""))
    card = f'name = "grain"\nkind = "files"\ntitle = {title}\ndescription = "x"\nhomepage = "https://example.org"\n'
    card += 'licence = "CC0-1.0"\nlanguages = ["en"]\n[params]\npaths = ["*.jsonl"]\n'
    card += 'columns = {text = "text", label = "label", licence = "licence"}\n'
    (folder / "grain.toml").write_text(card, "utf-8")
    (folder / "small.toml").write_text(RECIPE.replace('[[stage]]\nuse = "near"\ndrop.dup_rank = {above = 0}\n', ""))
    gristmill("build", folder / "small.toml", "--store", folder / "store", "--direct", "--workers", 1)
    return folder / "store", f"grain:{name}:3"


def harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_no_document_writes_to_the_terminal(hostile, gristmill):
    store, doc_id = hostile
    for arguments in (("show", "small"), ("why", doc_id), ("ls",), ("verify", "small"), ("audit", "small")):
        result = gristmill(*arguments, "--store", store)
        assert harmless(result.stdout) and harmless(result.stderr), arguments
    said = gristmill("why", doc_id, "--store", store).stdout
    assert "\\x1b[31m[red]\\u202ex.jsonl" in said and "[bold red]x[/bold red]" in said, (
        "shown, and never read as markup"
    )
    missing = gristmill("why", f"grain:{HOSTILE}", "--store", store, code=2)
    assert harmless(missing.stderr) and "owned" in missing.stderr


def test_json_is_whole_and_ascii_controls_are_escaped_in_it(hostile, gristmill):
    store, doc_id = hostile
    result = gristmill("why", doc_id, "--store", store, "--json")
    assert last(result)["doc_id"] == doc_id and result.stdout.count("\n") == 1
    assert not any(ord(character) < 32 for character in result.stdout.rstrip("\n"))


SLOW_STAGE = """
import time
from pathlib import Path
from pipeline.stage import measure

@measure(length="int64")
def slow(batch):
    while Path({gate!r}).exists():
        time.sleep(.05)
    import pyarrow.compute as pc
    return {{"length": pc.utf8_length(batch["text"]).cast("int64")}}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_ctrl_c_ends_workers_leaves_nothing_half_written_and_the_same_command_goes_on(corpus, tmp_path, number):
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "slow.py").write_text(SLOW_STAGE.format(gate=str(gate)))
    recipe = tmp_path / "slow.toml"
    text = RECIPE.replace('use = "gopher"\ndrop.word_count = {below = 20}', 'use = "mine.slow"')
    recipe.write_text(text.replace("grain.toml", str(corpus / "grain.toml")))
    arguments = ["build", recipe, "--store", tmp_path / "store", "--workers", 2, "--partition-size", "20KB", "--direct"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    child = subprocess.Popen(
        [sys.executable, "-m", "flows", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    end = time.monotonic() + 60
    while len(list((tmp_path / "store").glob("store/*/.*"))) < 2 and child.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, "")
    progress, _, rest = err.partition("stopped: what is finished is kept; run the same command again to go on\n")
    assert progress in ("", "read: normalise, slow: 0/4\n") and rest == ""
    assert list((tmp_path / "store").glob("store/*/.*")) == []
    until(lambda: group(child.pid) == [], 5)
    gate.unlink()
    done = command(*arguments, PYTHONPATH=environment["PYTHONPATH"])
    assert done.returncode == 0 and "small@" in done.stdout, done.stderr
