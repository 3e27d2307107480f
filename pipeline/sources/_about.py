"""What the metadata of a Python distribution says of all its documents: version, SPDX licence, home page.

The law: a licence is read, never guessed: what no table and no licence text settles is None. In order: the
License-Expression; a License field that is itself an SPDX expression; the classifiers; the spelling of a short
License field; and "BSD" is settled by the clauses of the licence text. Several classifiers are joined by AND, the
cautious reading: a recipe must then allow each.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageMetadata
from pathlib import Path

from pipeline.sources import Item

LIBRARY = "python"
HOME = ("", "homepage", "home", "documentation", "docs", "source", "sourcecode", "repository", "github")
_GNU = {"v2": "2.0-only", "v2 or later": "2.0-or-later", "v3": "3.0-only", "v3 or later": "3.0-or-later"}
CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "Artistic License": "Artistic-1.0",
    "BSD License": "BSD",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "GNU General Public License (GPL)": "GPL-1.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.0-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Public Domain": "LicenseRef-Public-Domain",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
    **{f"GNU General Public License {v} (GPL{v[:2]}{'+' * (len(v) > 2)})": f"GPL-{s}" for v, s in _GNU.items()},
    **{
        f"GNU Lesser General Public License {v} (LGPL{v[:2]}{'+' * (len(v) > 2)})": f"LGPL-{s}" for v, s in _GNU.items()
    },
    **{
        f"GNU Affero General Public License {v} (AGPL{v[:2]}{'+' * (len(v) > 2)})": f"AGPL-{s}" for v, s in _GNU.items()
    },
}
KNOWN = {spdx for spdx in CLASSIFIERS.values() if spdx != "BSD"} | {
    "0BSD", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0", "GPL-3.0", "LGPL-2.1", "LGPL-2.1-only", "LGPL-2.1-or-later",
    "LGPL-3.0", "Python-2.0", "WTFPL", "CC-BY-4.0", "CC-BY-SA-4.0",
}  # fmt: skip
SPELLINGS = {
    "2-clause bsd": "BSD-2-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "bsd": "BSD",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "gpl": "GPL-1.0-or-later",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "isc": "ISC",
    "lgplv3": "LGPL-3.0-only",
    "lgplv3+": "LGPL-3.0-or-later",
    "mit": "MIT",
    "modified bsd": "BSD-3-Clause",
    "mozilla public 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "simplified bsd": "BSD-2-Clause",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
    "zpl 2.1": "ZPL-2.1",
}


@dataclass(frozen=True)
class About:
    """What the metadata of a distribution says of all its documents."""

    name: str
    version: str
    licence: str | None
    url: str | None
    description: str


@functools.lru_cache(maxsize=4)
def about(item: Item) -> About:
    """Read the metadata of the distribution that an item belongs to."""
    if item.path == LIBRARY:
        return About(item.path, platform.python_version(), "PSF-2.0", "https://www.python.org/", "")
    distribution = importlib.metadata.Distribution.at(item.location)
    metadata, folder = distribution.metadata, Path(item.location)
    named = sorted(p for p in folder.rglob("*") if re.match("licen[cs]e|copying", p.name, re.IGNORECASE))
    licence = spdx(metadata, (p.read_text(encoding="utf-8", errors="replace") for p in named if p.is_file()))
    description = str(metadata.json.get("description") or "").strip()
    description = "" if description == "UNKNOWN" else description
    return About(item.path, distribution.version, licence, _homepage(metadata), description)


def _homepage(metadata: PackageMetadata) -> str | None:
    """The home page, by its own field or by the first label that means it."""
    urls = {"": field_of(metadata, "Home-page")}
    for line in metadata.get_all("Project-URL") or []:
        label, _, url = str(line).partition(",")
        urls.setdefault(re.sub("[^a-z]", "", label.lower()), url.strip())
    found = (urls.get(label, "") for label in HOME)
    return next((url for url in found if url.startswith(("http://", "https://"))), None)


def spdx(metadata: PackageMetadata, texts: Iterable[str]) -> str | None:
    """The SPDX expression of a distribution, or None. `texts` are its licence files, read where it says just "BSD"."""
    stated = field_of(metadata, "License")
    if expression := field_of(metadata, "License-Expression"):
        return expression
    if is_known(stated):
        return stated
    found = _classified(metadata.get_all("Classifier") or []) or _spelled(stated)
    if "BSD" not in found:
        return " AND ".join(found) or None
    exact = next((s for s in _spelled(stated) if s.startswith("BSD-")), None)
    exact = exact or next(filter(None, map(_clauses, [stated, *texts])), None)
    return " AND ".join(sorted({exact or "LicenseRef-BSD", *found} - {"BSD"}))


def field_of(metadata: PackageMetadata, name: str) -> str:
    """A metadata field, empty where it is absent."""
    return str(metadata[name]).strip() if name in metadata else ""


def is_known(expression: str) -> bool:
    """Whether a text is an SPDX expression over identifiers that the tables know."""
    words = re.findall(r"[^\s()]+", expression) if len(expression) < 200 else []
    return bool(words) and all(w in KNOWN if i % 2 == 0 else w in ("AND", "OR") for i, w in enumerate(words))


def _classified(classifiers: Iterable[str]) -> list[str]:
    names = [c.rpartition("::")[2].strip() for c in classifiers if c.startswith("License ::")]
    found = {CLASSIFIERS[name] for name in names if name in CLASSIFIERS}
    exact = {s for s in found if s.startswith("GPL-") and s != "GPL-1.0-or-later"}
    return sorted(found - {"GPL-1.0-or-later"} if exact else found)


def _spelled(stated: str) -> list[str]:
    """`The BSD 3-Clause License` and its like, by the first line."""
    line = stated.partition("\n")[0].lower().replace(",", " ")
    words = [w for w in line.split() if w not in ("the", "license", "licence", "licensed", "(mit)")]
    found = SPELLINGS.get(" ".join(words))
    return [found] if found else []


def _clauses(text: str) -> str | None:
    text = " ".join(text.split())
    if "Redistributions in binary form must reproduce" not in text:
        return None
    return "BSD-3-Clause" if re.search(r"Neither the names? ", text) else "BSD-2-Clause"
