"""The LaTeX source of one paper as one text: its files put together, without comments, front matter and bibliography.

The steps are those of RedPajama's arXiv subset (Together Computer 2023, data_prep/arxiv/arxiv_cleaner.py): comments go,
so does what stands before the first section and from the appendix or the bibliography on, and macros without arguments
are expanded. Maths, environments and other macros stay as they are. Ours beside it: files are put together where they
are input, and what is verbatim keeps its percent signs.

The law: a paper is text and is never run. A file is looked for in the paper alone, by its name, and nothing in it can
nest, repeat or grow without bound: every step is linear in the text, and the text has a limit. The numbers that matter:
16 files that input each other, 1,000 characters of a macro.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.sources._rows import RowError

DEPTH = 16
FILE = 1000  # the characters that a file which is input counts beside its own, so that empty ones end too
VALUE = 1000
TITLE = 500
_CLASS = re.compile(r"\\document(?:class|style)\b")
_ENCODING = re.compile(rb"\\usepackage\s*\[([a-z0-9-]{1,20})\]\s*\{inputenc\}")
_CODECS = {
    "latin1": "latin-1",
    "latin9": "iso8859-15",
    "ansinew": "cp1252",
    "cp1252": "cp1252",
    "applemac": "mac_roman",
}
_CODECS |= {"latin2": "iso8859-2", "cp1250": "cp1250", "cp1251": "cp1251", "koi8-r": "koi8-r", "latin5": "iso8859-9"}
_VERBATIM = re.compile(r"\\begin\{(verbatim\*?|Verbatim|lstlisting|minted|comment)\}")
_TOKEN = re.compile(r"\\verb\*?([!-)+-/:-@\[-`{-~])[^\n]*?\1|\\.|(?:(?<=\n)[ \t]*)?%[^\n]*\n?", re.DOTALL)
_INPUT = re.compile(r"\\(?:input|include)(?:\s{0,20}\{([^{}\n]{1,200})\}|(?<=input)\s{1,20}([^\s{}\\%]{1,200}))")
_OPTION = r"\s{0,20}(?:\[[^\]]{0,500}\]\s{0,20})?"
_FIRST = re.compile(rf"\\(?:part|chapter|(?:sub){{0,2}}section|(?:sub)?paragraph)\*?{_OPTION}\{{")
_TITLE = re.compile(rf"\\title{_OPTION}\{{")
_REFERENCES = re.compile(r"\\begin\{(thebibliography|references|REFERENCES)\}")
_LISTED = re.compile(rf"\\(?:bibliography(?:style)?\s{{0,20}}\{{[^{{}}]{{0,1000}}\}}|printbibliography\b{_OPTION})")
_END = re.compile(rf"\\appendix\b|{_REFERENCES.pattern}|\\(?:bibliography|printbibliography)\b")
_DEFINED = re.compile(
    r"\\(?P<how>(?:re)?newcommand|providecommand|DeclareRobustCommand|DeclareMathOperator|g?def)(?![A-Za-z@])"
    r"\*?\s{0,20}\{?\s{0,20}\\(?P<name>[A-Za-z@]+)\s{0,20}\}?\s{0,20}(?P<open>\{)?"
)
_WORD = re.compile(r"\\([A-Za-z@]+)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass
class Paper:
    """The text of a paper, its main file, and what could not be followed."""

    text: str
    main: str
    title: str = ""
    others: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def paper(files: Mapping[str, bytes], limit: int, whole: bool = False, appendix: bool = False) -> Paper:
    """Put a paper together from its TeX files. `whole` keeps what stands before the first section, `appendix` what
    stands behind the bibliography. Raises RowError: no main file, a text of more than `limit` characters, or none.
    """
    texts = {name: uncommented(_decoded(data)) for name, data in sorted(files.items())}
    main, others = _main(texts)
    made = Paper("", main, others=others)
    source = "".join(_joined(main, texts, made, _Budget(limit)))
    begin = source.find("\\begin{document}")
    body = source[begin + len("\\begin{document}") :] if begin >= 0 else source
    body = body[: end if (end := body.find("\\end{document}")) >= 0 else None]
    if found := _TITLE.search(source):
        made.title = " ".join(_until_closed(source[found.end() : found.end() + TITLE]).split())
    if not whole and (first := _FIRST.search(body)):
        body = body[first.start() :]
    body = _referenced(body) if appendix else body[: last.start() if (last := _END.search(body)) else None]
    body = _expanded(body, _macros(source), _Budget(limit))
    made.text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in body.split("\n"))).strip()
    if not made.text:
        raise RowError("empty_text", f"{main}: the paper has no text between its front matter and its bibliography")
    return made


def _decoded(data: bytes) -> str:
    """UTF-8, or what the file says of itself, or Latin-1, which has a letter for every byte."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        said = _ENCODING.search(data)
        text = data.decode(_CODECS.get(said[1].decode() if said else "", "latin-1"), "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _until_closed(text: str) -> str:
    """A text up to the brace that is open before it; empty where that does not close."""
    depth = 1
    for found in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return text[: found.start()]
    return ""


# Comments


def uncommented(text: str) -> str:
    """A file without its comments: with their line where they stand alone in it."""
    return "".join(piece if verbatim else _TOKEN.sub(_kept, piece) for verbatim, piece in _pieces(text))


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """A text cut at what is verbatim; environments `comment` are left out."""
    at, unclosed = 0, set[str]()
    for found in _VERBATIM.finditer(text):
        start, name = found.start(), found[1]
        if start < at or name in unclosed or _comments(text[max(at, start - 500) : start].rpartition("\n")[2]):
            continue
        closing = f"\\end{{{name}}}"
        if (end := text.find(closing, found.end())) < 0:
            unclosed.add(name)
            continue
        yield False, text[at:start]
        at = end + len(closing)
        if name != "comment":
            yield True, text[start:at]
    yield False, text[at:]


def _comments(line: str) -> bool:
    return any(found[0].lstrip().startswith("%") for found in _TOKEN.finditer(line))


def _kept(found: re.Match[str]) -> str:
    """What stays of a token: nothing of a comment but the end of a line that has more than it."""
    token = found[0]
    if token[0] == "\\":
        return token
    alone = found.start() == 0 or found.string[found.start() - 1] == "\n"
    return "" if alone or not token.endswith("\n") else "\n"


# Files


class _Budget:
    """What a text may still grow by, in characters."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def spend(self, piece: str, more: int = 0) -> str:
        self._left -= len(piece) + more
        if self._left < 0:
            raise RowError(
                "paper_too_long",
                f"more than maximum_paper_bytes ({self._limit:,}) with its files put together and its macros expanded",
            )
        return piece


def _main(texts: Mapping[str, str]) -> tuple[str, list[str]]:
    """The file that the paper begins with, and others that could be such: one with a body, that no other inputs, in the
    highest folder; of several the longest."""
    able = [name for name, text in texts.items() if _CLASS.search(text)]
    if not able:
        raise RowError("no_main_file", f"no TeX file of it has a \\documentclass; has: {', '.join(texts)[:200]}")
    asked = {_found(one, name, texts) for name, text in texts.items() for one in _asked(text)}
    first, *others = sorted(
        able, key=lambda n: ("\\begin{document}" not in texts[n], n in asked, n.count("/"), -len(texts[n]), n)
    )
    return first, [name for name in others if name not in asked]


def _asked(text: str) -> Iterator[str]:
    return ((found[1] or found[2]).strip() for found in _INPUT.finditer(text))


def _found(wanted: str, main: str, texts: Mapping[str, str]) -> str | None:
    """The file of the paper that is meant, as TeX looks for it from where the main file lies."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(main), wanted.strip('"')))
    return next((name for name in (path, f"{path}.tex") if name in texts), None)


def _joined(
    name: str, texts: Mapping[str, str], made: Paper, budget: _Budget, above: tuple[str, ...] = ()
) -> Iterator[str]:
    """The text of a file with those that it inputs in their places; what is not there, or would go on, stays named."""
    text, at = texts[name], 0
    above = (*above, name)
    for found in _INPUT.finditer(text):
        wanted = (found[1] or found[2]).strip()
        inner = _found(wanted, made.main, texts)
        if inner is None or inner in above or len(above) >= DEPTH:
            if wanted not in made.missing:
                made.missing.append(wanted)
            continue
        yield budget.spend(text[at : found.start()], FILE)
        at = found.end()
        yield from _joined(inner, texts, made, budget, above)
    yield budget.spend(text[at:])


def _referenced(body: str) -> str:
    """A body without its bibliography."""
    body = _LISTED.sub("", body)
    pieces, at = [], 0
    while found := _REFERENCES.search(body, at):
        pieces.append(body[at : found.start()])
        closing = f"\\end{{{found[1]}}}"
        end = body.find(closing, found.end())
        at = end + len(closing) if end >= 0 else len(body)
    return "".join([*pieces, body[at:]])


# Macros


def _defined(text: str) -> Iterator[tuple[re.Match[str], str | None]]:
    """The definitions in a text, each with its value where that is in braces and ends within VALUE characters."""
    found = list(_DEFINED.finditer(text))
    wanted = {one.end() for one in found if one["open"]}
    ends: dict[int, int] = {}
    # What is more braces deep than VALUE cannot be closed within as many characters.
    open_: deque[int] = deque(maxlen=VALUE)
    for brace in _BRACE.finditer(text) if wanted else ():
        if brace[0] == "{":
            open_.append(brace.end())
        elif brace[0] == "}" and open_ and (start := open_.pop()) in wanted and brace.start() - start <= VALUE:
            ends[start] = brace.start()
    for one in found:
        yield one, text[one.end() : ends[one.end()]] if one.end() in ends else None


def _macros(source: str) -> dict[str, str]:
    """Names and values of the macros without arguments that a paper defines, values expanded; the last counts.

    One that has itself in its value, or grows beyond VALUE characters, is left as it is.
    """
    found: dict[str, str] = {}
    for one, value in _defined(source):
        if value is None or "#" in value:
            found.pop(one["name"], None)
        elif one["how"] == "DeclareMathOperator":
            found[one["name"]] = f"\\operatorname{{{value}}}"
        else:
            found[one["name"]] = re.sub(r"\\xspace\b\s*", "", value)
    for _ in range(DEPTH):
        again = {name: _replaced(value, found)[: VALUE + 1] for name, value in found.items()}
        if again == found:
            break
        found = {name: value for name, value in again.items() if len(value) <= VALUE}
    return {name: value for name, value in found.items() if not any(word in found for word in _WORD.findall(value))}


def _expanded(body: str, macros: Mapping[str, str], budget: _Budget) -> str:
    """A body with its macros' values for their names; definitions of such are left out, others stay as they are."""
    pieces, at = [], 0
    for found, value in _defined(body):
        if found.start() < at:
            continue
        pieces.append(_replaced(body[at : found.start()], macros, budget))
        at = found.end()
        if value is not None and found["name"] in macros:
            at += len(value) + 1
        else:
            pieces.append(found[0])
    return "".join([*pieces, _replaced(body[at:], macros, budget)])


def _replaced(text: str, macros: Mapping[str, str], budget: _Budget | None = None) -> str:
    def value(word: re.Match[str]) -> str:
        found = macros.get(word[1], word[0])
        return budget.spend(found) if budget else found

    return _WORD.sub(value, text) if macros else text
