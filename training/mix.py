"""What a run reads, row by row: one version, or several versions and sources of them by weight.

    position -> part (a fixed cycle) -> how many of that part came before -> row (the part's own permutation)

The law: whatever the weights, each part has within one row of its share of ANY prefix of positions, and a part's
order does not move when another is added. Row j of a part with share w may stand at the 0-based positions from
floor(j / w) to ceil((j + 1) / w) - 1: one in each such window is the same as |count - w n| < 1 for all n. They can
always be filled (Tijdeman 1980, "The chairman assignment problem"), and earliest deadline first fills them (the
windows are those of a Pfair schedule on one processor: Baruah, Cohen, Plaxton and Varvel 1996, Algorithmica 15).
Weights are read as the decimals that were written, so the assignment repeats after the sum of the least whole
numbers in their ratio: one table of that length, and no state.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training import TrainingError, batch, order
from training.config import Part as Entry
from training.config import Run
from training.manifest import Version, digest, open_version
from training.manifest.arrays import integers
from training.shards import Rows, Split
from training.tables import suggest

RUN = 4096  # positions whose rows are worked out together
AT_ONCE, PLACES = 256, 1 << 20  # rows that are laid out together, of so many places at the most
LONGEST = 1 << 16  # positions of a cycle; laying out so many takes about a tenth of a second


def cycle(weights: Sequence[float]) -> NDArray[np.int64]:
    """The part of every position of one cycle. Raises TrainingError where the ratio of the weights needs a long one."""
    shares = [Fraction(str(weight)) for weight in weights]
    scaled = [int(share * math.lcm(*(s.denominator for s in shares))) for share in shares]
    counts = [count // math.gcd(*scaled) for count in scaled]
    period = sum(counts)
    if period > LONGEST:
        raise TrainingError(f"[[mix]]: weights in the ratio {counts} repeat after {period} rows; write fewer digits")

    def window(part: int, nth: int) -> tuple[int, int, int, int]:
        return nth * period // counts[part], -(-(nth + 1) * period // counts[part]), part, nth

    waiting = [window(part, 0) for part in range(len(counts))]
    ready: list[tuple[int, int, int]] = []
    found = np.empty(period, np.int64)
    for position in range(period):
        while waiting and waiting[0][0] <= position:
            _, deadline, part, nth = heapq.heappop(waiting)
            heapq.heappush(ready, (deadline, part, nth))
        _, part, nth = heapq.heappop(ready)
        found[position] = part
        if nth + 1 < counts[part]:
            heapq.heappush(waiting, window(part, nth + 1))
    return found


@dataclass(frozen=True)
class Part:
    """Rows of the split that are one part: those of whole shards, [first, last) of each."""

    name: str
    share: float
    seed: int
    spans: NDArray[np.int64]

    def __len__(self) -> int:
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def rows(self, occurrences: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers in the split of the part's n-th rows, 0-based; those beyond its size are further epochs."""
        local = order.rows(len(self), self.seed, occurrences)
        ends = np.cumsum(self.spans[:, 1] - self.spans[:, 0])
        at = np.searchsorted(ends, local, side="right")
        return self.spans[at, 1] - ends[at] + local

    def occurrences(self, rows: NDArray[np.int64], epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The inverse of `rows` for one epoch: (those of `rows` that are of this part, which of the part's rows each
        then is, counted through all epochs)."""
        order_of = np.argsort(self.spans[:, 0], kind="stable")
        spans = self.spans[order_of]
        before = np.cumsum(self.spans[:, 1] - self.spans[:, 0])[order_of] - (spans[:, 1] - spans[:, 0])
        at = np.searchsorted(spans[:, 0], rows, side="right") - 1
        mine = (at >= 0) & (rows < spans[at, 1])
        local = rows[mine] - spans[at[mine], 0] + before[at[mine]]
        return rows[mine], epoch * len(self) + order.positions(len(self), self.seed, epoch, local)


class Stream:
    """The training rows of a run in their order; rows and documents are numbered through all its versions."""

    def __init__(self, run: Run, version: Version) -> None:
        self.run, self.versions = run, (version, *version.beside)
        self.split = Split(version, "train", *version.beside)
        if run.mix:
            self._cycle = cycle([entry.weight for entry in run.mix])
            self.parts = [self._part(number, entry) for number, entry in enumerate(run.mix)]
        else:
            self._cycle = np.zeros(1, np.int64)
            self.parts = [Part(version.address, 1.0, run.seed, np.array([[0, len(self.split)]]))]
        self._size = np.bincount(self._cycle, minlength=len(self.parts))
        before = self._cycle == np.arange(len(self.parts))[:, None]
        self._nth = (np.cumsum(before, axis=1) - 1)[self._cycle, np.arange(len(self._cycle))]
        self._run, self._run_rows = (0, 0), np.empty(0, np.int64)
        self._laid: tuple[int, Rows | None] = 0, None
        self._firsts = np.cumsum([0, *(v.manifest.documents.rows for v in self.versions)])

    def _part(self, number: int, entry: Entry) -> Part:
        version = _named(entry, self.versions, number)
        first = 0
        spans = []
        for shard, owner in zip(self.split.shards, self.split.owners, strict=True):
            if self.versions[owner] is version and entry.source in (None, shard.entry.source):
                spans.append((first, first + len(shard)))
            first += len(shard)
        name = f"{version.address} {entry.source}" if entry.source else version.address
        if not sum(last - begin for begin, last in spans):
            has = {shard.source for shard in version.manifest.splits["train"].shards}
            raise TrainingError(f"[[mix]] {number + 1}: {name}: no training rows{suggest(entry.source or '', has)}")
        share = float((self._cycle == number).sum()) / len(self._cycle)
        return Part(name, share, order.derive("part", self.run.seed, name), np.array(spans, np.int64))

    @property
    def start(self) -> str:
        """The hash chain before anything was read: it names the versions, the parts and their weights."""
        versions = self.versions[0].manifest.version
        if self.run.mix:
            parts = [entry.model_dump(mode="json") for entry in self.run.mix]
            versions = digest({"versions": [v.address for v in self.versions], "mix": parts})
        return batch.chain_start(versions, self.run.seed, self.run.batch.rows)

    def places(self, positions: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The part of each global position, and which of that part's rows it is, counted from 0 through all epochs."""
        positions = np.asarray(positions, np.int64)
        turn, place = np.divmod(positions, len(self._cycle))
        part = self._cycle[place]
        return part, turn * self._size[part] + self._nth[place]

    def readings(self, rows: NDArray[np.int64], before: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every reading of some rows of the split at a global position below `before`: (position, row), by position.

        Costs what the rows and the epochs are, not the positions between.
        """
        found = [np.empty((0, 2), np.int64)]
        for number, part in enumerate(self.parts):
            turns, rest = divmod(before, len(self._cycle))
            read = turns * int(self._size[number]) + int((self._cycle[:rest] == number).sum())
            places = np.flatnonzero(self._cycle == number)
            for epoch in range(-(-read // len(part))):
                mine, nth = part.occurrences(rows, epoch)
                turn, place = np.divmod(nth, len(places))
                found.append(np.stack([turn * len(self._cycle) + places[place], mine], axis=1))
        all_found = np.concatenate(found)
        all_found = all_found[all_found[:, 0] < before]
        all_found = all_found[np.argsort(all_found[:, 0], kind="stable")]
        return all_found[:, 0], all_found[:, 1]

    def rows(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Row numbers in the split at these global positions."""
        part, nth = self.places(positions)
        found = np.empty(len(part), np.int64)
        for number in np.unique(part):
            found[part == number] = self.parts[number].rows(nth[part == number])
        return found

    def step(self, step: int, rank: int = 0, world: int = 1) -> Rows:
        """The rows of a 0-based step that are `rank`'s (all of them by default), laid out."""
        first, last = batch.share(step, self.run.batch.rows, rank, world)
        if world > 1:
            return self.split.take(self._known(first, last))
        # So few rows cost as much as some more, and those are what the next step reads.
        begin, laid = self._laid
        if laid is None or not begin <= first <= last <= begin + len(laid):
            end = max(last, first + min(AT_ONCE, PLACES // self.split.length))
            begin, laid = first, self.split.take(self._known(first, end))
            self._laid = begin, laid
        return laid.slice(first - begin, last - begin)

    def _known(self, first: int, last: int) -> NDArray[np.int64]:
        """As `rows`, of the positions from `first` to before `last`: worked out in runs of `RUN`, the newest kept.

        A few rows cost as much as a run of them.
        """
        if not self._run[0] <= first <= last <= self._run[1]:
            self._run = first, max(last, first + RUN)
            self._run_rows = self.rows(np.arange(*self._run))
        return self._run_rows[first - self._run[0] : last - self._run[0]]

    def owners(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Which of `versions` holds each document, by numbers as `Rows.documents` has them."""
        return np.searchsorted(self._firsts, numbers, side="right") - 1

    def documents(self, numbers: NDArray[np.integer[Any]], columns: Sequence[str]) -> pa.Table:
        """Entries of the document indexes for numbers as `Rows.documents` has them, in that order."""
        numbers = np.asarray(numbers, np.int64)
        owner = self.owners(numbers)
        tables = [self.versions[o].lookup(numbers[owner == o] - self._firsts[o], columns) for o in np.unique(owner)]
        back = np.argsort(np.argsort(owner, kind="stable"), kind="stable")
        return pa.concat_tables(tables).take(integers(back)) if tables else pa.table({c: [] for c in columns})

    def summary(self, steps: int) -> list[dict[str, Any]]:
        """Each part's share, rows, and what `steps` steps read of it."""
        read = steps * self.run.batch.rows
        turns, rest = divmod(read, len(self._cycle))
        counts = turns * self._size + np.bincount(self._cycle[:rest], minlength=len(self.parts))
        return [
            {"part": part.name, "share": part.share, "rows": len(part), "read": int(n), "epochs": int(n) / len(part)}
            for part, n in zip(self.parts, counts, strict=True)
        ]


def opened(run: Run, manifests: Sequence[Path], folder: Path, *, verify: bool) -> tuple[Run, Version]:
    """The version to train on, with all that the run mixes beside it, and the run with its parts named by address.

    The first manifest is the run's own version: it gives the tokenizer and the splits to evaluate on. A part names
    one of `manifests` by NAME or NAME@VERSION, or a manifest by its path, relative to `folder`; none: the first.
    Raises TrainingError where a part names nothing, or versions cannot be read by one model.
    """
    versions = [open_version(path, verify=verify) for path in manifests]
    entries = []
    for number, entry in enumerate(run.mix):
        if entry.version is not None and not _matching(entry, versions) and (folder / entry.version).exists():
            found = open_version(folder / entry.version, verify=verify)
            if found.address not in [v.address for v in versions]:
                versions.append(found)
            entries.append(entry.model_copy(update={"version": found.address}))
        elif not versions:
            raise TrainingError("no version to train on: give --manifest, or the path of a manifest in [[mix]]")
        else:
            entries.append(entry.model_copy(update={"version": _named(entry, versions, number).address}))
    if not versions:
        raise TrainingError(
            "no version to train on: give --manifest and the folder of one, STORE/versions/NAME/VERSION (gristmill ls)"
        )
    first, *others = versions
    wanted = {entry.version for entry in entries}
    if spare := [other.address for other in others if other.address not in wanted]:
        raise TrainingError(f"--manifest: no [[mix]] of the run names {spare[0]}")
    if twice := [a for a, b in itertools.combinations(entries, 2) if (a.version, a.source) == (b.version, b.source)]:
        raise TrainingError(f"[[mix]]: {twice[0].version} {twice[0].source or ''} stands there twice; add the weights")
    for other in others:
        _fits(first, other)
    return run.model_copy(update={"mix": entries}), first.with_others(others)


def _matching(entry: Entry, versions: Sequence[Version]) -> list[Version]:
    name, _, said = (entry.version or "").partition("@")
    known = [v for v in versions if v.manifest.name == name]
    return [v for v in known if said in ("", "latest") or v.manifest.version.startswith(said)]


def sources(run: Run, version: Version) -> dict[str, set[str] | None]:
    """By the address of each version that a run reads: the sources that it reads of it, None for all."""
    versions = (version, *version.beside)
    if not run.mix:
        return {each.address: None for each in versions}
    found: dict[str, set[str] | None] = {each.address: set() for each in versions}
    for number, entry in enumerate(run.mix):
        address = _named(entry, versions, number).address
        named = found[address]
        found[address] = None if entry.source is None or named is None else {*named, entry.source}
    return found


def _named(entry: Entry, versions: Sequence[Version], number: int) -> Version:
    """The one version that a part names. Raises TrainingError."""
    found = _matching(entry, versions) if entry.version is not None else list(versions[:1])
    if len(found) != 1:
        what = "names several" if found else "is none"
        has = suggest(str(entry.version), [name for v in versions for name in (v.manifest.name, v.address)])
        raise TrainingError(f"[[mix]] {number + 1}: {entry.version!r} {what} of the versions given by --manifest{has}")
    return found[0]


def _fits(first: Version, other: Version) -> None:
    """Raise TrainingError unless one model can read both."""

    def nature(version: Version) -> dict[str, Any]:
        m = version.manifest
        known = {"tokenizer": m.tokenizer.sha256, "length": m.length, "dtype": m.dtype, "layout": m.layout}
        return {**known, "labels": m.labels, "targets": "there" if m.targets else "absent"}

    ours, theirs = nature(first), nature(other)
    for name in ours:
        if ours[name] != theirs[name]:
            a, b = (str(side[name])[: 16 if name == "tokenizer" else 80] for side in (ours, theirs))
            raise TrainingError(
                f"{first.address} and {other.address} cannot be mixed: {name} is {a} in one and {b} in the other; "
                "build both with one tokenizer, length, dtype and set of labels"
            )
