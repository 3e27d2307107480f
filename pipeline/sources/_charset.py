"""From the bytes of a page to its text: which charset they are in.

The law: what is stated is tried, and believed only as far as the bytes bear it out: a page in another charset than
it says is read as what it is, and one that is no text at all is refused. In order: the byte order mark, UTF-8 where
the bytes are sound UTF-8 by more than chance, the HTTP header, the page's own <meta> or XML declaration (the labels
of the WHATWG encoding standard), UTF-8 with one bad character in fifty (they become U+FFFD), and uchardet's guess.
"""

from __future__ import annotations

import codecs
import re

from pipeline.sources import SourceError
from pipeline.sources._rows import RowError

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})""", re.IGNORECASE)
_META_BYTES = 4096
_MULTIBYTE = re.compile(rb"[\xc2-\xf4][\x80-\xbf]+")
_SURE = 3
_FEW = 50
# Labels whose WHATWG meaning is wider than Python's.
WIDER = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs",
}  # fmt: skip
ALIASES = {"x-gbk": "gb18030", "x-sjis": "cp932", "windows-31j": "cp932", "ks_c_5601-1987": "cp949", "unicode": "utf-8"}


def text_of(data: bytes, stated: str | None = None, html: bool = True) -> tuple[str, str]:
    """The text and the charset that it was in; `stated` is the label of the HTTP header. Raises RowError."""
    for mark, charset in MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], charset)
    labels: list[str | None] = [stated, *(_own(data) if html else ())]
    names = [name for label in labels if label and (name := codec(label))]
    sure = _sound(data) and names[:1] not in (["utf-16-le"], ["utf-16-be"], ["iso2022_jp"], ["hz"])
    for name in dict.fromkeys(["utf-8", *names] if sure else [*names, "utf-8"]):
        try:
            return data.decode(name), name
        except UnicodeDecodeError:
            continue
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    if bad * _FEW <= sum(1 for _ in _MULTIBYTE.finditer(data)):
        return text, f"utf-8, {bad} replaced"
    return _decoded(data, _guess(data))


def codec(label: str) -> str | None:
    """Python's name for a charset label as the web means it; None where it names no charset of text."""
    label = label.strip().strip("\"'").lower()
    try:
        found = codecs.lookup(ALIASES.get(label, label))
    except (LookupError, ValueError, UnicodeError):
        return None
    if not found._is_text_encoding or found.name in ("utf-7", "idna", "punycode", "undefined", "unicode_escape"):
        return None
    name = {"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(found.name, found.name)
    return WIDER.get(name, name)


def _own(data: bytes) -> list[str]:
    """What the page says of itself. That it is UTF-16 cannot be: it was read as ASCII."""
    head = data[:_META_BYTES]
    found = _XML.search(head) or _META.search(head)
    label = found.group(1).decode("ascii", "replace") if found else ""
    return ["utf-8" if label.lower().startswith("utf-16") else label]


def _sound(data: bytes) -> bool:
    """Whether the bytes are UTF-8 by more than chance, or ASCII."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return data.isascii() or sum(1 for _, _ in zip(_MULTIBYTE.finditer(data), range(_SURE), strict=False)) == _SURE


def _guess(data: bytes) -> str:
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ImportError as error:
        raise SourceError(
            "a page states no charset that fits: guessing needs resiliparse; pip install 'gristmill[web]'"
        ) from error
    found = detect_encoding(data)
    name = codec(found) if found else None
    if name is None:
        raise RowError("unknown_charset", "the bytes are in no charset that is known")
    return name


def _decoded(data: bytes, name: str) -> tuple[str, str]:
    try:
        return data.decode(name), name
    except UnicodeDecodeError as error:
        raise RowError("invalid_charset", f"no sound {name}: {error.reason} at byte {error.start}") from error
