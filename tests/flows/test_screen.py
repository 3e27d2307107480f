"""What reaches the terminal: no document writes to it, progress is bars there and lines elsewhere."""

from __future__ import annotations

import io
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from flows import progress, screen
from tests.flows.conftest import RECIPE, last

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


def test_a_line_of_a_result_is_never_markup_nor_control(capsys):
    screen.Screen().say("path", HOSTILE)
    said = capsys.readouterr().out
    assert harmless(said) and "[bold red]x[/bold red]" in said


@given(st.text(st.characters(exclude_categories=[])))
def test_clean_is_one_printable_line_and_keeps_what_is_printable(text):
    cleaned = screen.clean(text, 10_000)
    assert cleaned.isprintable() and (cleaned == text) == text.isprintable()


def test_a_command_is_copied_whole_from_a_narrow_terminal():
    made, stream = screen.Screen(), io.StringIO()
    made.out = Console(file=stream, force_terminal=True, width=40, color_system=None, highlight=False)
    command = f"  gristmill generate /tmp/{'a' * 50}/runs/small --prompt 'The mill'"
    made.say(command)
    made.say("  manifest    ", Text("/tmp/" + "b" * 60))
    assert stream.getvalue().split("\n") == [command, f"  manifest     /tmp/{'b' * 60}", ""]


def test_clean_shows_what_it_hides_and_says_when_it_cuts():
    assert screen.clean("a\u202eb\nc\ud800") == "a\\u202eb\\nc\\ud800"
    assert screen.clean("x" * 500).endswith("…") and len(screen.clean("x" * 500)) == screen.LIMIT


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (23_216_000, "23.2 MB"), (4e12, "4.0 TB")],
)
def test_sizes_are_decimal(number, said):
    assert screen.size(number) == said


def test_pace_has_a_rate_and_the_time_left():
    assert progress.pace(12, 40, 15) == "12/40, 0.8/s, 35.0 s left"
    assert progress.pace(40, 40, 125) == "40 in 2:05"
    assert progress.pace(1, 2000, 60) == "1/2,000, 1.0/min, 33:19:00 left"
    assert progress.pace(520, 600, 10, before=500) == "520/600, 2.0/s, 40.0 s left", "a resumed run is no faster"


def work(reporter: progress.Reporter) -> None:
    reporter.phase("read \x1b[31m[red]x", 4)
    for step in range(4):
        reporter.advance()
        reporter.note(f"loss {step} \x1b[2J")


def test_on_a_terminal_there_are_bars_and_nothing_of_a_document_in_control():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, force_interactive=True, color_system=None)
    with progress.shown(console) as reporter:
        assert isinstance(progress.current(), progress.Bars)
        work(reporter)
    said = stream.getvalue()
    assert "\\x1b[31m[red]x" in said and "loss 3 \\x1b[2J" in said
    assert "\x1b[31m[red]" not in said and "\x1b[2J" not in said
    assert isinstance(progress.current(), progress.Quiet)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_under_way_is_seen_on_a_small_terminal(width):
    """Thirty phases on 24 lines: the last frame is a line of the one under way, and each that is done stands once."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, height=24, force_interactive=True)
    with progress.shown(console) as reporter:
        for number in range(30):
            reporter.phase(f"phase {number:02}", 7)
            reporter.advance(5 if number == 29 else 7)
            reporter.note("loss 3.154  12,000 tokens/s  41.5% MFU")
        reporter._progress.refresh()  # type: ignore[attr-defined]
        frame = Text.from_ansi(stream.getvalue().rpartition("\x1b[2K")[2]).plain.rstrip()
        assert "phase 29" in frame and "5/7" in frame and "\n" not in frame and "..." not in frame
        assert len(frame) <= width and ("loss 3.154" in frame) == (width > 60) and ("━" in frame) == (width > 80)
    lines = [Text.from_ansi(line).plain for line in stream.getvalue().split("\n")]
    done = [line.partition("·")[2] for line in lines if "·" in line]
    assert [line.split()[1] for line in done] == [f"{number:02}" for number in range(30)]
    assert all(cell_len(line) < width for line in done)


def test_elsewhere_there_is_a_sign_of_life_and_one_line_at_the_end(capsys):
    with progress.Lines(every=0.1) as lines:
        lines.phase("read \x1b[31m[red]x", 2)
        time.sleep(0.5)
        lines.advance()
        time.sleep(0.5)
        lines.advance()
        lines.note("loss \x1b[2J")
        time.sleep(0.5)
    said = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() and line.startswith("read \\x1b[31m[red]x: ") for line in said)
    counts = [line.partition("x: ")[2].split()[0].rstrip(",") for line in said]
    assert counts[:2] == ["0/2", "0/2"] and "1/2" in counts and counts.count("2") == 1
    assert said[-1].endswith("loss \\x1b[2J")


def test_a_short_phase_says_nothing_where_there_is_no_terminal(capsys):
    with progress.shown(Console(file=io.StringIO())) as reporter:
        work(reporter)
    assert capsys.readouterr().err == ""


def test_a_deployed_flow_logs_what_nothing_shows():
    said: list[str] = []
    with progress.logged(said.append):
        progress.current().phase("read", 1)
        time.sleep(1.1)
        progress.current().advance()
    assert len(said) == 1 and said[0].startswith("read: 1.")
    with progress.shown(Console(file=io.StringIO())) as reporter, progress.logged(said.append):
        assert progress.current() is reporter
    assert len(said) == 1
