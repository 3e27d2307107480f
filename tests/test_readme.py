"""Law 12: the README runs, from the wheel and outside the checkout; and its two languages say the same.

The one slow test here is the whole journey of a new user: every command of the README but the installation and the
test command, in the README's order, with the package as others would get it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT

READMES = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md")}


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", READMES[name], re.DOTALL)


def commands(name: str) -> list[str]:
    """Every command line of a README, without its comment."""
    lines = "".join(blocks(name, "sh")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


def bare(block: str) -> list[str]:
    return [line.partition("#")[0].rstrip() for line in block.splitlines()]


def test_both_languages_have_the_same_commands_recipes_and_sections():
    english, chinese = READMES
    assert commands(english) == commands(chinese) and len(commands(english)) >= 12
    assert list(map(bare, blocks(english, "toml"))) == list(map(bare, blocks(chinese, "toml")))
    counts = [
        [len(re.findall(p, text, re.MULTILINE)) for p in ("^## ", r"^\d\. ", r"^\| `", "^```")]
        for text in READMES.values()
    ]
    assert counts[0] == counts[1] and min(counts[0]) >= 4


def test_the_first_two_commands_set_up_from_nothing_and_ci_runs_the_second():
    first, second = commands("README.md")[:2]
    for command in (first, second):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install") and "-c constraints.txt" in command
    assert first.endswith("gristmill quickstart")
    assert second in (ROOT / ".ci" / "run").read_text("utf-8")


def test_constraints_pin_what_is_installed_and_nothing_loosely():
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert len({line.partition("==")[0].lower().replace("_", "-") for line in lines}) == len(lines)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder outside any checkout with an environment that has the wheel, and this environment's other packages."""
    folder = tmp_path_factory.mktemp("elsewhere")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(wheel, check=True, timeout=300)
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True, timeout=120)
    python = folder / ".venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", *folder.glob("gristmill-*.whl")]
    subprocess.run(install, check=True, timeout=120)
    [site] = (folder / ".venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = subprocess.run(
        [python, "-P", "-c", "import pipeline; print(pipeline.__file__)"], cwd=folder, capture_output=True, text=True
    )
    assert str(site) in where.stdout, where.stderr
    return folder


@pytest.fixture(scope="module")
def shell(elsewhere):
    """Runs a command line of the README in that folder; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "PYTHONPATH"))}
    environment["PATH"] = f"{elsewhere / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"

    def run(command: str, **more: str) -> str:
        done = subprocess.run(
            command,
            shell=True,
            cwd=elsewhere,
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return run


def my_corpus(folder: Path) -> None:
    """What the README's recipe asks of a reader: a card and files."""
    samples = (ROOT / "catalogs" / "samples" / "en.jsonl").read_text("utf-8").splitlines()
    sentences = [s for line in samples for s in re.split(r"(?<=[.!?]) ", json.loads(line)["text"]) if len(s) > 40]
    rows = [
        {"text": " ".join(sentences[(i * 7 + j * (i % 11 + 1)) % len(sentences)] for j in range(9))} for i in range(900)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    card = {"name": "my-source", "kind": "files", "title": "Mine", "description": "Sentences in other orders."}
    card |= {"homepage": "https://example.org", "licence": "CC0-1.0"}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in card.items())
    (folder / "my-source.toml").write_text(text + 'languages = ["en"]\n[params]\npaths = ["mine.jsonl"]\n', "utf-8")
    dump = [{"text": " ".join(reversed(row["text"].split(". ")))} for row in rows[:60]] + rows[60:70]
    (folder / "dump.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dump), "utf-8")
    later = (folder / "my-source.toml").read_text("utf-8").replace("my-source", "my-dump").replace("mine", "dump")
    (folder / "my-dump.toml").write_text(later, "utf-8")
    [recipe] = blocks("README.md", "toml")
    (folder / "my.toml").write_text(recipe, "utf-8")
    (folder / "catalogs" / "runs").mkdir(parents=True, exist_ok=True)
    run = (ROOT / "catalogs" / "runs" / "quickstart.toml").read_text("utf-8")
    (folder / "catalogs" / "runs" / "quickstart.toml").write_text(run, "utf-8")


def serve(elsewhere: Path, command: str) -> None:
    """The server answers, and ends in order when it is told to."""
    path = f"{elsewhere / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**{n: v for n, v in os.environ.items() if n != "PYTHONPATH"}, "PATH": path}
    process = subprocess.Popen(shlex.split(command), cwd=elsewhere, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        [address] = re.findall(r"http://\S+/v1", process.stdout.readline())
        body = json.dumps({"model": "exported", "prompt": "A mill is", "max_tokens": 4}).encode()
        with urllib.request.urlopen(f"{address}/completions", body, timeout=60) as answer:
            assert json.loads(answer.read())["choices"][0]["text"]
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


@pytest.mark.slow
def test_every_command_of_the_readme_runs_from_the_wheel_outside_a_checkout(elsewhere, shell):
    from flows import embedded

    quickstart, _, *others = commands("README.md")
    shell(quickstart.rpartition("&& .venv/bin/")[2])
    [run] = (elsewhere / ".gristmill" / "runs").iterdir()
    report = json.loads((run / "report.json").read_text("utf-8"))
    bits = {ngram["order"]: ngram["bits_per_byte"] for ngram in report["evaluation"]["ngrams"]}
    assert report["evaluation"]["model"]["bits_per_byte"] < bits[2], "the model does not beat a bigram"
    my_corpus(elsewhere)
    for command in others:
        if command.startswith("gristmill serve"):
            serve(elsewhere, command)
            continue
        if "--task classify" in command:
            command += " --set schedule.steps=260"  # whole, it takes five minutes
        if "deploy" not in command:
            shell(command)
            continue
        with embedded.server() as (settings, ready):
            ready()
            shell(command, **settings)
    assert (elsewhere / "exported" / "config.json").is_file()
