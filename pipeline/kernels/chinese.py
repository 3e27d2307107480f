"""Simplified and Traditional Chinese, character by character, as OpenCC's dictionaries have them.

What is shipped (`chinese.npz`, made by `python -m pipeline.kernels.make_chinese` from OpenCC 1.4.2, Apache-2.0) are
pairs of characters that are held for one where texts are compared, and the characters that only one script has. Of
two to one (發 and 髮 are both 发) all are held for the one, in either script: a comparison needs no more, and a text
is never rewritten by it, which takes the words around a character.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import unicode
from pipeline.kernels._jit import Table

FILE = "chinese.npz"
SIMPLIFIED, TRADITIONAL = 1, 2


@functools.cache
def folded() -> Table:
    """The table of `kernels.unicode` in which a Traditional character's lower case is its Simplified counterpart."""
    table = unicode.table().copy()
    pairs = _stored("pairs")
    table[pairs[:, 0]] = table[pairs[:, 0]] & ~np.uint32(unicode.LOWER) | pairs[:, 1]
    table.flags.writeable = False
    return table


@functools.cache
def scripts() -> NDArray[np.uint8]:
    """uint8 [1114112], read-only: SIMPLIFIED or TRADITIONAL for a character that only that script has, else 0."""
    found = np.zeros(unicode.CODE_POINTS, np.uint8)
    found[_stored("simplified")] = SIMPLIFIED
    found[_stored("traditional")] = TRADITIONAL
    found.flags.writeable = False
    return found


@functools.cache
def digest() -> str:
    """sha256 of the shipped file: what the cache key of a stage that reads it must hold."""
    return hashlib.sha256(resources.files(__package__).joinpath(FILE).read_bytes()).hexdigest()


def _stored(name: str) -> NDArray[np.uint32]:
    with resources.files(__package__).joinpath(FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        found: NDArray[np.uint32] = stored[name]
        return found
