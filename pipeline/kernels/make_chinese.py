"""Make `chinese.npz`: which characters of Chinese are Simplified, which Traditional, and what holds a pair for one.

Run as `python -m pipeline.kernels.make_chinese`, with opencc 1.4.2 installed, whose dictionaries of characters
(Apache-2.0) say all of it. The file is committed: it is made again only when OpenCC knows more, and every sketch that
was made with it is then stale.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.kernels import chinese

Options = dict[str, list[str]]


def dictionary(name: str) -> Options:
    """One of OpenCC's dictionaries: each character's counterparts, the commonest first."""
    found = importlib.util.find_spec("opencc")
    assert found is not None and found.origin is not None
    home = Path(found.origin).parent / "clib"
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        where = ["-i", str(home / "share" / "opencc" / f"{name}.ocd2"), "-f", "ocd2", "-o", file.name, "-t", "text"]
        subprocess.run([str(home / "bin" / "opencc_dict"), *where], check=True)
        rows = (line.rstrip("\n").split("\t") for line in file)
        return {key: values.split(" ") for key, values in rows if len(key) == 1}


def simplified(to_simplified: Options, to_traditional: Options, variants: Mapping[str, list[str]]) -> dict[str, str]:
    """What each character is held for: its commonest Simplified counterpart; a variant of Taiwan or Hong Kong first
    goes over the standard form, unless it is a Simplified character of its own."""
    first = {key: values[0] for key, values in to_simplified.items()}
    for key, values in variants.items():
        if key not in first and key not in to_traditional:
            first[key] = first.get(values[0], values[0])
    return {key: end for key in sorted(first) if (end := _end(first, key)) != key}


def _end(first: Mapping[str, str], key: str) -> str:
    seen = [key]
    while (following := first.get(seen[-1], seen[-1])) not in seen:
        seen.append(following)
    return seen[-1] if following == seen[-1] else min(seen)


def alone(here: Options, there: Options, encoding: str) -> Iterator[str]:
    """Characters that only the script has of which `here` gives counterparts in the other, and `there` the way back.

    One that the other script's old encoding has is written there whatever a dictionary prefers (群, 秘 in Taiwan).
    """
    return (key for key, values in here.items() if key not in values and key not in there and not _in(key, encoding))


def _in(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def main() -> None:
    to_traditional = dictionary("STCharacters")
    to_simplified = dictionary("TSCharacters") | dictionary("TSCharactersExt")
    variants = dictionary("HKVariantsRev") | dictionary("TWVariantsRev")
    pairs = simplified(to_simplified, to_traditional, variants)
    only_simplified = alone(to_traditional, to_simplified, "big5")
    only_traditional = alone(to_simplified, to_traditional, "gb2312")
    np.savez_compressed(
        Path(__file__).with_name(chinese.FILE),
        pairs=np.array([[ord(key), ord(value)] for key, value in pairs.items()], np.uint32),
        simplified=np.array(sorted(map(ord, only_simplified)), np.uint32),
        traditional=np.array(sorted(map(ord, only_traditional)), np.uint32),
    )


if __name__ == "__main__":
    main()
