"""Papers as LaTeX source, as arXiv's bulk source has them: a document is a paper, put together from its TeX files.

A file is a paper (.tex, .gz of one or of a tar, .tar.gz and its like) or a bulk file of papers (.tar, as
arXiv_src_2401_001.tar). `_tex` says what is left of one: LaTeX without comments, front matter, bibliography and
appendix, its \\input files in their places, its macros without arguments expanded, its maths as it is. Parameters:

    paths               globs, relative to the card; "{data}/..." is under the data folder
    front_matter        keep what stands before the first section: title, authors, abstract
    appendix            keep what stands behind the bibliography
    maximum_paper_bytes more bytes of TeX, or more characters of text, are rejected
    maximum_ratio       as of kind `archive`

A document's number is that of the paper in its file, from 0. `meta` has `main`, the file that the paper begins with;
`title`; `member`, its name in a bulk file; `missing`, what it inputs that was not followed: not in the paper, out of
it, or in a circle; and `others`, what could have been the main file. A name that is an arXiv identifier gives the URL.

The law: every paper is a document or says why it is none: no LaTeX (PDF, PostScript, plain TeX), damaged, hostile or
too long. The number that matters: one paper, what is in memory.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath

import orjson

from pipeline.sources import Chunk, Collector, Guard, Item, _tex
from pipeline.sources._members import TAR, Member, Watched, tar_members
from pipeline.sources._paths import wholes
from pipeline.sources._rows import RowError
from pipeline.sources._streams import StreamError, raw

TEX = (".tex", ".ltx", ".latex")
PACKED = (*sorted(set(TAR) - {".tar"}), ".gz")
PAPERS = (*TEX, *PACKED)
_ARXIV = re.compile(r"(\d{4}\.\d{4,5}(?:v\d+)?)|([a-z-]+(?:\.[A-Z]{2})?)(\d{7}(?:v\d+)?)")


def survey(
    *,
    paths: list[str],
    front_matter: bool = False,
    appendix: bool = False,
    maximum_paper_bytes: int = 16 << 20,
    maximum_ratio: int = 200,
) -> Iterator[Item]:
    """An item for each file that the globs match. Raises SourceError: no match, no paper by its name."""
    said = f"no paper by its name; has: {', '.join(PAPERS)}, and .tar of such; narrow the glob"
    yield from wholes(paths, lambda name: _ending(name) or name.lower().endswith(".tar"), said)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    front_matter: bool = False,
    appendix: bool = False,
    maximum_paper_bytes: int = 16 << 20,
    maximum_ratio: int = 200,
) -> Iterator[Chunk]:
    """Documents and rejects of one file. Raises SourceError for one that changed."""
    guard, collector, number = Guard(item), Collector(source, item.path, licence), -1
    for number, (member, blocks) in enumerate(_papers(item, guard, maximum_ratio)):
        try:
            if isinstance(blocks, StreamError):
                raise blocks
            found = _files(member or item.path, blocks, maximum_paper_bytes, maximum_ratio)
            made = _tex.paper(found, maximum_paper_bytes, front_matter, appendix)
        except (RowError, StreamError) as error:
            collector.reject(number, error.reason, f"{member}: {error}" if member else str(error))
        else:
            collector.document(number, _document(made, member, item.path))
        if collector.full:
            yield from collector.take()
    guard.finish()
    if number < 0:
        collector.reject(0, "empty_file", "the file holds no paper")
    yield from collector.take()


def _ending(name: str) -> str:
    return next((ending for ending in PAPERS if name.lower().endswith(ending)), "")


def _papers(item: Item, guard: Guard, ratio: int) -> Iterator[tuple[str, Iterator[bytes] | StreamError]]:
    """The papers of a file: (name in a bulk file, bytes as they are packed, or what is wrong with them)."""
    blocks = raw(item, guard)
    if not item.path.lower().endswith(".tar"):
        yield "", blocks
    else:
        try:
            for member in tar_members(blocks):
                yield member.name, member.error or member.blocks
        except StreamError as error:
            yield "", error
    for _ in blocks:
        pass


def _files(name: str, blocks: Iterator[bytes], limit: int, ratio: int) -> dict[str, bytes]:
    """The TeX files of a paper. Raises RowError and StreamError."""
    found: dict[str, bytes] = {}
    for member in _members(name, blocks, ratio):
        if member.error is not None:
            raise StreamError(member.error.reason, f"{member.name}: {member.error}")
        if not member.name.lower().endswith(TEX):
            continue
        pieces: list[bytes] = []
        for block in member.blocks:
            limit -= len(block)
            if limit < 0:
                raise RowError("paper_too_long", "its TeX files have more bytes than maximum_paper_bytes")
            pieces.append(block)
        found[member.name] = b"".join(pieces)
    if not found:
        raise RowError("no_latex", "no TeX file is in it")
    return found


def _members(name: str, blocks: Iterator[bytes], ratio: int) -> Iterator[Member]:
    """The files of a paper: a .gz holds a tar or a single file, which only its bytes tell."""
    ending = _ending(name)
    if not ending:
        raise RowError("no_latex", f"{PurePosixPath(name).suffix or 'a file without ending'}: no source of a paper")
    stem = PurePosixPath(name).name[: -len(ending)]
    packed = "" if ending in TEX else TAR.get(ending, ending)
    watched = Watched(blocks, ratio)
    plain = watched.inflated(iter(watched), packed)
    head = b""
    for block in plain:
        head += block
        if len(head) >= tarfile.BLOCKSIZE:
            break
    if head[257:262] == b"ustar":
        yield from tar_members(chain((head,), plain))
    elif head.startswith((b"%PDF", b"%!PS")):
        raise RowError("no_latex", "a PDF or PostScript file, no LaTeX")
    else:
        yield Member(f"{stem}.tex", chain((head,), plain))


def _document(made: _tex.Paper, member: str, path: str) -> dict[str, str | None]:
    told = {"main": made.main, "title": made.title, "member": member, "missing": made.missing, "others": made.others}
    name = PurePosixPath(member or path).name
    found = _ARXIV.fullmatch(name.removesuffix(_ending(name)))
    url = f"https://arxiv.org/abs/{found[1] or f'{found[2]}/{found[3]}'}" if found else None
    meta = {key: value for key, value in told.items() if value}
    return {"text": made.text, "url": url, "meta": orjson.dumps(meta, option=orjson.OPT_SORT_KEYS).decode()}
