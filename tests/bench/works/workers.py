"""The whole chain by two workers, beside one: seconds of the wall clock, on a machine where nothing else runs."""

from __future__ import annotations

from pathlib import Path

from tests.bench.comparison import Comparison
from tests.bench.works import chain

COMPARISONS = [Comparison(chain.TITLE, "gristmill_two", chain.OURS, "corpus", 1.6, 1.8, "two workers, one", cores=2)]
differences = chain.differences


def gristmill_two(data: Path, folder: Path) -> chain.Work:
    """By two workers."""
    return chain.gristmill(data, folder, 2)


SIDES = {chain.OURS: chain.gristmill, "gristmill_two": gristmill_two}
