"""Kind `latex`: papers as they lie in arXiv's bulk files become one text each, and none nests or grows without end."""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import SourceError, _tex, latex
from pipeline.sources._rows import RowError
from tests.laws.kinds.archive import tarred
from tests.laws.kinds.latex import MAIN, WHEEL, paper

Row = dict[str, Any]
LIMIT = 1 << 20


def read(path: Path, **params: Any) -> tuple[list[Row], list[Row]]:
    params = {"paths": [str(path)], **params}
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in latex.survey(**params):
        for chunk in latex.read(item, source="s", licence=None, **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def text(body: str, head: str = "", **files: str) -> str:
    """The text of a paper with this body."""
    main = f"\\documentclass{{article}}\n{head}\n\\begin{{document}}\n{body}\n\\end{{document}} outside"
    every = {"main.tex": main, **{f"{name}.tex": content for name, content in files.items()}}
    return _tex.paper({name: content.encode() for name, content in every.items()}, LIMIT, whole=True).text


def test_a_paper_is_put_together_and_cleaned(tmp_path: Path) -> None:
    (path := tmp_path / "2401.00001.gz").write_bytes(paper())
    (document,), rejects = read(path)
    assert not rejects and document["doc_id"] == "s:2401.00001.gz:0"
    assert document["text"] == (
        "\\section{Introduction}\nThe water mill{} turns at 50\\,\\% of $\\omega_0$.\n"
        + WHEEL.replace("\\mill", "water mill")
    )
    assert document["url"] == "https://arxiv.org/abs/2401.00001"
    assert json.loads(document["meta"]) == {"main": "ms.tex", "title": "On {\\em Mills}"}
    (whole,), _ = read(path, front_matter=True)
    assert whole["text"].startswith("\\maketitle\n\\begin{abstract}We grind.")


def test_a_bulk_file_has_a_document_for_each_paper(tmp_path: Path) -> None:
    papers = {"2401/2401.00001.gz": paper(), "2401/hep-th9901001.gz": paper(), "2401/2401.00002.pdf": b"%PDF"}
    papers |= {
        "2401/2401.00003.gz": paper()[:99],
        "2401/notes.tar.gz": paper(MAIN.replace("parts/wheel", "parts/axle")),
    }
    (path := tmp_path / "arXiv_src_2401_001.tar").write_bytes(tarred(papers))
    documents, rejects = read(path)
    assert [(row["doc_id"][-1], row["url"]) for row in documents] == [
        ("0", "https://arxiv.org/abs/2401.00001"), ("1", "https://arxiv.org/abs/hep-th/9901001"), ("4", None),
    ]  # fmt: skip
    assert [(row["doc_id"][-1], row["reason"]) for row in rejects] == [("2", "no_latex"), ("3", "truncated_stream")]
    told = [json.loads(row["meta"]) for row in documents]
    assert told[0]["member"] == "2401/2401.00001.gz" and "missing" not in told[0]
    assert told[2]["missing"] == ["parts/axle"] and "\\input{parts/axle}" in documents[2]["text"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.tex", b"\\magnification 1200 plain TeX \\bye", "no_main_file"),
        ("a.tex", b"% \\documentclass{article}", "no_main_file"),
        ("a.tex", b"", "no_main_file"),
        ("a.tex", b"\\documentclass{a}\\begin{document}\\end{document}", "empty_text"),
        ("a.gz", gzip.compress(b"%!PS-Adobe"), "no_latex"),
        ("a.tar.gz", gzip.compress(tarred({"a.eps": b"x"})), "no_latex"),
        ("a.gz", gzip.compress(tarred({"a.tex": MAIN.encode(), "../b.tex": b"x"})), "unsafe_path"),
        ("a.gz", b"no gzip", "corrupt_stream"),
        ("a.gz", paper() + b"trailing rubbish", "corrupt_stream"),
        ("a.gz", gzip.compress(tarred({"a.tex": random.Random(1).randbytes(17 << 20)}), 1), "paper_too_long"),
        ("a.gz", gzip.compress(tarred({"a.png": bytes(40 << 20), "a.tex": MAIN.encode()})), "bomb"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_no_paper_says_why(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (path := tmp_path / name).write_bytes(data)
    documents, rejects = read(path)
    assert not documents and [row["reason"] for row in rejects] == [reason]


def test_other_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(SourceError, match=r"a\.pdf: no paper by its name; has: \.tex, .*\.gz"):
        read(tmp_path / "a.pdf")


def test_comments_go_and_what_is_verbatim_stays() -> None:
    assert text("a % b\n% c\n  % d\ne 5\\% f \\\\% g\nh") == "a\ne 5\\% f \\\\\nh"
    kept = "\\begin{verbatim}\nx = 5 % 3\n\\end{verbatim}\n\\verb|a%b| \\begin{lstlisting}%\n\\end{lstlisting}"
    assert text(kept) == kept
    assert text("% \\begin{verbatim}\n% b\nc % d \\end{verbatim}") == "c"
    assert text("a\\begin{comment} b % \\end{comment}c") == "ac"
    assert text("\\begin{verbatim} never closed % a\nb") == "\\begin{verbatim} never closed\nb"


def test_bibliography_and_appendix_go_as_asked() -> None:
    body = (
        "\\section{A} a \\begin{thebibliography}{9} b \\end{thebibliography}\\bibliography{c}\\appendix \\section{D} d"
    )
    files = {"main.tex": f"\\documentclass{{a}}\\begin{{document}} x {body}\\end{{document}}".encode()}
    assert _tex.paper(files, LIMIT).text == "\\section{A} a"
    kept = _tex.paper(files, LIMIT, appendix=True).text
    assert kept.split() == ["\\section{A}", "a", "\\appendix", "\\section{D}", "d"]


def test_the_main_file_is_the_one_with_a_body_that_no_other_inputs() -> None:
    files = {
        "a.tex": b"\\documentclass{a} \\begin{document} supplement \\end{document}",
        "chapter.tex": b"\\documentclass{a} \\begin{document}" + b"chapter " * 99 + b"\\end{document}",
        "deep/z.tex": b"\\documentclass{a} \\begin{document}" + b"deep " * 99 + b"\\end{document}",
        "ms.tex": b"\\documentclass{a} \\begin{document} the main text of it \\input{chapter} \\end{document}",
        "style.tex": b"\\documentclass{a}" + b"x" * 999,
    }
    made = _tex.paper(files, LIMIT)
    assert (made.main, made.others) == ("ms.tex", ["a.tex", "deep/z.tex", "style.tex"])


def test_charsets_of_old_papers_are_read() -> None:
    head = "\\documentclass{a}\\usepackage[%s]{inputenc}\\begin{document}Müller, Łódź\\end{document}"
    for name, codec in (("utf8", "utf-8"), ("latin2", "iso8859-2")):
        assert _tex.paper({"a.tex": (head % name).encode(codec)}, LIMIT).text == "Müller, Łódź"
    assert _tex.paper({"a.tex": b"\\documentclass{a}\\begin{document}M\xfcller\\end{document}"}, LIMIT).text == "Müller"


# Macros


def test_macros_without_arguments_are_expanded() -> None:
    head = (
        "\\def\\eg{e.g.\\xspace}\\newcommand{\\R}{\\mathbb{R}}\\newcommand\\Rn{\\R^n}\\DeclareMathOperator{\\rank}{rank}"
        "\\newcommand{\\two}[2]{#1#2}\\renewcommand*{\\R}{\\mathbf{R}}\\def\\arg#1{\\eg}"
    )
    assert text("\\eg{} $x \\in \\Rn$, $\\rank A$, \\two{a}{b}, \\Rnx \\arg{c}", head) == (
        "e.g.{} $x \\in \\mathbf{R}^n$, $\\operatorname{rank} A$, \\two{a}{b}, \\Rnx \\arg{c}"
    )
    assert (
        text("a \\newcommand{\\b}{c}\\b \\newcommand{\\d}[1]{\\b #1} \\d{e}") == "a c \\newcommand{\\d}[1]{c #1} \\d{e}"
    )


def test_macros_that_contain_themselves_are_left() -> None:
    assert text("\\a \\b \\c \\d", "\\def\\a{x \\b}\\def\\b{y \\a}\\def\\c{\\c\\c}\\def\\d{z}") == "\\a \\b \\c z"


def test_macros_that_grow_without_end_are_left() -> None:
    laughs = "\\def\\aa{ha}" + "".join(
        "\\def\\a" + chr(97 + n) + "{" + f"\\a{chr(96 + n)}" * 10 + "}" for n in range(1, 26)
    )
    assert text("\\aa \\ab \\az", laughs) == "ha " + "ha" * 10 + " \\az"
    with pytest.raises(RowError, match="macros expanded") as found:
        text("\\a" * 10_000, f"\\def\\a{{{'x' * 900}}}")
    assert found.value.reason == "paper_too_long"


# Hostile papers


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "parts/../../main", "..\\\\main", "|ls", "a b"])
def test_a_file_out_of_the_paper_is_not_looked_for(name: str) -> None:
    assert text(f"a \\input{{{name}}} b") == f"a \\input{{{name}}} b"


def test_files_that_input_each_other_end() -> None:
    assert (
        text("1 \\input{a}", a="2 \\input b 3", b="4 \\include{a} \\input{main}")
        == "1 2 4 \\include{a} \\input{main} 3"
    )
    deep = {f"f{n}": f"{n} \\input{{f{n + 1}}}" for n in range(100)}
    assert text("\\input{f0}", **deep).split() == [*map(str, range(15)), "\\input{f15}"]
    for filler in ("x", ""):
        wide = {f"f{n}": f"{filler}\\input{{f{n + 1}}}" * 10 for n in range(6)} | {"f6": filler}
        with pytest.raises(RowError, match="files put together"):
            text("\\input{f0}", **wide)


HOSTILE = [
    "{" * 100_000, "}" * 100_000, "{" * 50_000 + "a" + "}" * 50_000, "\\def\\a{" * 20_000,
    "\\newcommand{\\a}{{" * 20_000, "\\begin{verbatim}" * 20_000, "\\" * 100_000, "\\begin{a}" * 50_000,
    "% \\begin{verbatim}\n" * 20_000 + "\\end{verbatim}",
    "\\section[" * 20_000, "\\section" + " " * 100_000, "\\input{" * 20_000, "\\input" + " " * 100_000,
    "\\input{" + " " * 100_000, "\\def" + " " * 100_000, "\\verb|" * 20_001, " " * 100_000 + "x",
    "\n" * 100_000 + "x", "%" * 100_000, "\\title[" * 20_000,
    "\\begin{thebibliography}" * 20_000, "\\bibliography{" * 20_000, "$" * 99_999,
    "\\begin{verbatim}\\end{verbatim}" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: body[:20].strip() or "space")
def test_a_hostile_paper_takes_no_time(body: str) -> None:
    start = time.process_time()
    for part in ((body, ""), ("x", body)):
        try:
            text(*part)
        except RowError as error:
            assert error.reason == "empty_text"
    assert time.process_time() - start < 3


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["\\", "{", "}", "%", "\n", " ", "a", "\\input{main}", "\\def\\a", "\\a", "\\section{"]))
)
def test_any_text_is_a_document_or_says_why_not(pieces: list[str]) -> None:
    body = "".join(pieces)
    try:
        found = text(body)
    except RowError as error:
        assert error.reason in ("empty_text", "paper_too_long")
    else:
        assert len(found) < 1000 + 2 * len(body) * _tex.VALUE
