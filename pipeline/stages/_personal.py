"""What says who somebody is, or opens a door, found in a text: by a pattern, then by what the number itself proves.

    kind         found by                                              must also
    secret       the form of a provider's keys, a private key in PEM   -
    email        local part and domain (the ASCII of RFC 5322, 3.4.1)  -
    iban         country, two digits, as many as the country has       hold ISO 7064 MOD 97-10 and the country's form
    chinese_id   GB 11643: 17 digits and a check                       be of a county and a date, hold MOD 11-2
    card         12 to 19 digits, groups by one space or hyphen        hold Luhn (ISO/IEC 7812-1 B), begin by 2 to 6
    ip           IPv4 of four numbers, IPv6 of three groups or more    be public (IANA special-purpose registries), and
                                                                       no number of a section: one is 32 or more
    phone        7 to 15 digits, as people group them                  be a number of one of the countries, or be as
                                                                       long as those behind its "+" (libphonenumber)

Kinds are looked for in this order, and what was found is no part of another. The law: every pattern takes a time
linear in the text, whatever stands there, and a mask is a constant that no pattern finds again.

A number written without any space, hyphen or "+" is a phone only where the country uses it for mobile phones alone
(China does, the United States do not): otherwise every serial number would be one.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

KINDS = ("secret", "email", "iban", "chinese_id", "card", "ip", "phone")
MASKS = {kind: f"<{kind}>" for kind in KINDS}

# Keys by the forms that their providers document; each begins by what is no word.
SECRET = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?:AKIA|ASIA)[A-Z2-7]{16}"  # AWS access key
    r"|gh[oprsu]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,255}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,255}"  # Slack
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,1024}"  # Google
    r"|sk-[A-Za-z0-9_-]{20,255}|hf_[A-Za-z0-9]{34}"  # OpenAI, Anthropic; Hugging Face
    r"|[rsp]k_(?:live|test)_[A-Za-z0-9]{16,255}"  # Stripe
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,1024}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{16,4096}"  # JSON Web Token, RFC 7519
    r")(?![A-Za-z0-9_])"
)
PEM_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
PEM_LONGEST = 16_384
EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}")
CHINESE_ID = re.compile(r"(?<![A-Za-z0-9])\d{17}[\dXx](?![A-Za-z0-9])")
CARD = re.compile(r"(?<![\w.+])(?<!\d[ ,-])(?:[2-6]|1800)(?:[ -]?\d){11,18}(?![ -]?\d)")
OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IPV4 = re.compile(rf"(?<![\w.]){OCTET}(?:\.{OCTET}){{3}}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:.]*\w)")
PHONE = re.compile(
    r"(?<![\w/:=])(?<!\d[.,-])(?:\+ ?)?\(?\d(?:[ \u00a0./()-]{0,2}\d){6,14}(?: ?(?:x|ext\.?) ?\d{1,6})?"
    r"(?!\w|[-.,/:=]\d)"
)
# A date, years, a decimal.
NO_PHONE = re.compile(
    r"(?:19|20)\d\d([-/. ])\d{1,2}\1\d{1,2}\b|\d{1,2}([-/. ])\d{1,2}\2(?:19|20)\d\d\b|(?:19|20)\d\d ?- ?(?:19|20)\d\d"
    r"|^\d+\.\d+$"
)
# A text without any of these has nothing that is sought: RE2 over whole columns.
ANY = (
    r"@|(?:\d[ \x{a0}./():-]{0,2}){3}\d|[0-9A-Fa-f]:[0-9A-Fa-f:]{2}|[A-Za-z]{2}\d\d|PRIVATE KEY|AKIA|ASIA|AIza|eyJ|SG\."
    r"|ya29|[_-][A-Za-z0-9_-]{10}"
)

IPV4_OTHERS = [
    *map(ipaddress.IPv4Network, ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16")),
    *map(ipaddress.IPv4Network, ("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16")),
    *map(ipaddress.IPv4Network, ("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")),
]
SECTIONS = 32  # four numbers below this are a section or a version far more often than somebody's address
IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
IPV6_OTHERS = [*map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))]


class Found(NamedTuple):
    """Characters [begin, end) of a text."""

    begin: int
    end: int
    kind: str


def candidates(text: pa.Array) -> list[int]:
    """Rows of a column in which something may be found; None has nothing."""
    seen = pc.fill_null(pc.match_substring_regex(text, ANY), False)
    rows: list[int] = pc.indices_nonzero(seen).to_pylist()
    return rows


def look(text: pa.Array, kinds: Sequence[str], countries: Sequence[str]) -> Iterator[tuple[int, str, list[Found]]]:
    """(row, its text, what was found in it) of each row of a column that holds any."""
    for row in candidates(text):
        value: str = text[row].as_py()
        if found := find(value, kinds, countries):
            yield row, value, found


def find(text: str, kinds: Sequence[str], countries: Sequence[str]) -> list[Found]:
    """What of these kinds stands in a text, by place; no two overlap."""
    found: list[Found] = []
    taken = bytearray()
    for kind in KINDS:
        if kind not in kinds:
            continue
        for begin, end in FINDERS[kind](text, countries):
            taken = taken or bytearray(len(text))
            if not any(taken[begin:end]):
                taken[begin:end] = b"\1" * (end - begin)
                found.append(Found(begin, end, kind))
    return sorted(found)


def masked(text: str, found: Sequence[Found]) -> str:
    """The text with a mask for each."""
    parts, at = [], 0
    for begin, end, kind in found:
        parts += [text[at:begin], MASKS[kind]]
        at = end
    return "".join([*parts, text[at:]])


def check(*, kinds: list[str] | None, countries: list[str] | None, **params: object) -> None:
    """Raises ValueError for a kind or a country that there is not."""
    import phonenumbers

    from pipeline.stage import suggest

    known = phonenumbers.SUPPORTED_REGIONS
    for what, names, has in (("kind", kinds, KINDS), ("country", countries, known)):
        if unknown := sorted(set(names or ()) - set(has)):
            raise ValueError(f"no {what} {unknown[0]!r}{suggest(unknown[0], has)}")
    if kinds == []:
        raise ValueError(f"kinds is empty; leave it out for all of {', '.join(KINDS)}")


def resources(**params: object) -> dict[str, str]:
    """Whose metadata decides what is a number of a country, a county or a bank."""
    return {name: version(name) for name in ("phonenumbers", "python-stdnum")}


Spans = Iterator[tuple[int, int]]


def _plain(pattern: re.Pattern[str], proves: Callable[[str], bool] = bool) -> Callable[[str, Sequence[str]], Spans]:
    def spans(text: str, _: Sequence[str]) -> Spans:
        return (match.span() for match in pattern.finditer(text) if proves(match[0]))

    return spans


def _secrets(text: str, _: Sequence[str]) -> Spans:
    yield from (match.span() for match in SECRET.finditer(text))
    at = 0
    while begun := PEM_BEGIN.search(text, at):
        ended = PEM_END.search(text, begun.end(), begun.end() + PEM_LONGEST)
        at = ended.end() if ended else begun.end()
        if ended:
            yield begun.start(), at


def _ibans(text: str, _: Sequence[str]) -> Spans:
    from stdnum import iban

    for match in IBAN.finditer(text):
        # The pattern may run on into words behind: the country says how long the number is.
        size, letters = _iban_length(match[0][:2].upper()), 0
        for at, character in enumerate(match[0], 1):
            letters += character != " "
            if size and letters == size:
                end = match.start() + at
                if not text[end : end + 1].isalnum() and iban.is_valid(match[0][:at]):
                    yield match.start(), end
                break


@functools.cache
def _iban_length(country: str) -> int:
    """Characters of an IBAN of this country, 0 where there are none."""
    from stdnum import numdb

    [(_, properties), *_] = numdb.get("iban").info(country)
    return 4 + sum(int(size) for size in re.findall(r"(\d+)!", properties.get("bban", ""))) if properties else 0


def _is_chinese_id(digits: str) -> bool:
    from stdnum.cn import ric

    return bool(ric.is_valid(digits))


def _is_card(digits: str) -> bool:
    from stdnum import luhn

    marks = set(digits) - set("0123456789")
    return len(marks) < 2 and bool(luhn.is_valid(re.sub("[ -]", "", digits)))


def _ips(text: str, _: Sequence[str]) -> Spans:
    for match in IPV4.finditer(text):
        address = ipaddress.IPv4Address(match[0])
        if max(address.packed) >= SECTIONS and not any(address in network for network in IPV4_OTHERS):
            yield match.span()
    for match in IPV6.finditer(text):
        try:
            found = ipaddress.IPv6Address(match[0])
        except ValueError:
            continue
        groups = [group for group in match[0].split(":") if group]
        if len(groups) > 2 and found in IPV6_PUBLIC and not any(found in network for network in IPV6_OTHERS):
            yield match.span()


def _phones(text: str, countries: Sequence[str]) -> Spans:
    for match in PHONE.finditer(text):
        groups = re.findall(r"\d+", match[0])
        strange = match[0].count("(") != match[0].count(")") or len(groups) > 6
        strange = strange or (len(groups) > 1 and len(max(groups, key=len)) > 8)
        if strange or NO_PHONE.search(match[0]) or IPV4.fullmatch(match[0]):
            continue
        if _is_phone(match[0], tuple(countries)):
            yield match.span()


@functools.lru_cache(1 << 16)
def _is_phone(number: str, countries: tuple[str, ...]) -> bool:
    import phonenumbers

    bare = number.isdecimal()
    for country in (None,) if number[0] == "+" else countries:
        try:
            found = phonenumbers.parse(number, country)
        except phonenumbers.NumberParseException:
            continue
        if not (phonenumbers.is_possible_number if country is None else phonenumbers.is_valid_number)(found):
            continue
        if not bare or phonenumbers.number_type(found) == phonenumbers.PhoneNumberType.MOBILE:
            return True
    return False


FINDERS: dict[str, Callable[[str, Sequence[str]], Spans]] = {
    "secret": _secrets,
    "email": _plain(EMAIL),
    "iban": _ibans,
    "chinese_id": _plain(CHINESE_ID, _is_chinese_id),
    "card": _plain(CARD, _is_card),
    "ip": _ips,
    "phone": _phones,
}
