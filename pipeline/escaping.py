"""Words of strangers on a screen or on a page: shown as they are, and never obeyed.

Ids, reasons, licences, addresses and texts come from corpora. The law: no document can move a cursor, reverse a line,
or become markup, a link or a script of a page that we write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

LIMIT = 300


def clean(value: object, limit: int = LIMIT) -> str:
    """One printable line: characters that are not printable become their escapes; cut at `limit` characters."""
    text = str(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)


def markdown(value: object, limit: int = LIMIT) -> str:
    """Text that Markdown and HTML show as it is."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~&:@$])", r"\\\1", clean(value, limit))


def link(url: str) -> str:
    """An address as an autolink of Markdown; what is none of the web stays text."""
    if not re.match(r"https?://[^\s/]", url, re.IGNORECASE) or len(url) > 2000:
        return markdown(url)
    return f"<{quote(url, safe=':/?#[]@!$&()*+,;=%~-._')}>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> list[str]:
    """Lines of a Markdown table of cells that are escaped already; columns after the first `text` are numbers."""
    rule = ["---" if number < text else "---:" for number in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def scalar(value: object) -> str:
    """A string of YAML: quoted as JSON quotes, so that `no` is no boolean; every character printable."""
    return json.dumps(clean(value), ensure_ascii=False)


def page(value: Any) -> str:
    """JSON for people, the same bytes for equal values, harmless where it is pasted into HTML."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)
    return re.sub(r"[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
