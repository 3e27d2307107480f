"""Numbers and texts as people read them: what the report and its plots print goes through here.

The law: nothing that a corpus, a card or a model wrote can act on the page. Markup is escaped by whoever writes
it; here characters that would move, hide or reverse the text around them become their visible code, and
only an address that is plainly http or https may become a link.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Undefined
from markupsafe import Markup

ABSENT = "n/a"
# Controls but tab and line feed, line separators, bidirectional controls, lone surrogates, noncharacters, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
_ADDRESS = re.compile(r"https?://[!-~]+", re.IGNORECASE)


def visible(value: Any) -> Any:
    """The value as text in which nothing works unseen: U+202E becomes ⟨U+202E⟩; markup that is ours stays."""
    if isinstance(value, Markup):
        return value
    if _absent(value):
        return ABSENT
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", str(value))


def web(value: Any) -> bool:
    """Whether an address may become a link: http or https, a host, no spaces, no name or password before the host."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and "@" not in parts.netloc and "\\" not in value
    except ValueError:
        return False


def quoted(value: Any) -> str:
    """A text as one word of a shell command that can be copied from the page."""
    return shlex.quote(str(visible(value)))


def number(value: Any) -> float:
    """The value as a float; NaN for what is no number."""
    if isinstance(value, str | bytes) or _absent(value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def count(value: Any) -> str:
    """1,234"""
    return f"{value:,}" if isinstance(value, int) else figure(value)


def counted(value: Any, one: str, many: str = "") -> str:
    """1 step, 1,234 steps"""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def figure(value: Any) -> str:
    """A measured number with three or four figures: 1,235, 123.5, 4.520, 0.00123, 1.20e+12."""
    found = number(value)
    if not math.isfinite(found):
        return ABSENT if math.isnan(found) else "infinite" if found > 0 else "-infinite"
    size = abs(found)
    if size and not 1e-4 <= size < 1e9:
        return f"{found:.2e}"
    if size >= 1:
        return f"{found:,.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"
    return f"{found:.3g}"  # and nought is 0


def bits(value: Any) -> str:
    """Bits per byte: four decimals."""
    found = number(value)
    return f"{found:.4f}" if math.isfinite(found) and abs(found) < 1e6 else figure(value)


def size(value: Any) -> str:
    """Bytes in decimal units: 999 B, 12.3 MB."""
    found = number(value)
    if not math.isfinite(found):
        return figure(value)
    for unit in ("B", "KB", "MB", "GB"):
        if abs(found) < (1000 if unit == "B" else 999.95):
            return f"{found:.0f} B" if unit == "B" else f"{found:.1f} {unit}"
        found /= 1000
    return f"{found:,.1f} TB"


def edge(value: Any) -> str:
    """A power of two of bytes: 32 B, 1 KiB, 16 MiB."""
    found = int(value)
    for unit in ("B", "KiB", "MiB"):
        if found % 1024 or not found:
            return f"{found:,} {unit}"
        found //= 1024
    return f"{found:,} GiB"


def percent(part: Any, whole: Any) -> str:
    """A part of a whole: 12.3 %; what is there is never said to be 0.0 %."""
    share = number(part) / number(whole) * 100 if number(whole) else math.nan
    if not math.isfinite(share):
        return ABSENT
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def duration(value: Any) -> str:
    """Seconds: 8.2 s, 3 min 5 s, 2 h 14 min."""
    found = number(value)
    if not math.isfinite(found) or found < 59.95:
        return f"{found:.1f} s" if math.isfinite(found) else figure(value)
    minutes, seconds = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(round(found / 60), 60)
    return f"{hours:,} h {minutes} min"


def compact(value: float) -> str:
    """A tick's label: 0.5, 20k, 1.5M, 1e-05."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e15:
            return f"{value / limit:.6g}{unit}"
    return f"{value:.6g}"


def setting(value: Any) -> str:
    """A value of a configuration: lists and tables on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {setting(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _absent(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)
