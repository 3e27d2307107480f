"""One segment of a sealed version as it lies in the store: what it measured of whom, and what it compared.

What is read is read once, whatever is asked how often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import relating, stage
from pipeline.books import SegmentKeys
from pipeline.changes import Ruled
from pipeline.run import BORN
from pipeline.schema import LEDGER, cuts_file
from pipeline.store import Store, read_parquet

OWN = ["doc_id", "parent_id", BORN, "text_digest", "text_bytes"]


class Stored:
    """A segment and its stages."""

    def __init__(self, store: Store, number: int, keys: SegmentKeys, stages: Sequence[Ruled]) -> None:
        self.store, self.number, self.keys = store, number, keys
        self.own = [stage for stage in stages if stage.segment == number and stage.kind != "relate"]
        self.relating = {s.name: s for s in stages if s.segment == number and s.kind == "relate"}
        self.order = [stage.name for stage in self.own if stage.kind != "licence"]
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._met: dict[str, pa.Table] = {}
        self._pairs: dict[str, pa.Table] = {}

    @property
    def names(self) -> str:
        return ", ".join([*self.order, *self.relating])

    @cached_property
    def documents(self) -> pa.Table:
        """OWN of every document that was measured here, with part and row."""
        return pa.concat_tables(
            table.append_column("part", pa.array([number] * table.num_rows, pa.int32())).append_column(
                "row", pa.array(range(table.num_rows), pa.int64())
            )
            for number, table in enumerate(self._read("signals.parquet", OWN))
        ).combine_chunks()

    def column(self, signal: str) -> pa.Array:
        """A signal of `documents`."""
        if signal not in self._columns:
            self._columns[signal] = pa.concat_tables(self._read("signals.parquet", [signal]))[signal].combine_chunks()
        return self._columns[signal]

    @cached_property
    def errors(self) -> pa.Table:
        return pa.concat_tables([LEDGER.empty_table(), *self._read("errors.parquet")])

    @cached_property
    def entered(self) -> pa.Array:
        return pa.concat_tables(self._read("entered.parquet", ["doc_id"]))["doc_id"].combine_chunks()

    @cached_property
    def splits(self) -> pa.Array:
        """The split of each of `documents`."""
        return pa.concat_tables(self._read("documents.parquet", ["split"]))["split"].combine_chunks()

    @cached_property
    def survivors(self) -> pa.Table:
        return read_parquet(self.store.file(self.keys.survivors, "survivors.parquet"))

    @property
    def draws(self) -> bool:
        """Whether a stage here may look at the split: one that adds documents does, and anybody's own may."""
        return any(stage.kind == "extend" or "." in stage.use for stage in self.own)

    def with_columns(self, documents: pa.Table, signals: Iterable[str]) -> pa.Table:
        """Some of `documents` with these signals."""
        rows = None
        if documents.num_rows != self.documents.num_rows:
            rows = pc.index_in(documents["doc_id"], self.documents["doc_id"].combine_chunks()).combine_chunks()
        for signal in dict.fromkeys(signals):
            values = self.column(signal)
            documents = documents.append_column(signal, values if rows is None else values.take(rows))
        return documents

    def file(self, name: str, what: str) -> Path:
        """Where a relating stage's `pairs` or `cluster` lie."""
        table = {"pairs": "pairs.parquet", "cluster": "relation.parquet"}[what]
        return self.store.file(next(relate for relate in self.keys.relates if relate["stage"] == name)[what], table)

    def cuts_file(self, number: int) -> Path:
        return self.store.file(self.keys.cuts["cuts"], cuts_file(number))

    def relation(self, name: str) -> pa.Table:
        """The signals of a relating stage, as they were stored."""
        return read_parquet(self.file(name, "cluster"))

    def pairs(self, name: str) -> pa.Table:
        if name not in self._pairs:
            self._pairs[name] = read_parquet(self.file(name, "pairs"))
        return self._pairs[name]

    def met(self, loaded: stage.Stage) -> pa.Table:
        """What a relating stage reads of all documents that were measured here."""
        if loaded.name not in self._met:
            nobody = pa.array([], pa.string())
            self._met[loaded.name] = relating.met(self.store, self.keys.parts, loaded, nobody)
        return self._met[loaded.name]

    def _read(self, name: str, columns: list[str] | None = None) -> list[pa.Table]:
        return [read_parquet(self.store.file(key, name), columns) for key in self.keys.parts]
